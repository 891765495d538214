//! When a remote hears that we end a stream: if its library may miss that, not before its handler listens.

use std::time::Duration;

use super::{Node, pump::Work, transport::Transport};
use crate::ids::{ConnectionId, StreamId};

/// After its proposal left, our end of a stream is held for so long at least if the remote may miss it: js-libp2p answers a
/// proposal some milliseconds before its handler listens. What the remote says ends that at once.
const GRACE: Duration = Duration::from_millis(50);
/// Libraries of which it is known that they hear an end whenever it comes, as they stand in the agents of identify.
const HEAR_EVERY_END: [&str; 6] =
    ["peerless", "rust-libp2p", "go-libp2p", "github.com/", "nim-libp2p", "py-libp2p"];

impl Transport {
    /// Whether the remote hears the end of a stream whenever it comes.
    pub(super) fn hears_every_end(&self, connection: ConnectionId) -> bool {
        self.links.get(&connection).is_some_and(|link| !link.may_miss_ends)
    }

    /// How much longer our end of a stream is held whose proposal has just been agreed to.
    pub(super) fn end_grace(&self, connection: ConnectionId) -> Option<Duration> {
        self.links.get(&connection).filter(|link| link.may_miss_ends)?;
        let rtt = self.rtt(connection).unwrap_or_default();
        GRACE.checked_sub(rtt).filter(|left| !left.is_zero())
    }
}

impl Node {
    /// The remote has spoken on a stream, so its handler runs and hears our end.
    pub(super) fn heard_from(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let held = stream.held_until();
        stream.end_from = None;
        if held.is_some() {
            self.streams.set_deadline(id, None);
            self.work.push_back(Work::Write(id));
        }
    }

    /// Identify tells of a library that it hears every end, or that it may not.
    pub(super) fn learn_end_hearing(&mut self, connection: ConnectionId, agent: &str) {
        let Some(link) = self.transport.links.get_mut(&connection) else { return };
        link.may_miss_ends = !HEAR_EVERY_END.iter().any(|library| agent.contains(library));
        if !link.may_miss_ends {
            self.work.extend(link.streams.values().map(|stream| Work::Write(*stream)));
        }
    }

    pub(super) fn is_held(&self, id: StreamId) -> bool {
        self.streams.get(id).is_some_and(|stream| stream.held_until().is_some())
    }
}
