//! Streams that remotes open, until they have an owner.

use bytes::Bytes;

use super::{Node, Route, pump::Work};
use crate::{
    behaviour::StreamEvent,
    codes,
    ids::{ConnectionId, StreamId},
    names::{Direction, ProtocolName},
    node::AppStreamEvent,
    streams::{Mode, Owner, Stream, negotiate::Listener},
    trace::Glyph,
};

impl Node {
    /// The remote opened a stream.
    pub(super) fn stream_opened(&mut self, connection: ConnectionId, number: u64) {
        let Some(info) = self.connections.get(connection) else { return };
        let peer = info.peer;
        if self.count_as_ending() {
            self.transport.reset(connection, number, codes::stream::SHUTDOWN);
            return;
        }
        let Some(link) = self.transport.links.get_mut(&connection) else { return };
        if link.negotiating >= self.stream_config.negotiating_per_connection {
            self.counters.add("streams.refused.negotiating", 1);
            self.transport.reset(connection, number, codes::stream::LIMIT_EXCEEDED);
            return;
        }
        let Ok(share) = self.swarm.resources.open_stream(link.share, Direction::Inbound) else {
            self.transport.reset(connection, number, codes::stream::LIMIT_EXCEEDED);
            return;
        };
        link.negotiating += 1;
        let deadline = self.now + self.stream_config.negotiation_timeout;
        let mode = Mode::Listening(Box::new(Listener::new()));
        let mut stream = Stream::new(connection, share, peer, number, Owner::Nobody, mode, deadline);
        stream.opened = self.now;
        let id = self.streams.insert(stream);
        if let Some(link) = self.transport.links.get_mut(&connection) {
            link.streams.insert(number, id);
        }
        self.work.push_back(Work::Read(id));
    }

    /// The remote has proposed a protocol of ours.
    pub(super) fn inbound_agreed(
        &mut self,
        id: StreamId,
        protocol: ProtocolName,
        route: Route,
        rest: Vec<Bytes>,
    ) {
        self.streams.set_deadline(id, None);
        let Some(stream) = self.streams.get(id) else { return };
        let (connection, peer, share) = (stream.connection, stream.peer, stream.share);
        if let Some(link) = self.transport.links.get_mut(&connection) {
            link.negotiating -= 1;
        }
        if self.count_as_ending() {
            return self.drop_stream_because(id, codes::stream::SHUTDOWN);
        }
        let admitted = self.streams.admit(id, &protocol, route.inbound_per_peer);
        let service = self.service(route.owner);
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.owner = route.owner;
        stream.mode = Mode::agreed(route.owner, route.framing, rest);
        if !admitted {
            self.counters.add("streams.refused.per_peer", 1);
        }
        if !admitted || self.swarm.resources.set_protocol(share, service, &protocol).is_err() {
            let text = || format!("{protocol} from {peer}: too many streams");
            self.trace.line(self.now, Glyph::Dropped, None, text);
            self.drop_stream_because(id, codes::stream::LIMIT_EXCEEDED);
            return;
        }
        match route.owner {
            Owner::App => self.emit_stream(id, AppStreamEvent::Accepted { connection, peer, protocol }),
            _ => self.tell_owner(id, StreamEvent::Accepted { connection, peer, protocol }),
        }
    }

    /// Nothing that a peer asks for is granted any more, so its streams go.
    fn count_as_ending(&mut self) -> bool {
        let is_ending = self.is_ending();
        if is_ending {
            self.counters.add("streams.refused.shutting_down", 1);
        }
        is_ending
    }
}
