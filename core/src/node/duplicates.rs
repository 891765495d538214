//! Two peers that dial each other at the same moment get two connections. Exactly one is kept, the same on both sides,
//! without a word between them: the one that the smaller PeerId dialled. New streams go there from the start, and whoever
//! dialled the other one closes it when it is not used any more. The side that did not dial it never does: so a peer with
//! another rule, or with none, and one that has just restarted, is never left without a connection.

use std::time::Duration;

use crate::{
    errors::CloseReason,
    ids::ConnectionId,
    names::Direction,
    node::Node,
    swarm::table::ConnectionInfo,
    time::{Instant, Timers},
};

/// How close together connections are made that were meant to be one.
const SAME_MOMENT: Duration = Duration::from_secs(10);
/// How long the superfluous one is kept at least: streams of either side may be on their way.
const LINGER: Duration = Duration::from_secs(1);
/// How long a connection in use is left alone at most before it is looked at again.
const MAX_LINGER: Duration = Duration::from_secs(64);

/// Superfluous connections that we are to close.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    timers: Timers<ConnectionId>,
}

impl Duplicates {
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }
}

impl Node {
    /// Marks the superfluous one if the connection just made and an older one were meant to be one.
    pub(super) fn settle_duplicates(&mut self, new: ConnectionId) {
        let Some(new) = self.connections.get(new) else { return };
        let is_twin = |old: &&ConnectionInfo| {
            old.direction != new.direction
                && old.relayed.is_some() == new.relayed.is_some()
                && !old.is_superseded
                && self.now.saturating_duration_since(old.established) <= SAME_MOMENT
        };
        let others = self.connections.of(&new.peer).iter().filter_map(|id| self.connections.get(*id));
        let Some(old) = others.filter(is_twin).last() else { return };
        let kept = match self.local_peer() < new.peer {
            true => Direction::Outbound,
            false => Direction::Inbound,
        };
        let loser = if old.direction == kept { new.id } else { old.id };
        self.counters.add("swarm.duplicates", 1);
        self.connections.set_superseded(loser, true);
        let Some(info) = self.connections.get(loser) else { return };
        if info.direction == Direction::Outbound {
            self.duplicates.timers.set(self.now + LINGER, loser);
        }
    }

    /// A connection has ended: what it superseded is needed again, if nothing else is left.
    pub(super) fn reinstate(&mut self, ended: &ConnectionInfo) {
        let ids = self.connections.of(&ended.peer).to_vec();
        let is_same_kind = |info: &ConnectionInfo| info.relayed.is_some() == ended.relayed.is_some();
        let mut infos =
            ids.iter().filter_map(|id| self.connections.get(*id)).filter(|info| is_same_kind(info));
        if infos.any(|info| !info.is_superseded) {
            return;
        }
        for id in ids {
            if self.connections.get(id).is_some_and(is_same_kind) {
                self.connections.set_superseded(id, false);
            }
        }
    }

    pub(super) fn expire_duplicates(&mut self) {
        while let Some((_, id)) = self.duplicates.timers.pop_due(self.now) {
            let Some(info) = self.connections.get(id).filter(|info| info.is_superseded) else { continue };
            let is_used = self.transport.links.get(&id).is_some_and(|link| !link.streams.is_empty());
            if is_used {
                let age = self.now.saturating_duration_since(info.established);
                self.duplicates.timers.set(self.now + age.clamp(LINGER, MAX_LINGER), id);
                continue;
            }
            self.close_because(id, CloseReason::Duplicate);
        }
    }
}
