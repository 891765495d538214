//! Streams over several connections to a peer, and connections that are replaced.

use libp2p_identity::PeerId;

use super::dialing::Requester;
use crate::{
    errors::{CloseReason, StreamFault},
    ids::ConnectionId,
    node::Node,
    protocols::ping::Ping,
    swarm::{
        dial::DialOptions,
        health::{Health, Situation},
        select::{self, Choice},
    },
};

/// Most connections that are looked at in one turn.
const LOOKS_AT_ONCE: usize = 64;

impl Node {
    /// How healthy connections are; [`Health::record`] is what is known of one.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The connections to a peer, the one for the next stream first.
    pub(super) fn by_preference(&mut self, peer: &PeerId) -> Vec<ConnectionId> {
        let ids = self.connections.of(peer).to_vec();
        ids.iter().for_each(|id| self.measure_direct(*id));
        let infos = ids.iter().filter_map(|id| self.connections.get(*id));
        let mut choices: Vec<_> = infos
            .map(|info| Choice {
                connection: info.id,
                is_relayed: info.relayed.is_some(),
                is_superseded: info.is_superseded,
                streams: self.streams_on(info.id),
                health: self.health.score(self.now, info.id),
                rtt: info.rtt,
                last_chosen: self.health.last_chosen(info.id),
            })
            .collect();
        select::order(self.strategy, &mut choices);
        choices.into_iter().map(|choice| choice.connection).collect()
    }

    /// A stream of ours was lost: is its connection to blame?
    pub(super) fn blame(&mut self, connection: ConnectionId, fault: &StreamFault) {
        if matches!(fault, StreamFault::NegotiationTimeout) {
            self.health.stream_failed(self.now, connection);
        }
    }

    /// Looks at those whose time has come, pings them, and replaces what has been unhealthy for long. Many at once have to wait
    /// for each other, so that everything else gets its turn.
    pub(super) fn look_at_health(&mut self) {
        for _ in 0..LOOKS_AT_ONCE {
            let Some(connection) = self.health.pop_due(self.now) else { return };
            let Some(info) = self.connections.get(connection) else { continue };
            let (peer, remote) = (info.peer, info.remote.clone());
            let situation = self.situation(connection, &peer);
            let is_sick = self.health.look(self.now, &situation);
            self.with::<Ping, _>(self.now, |ping, cx| ping.probe(cx, connection));
            if is_sick {
                self.counters.add("swarm.health.replacing", 1);
                let options = DialOptions { force_new: true, ..DialOptions::default() };
                self.start_dial(Requester::Replacement(connection), Some(peer), &[remote], &options);
            }
        }
    }

    fn situation(&self, connection: ConnectionId, peer: &PeerId) -> Situation {
        Situation {
            connection,
            is_used: self.streams_on(connection) > 0,
            is_protected: self.swarm.tags.is_protected(peer),
            siblings: self.connections.of(peer).len(),
        }
    }

    /// A new connection is there: the old one goes.
    pub(super) fn replace(&mut self, old: ConnectionId, new: ConnectionId) {
        if old != new && self.connections.get(old).is_some() {
            self.close_because(old, CloseReason::Replaced);
        }
    }

    fn measure_direct(&mut self, connection: ConnectionId) {
        if self.connections.get(connection).is_some_and(|info| info.relayed.is_none()) {
            self.measure(connection);
        }
    }
}
