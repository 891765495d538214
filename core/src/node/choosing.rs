//! Streams for which a behaviour proposes several protocols, and what a behaviour answers, which may change.

use bytes::{Bytes, BytesMut};

use super::{Node, Route, answered, pump::Work};
use crate::{
    behaviour::{Input, StreamEvent},
    errors::{OpenError, StreamFault},
    ids::{ConnectionId, StreamId},
    names::{ProtocolName, ProtocolSpec},
    streams::{Choice, Mode, Owner, negotiate::Dialer},
};

impl Node {
    /// Opens a stream of a behaviour, which proposes `protocol` and then, one by one, what it would rather have than nothing.
    pub(super) fn open_for(
        &mut self,
        index: usize,
        connection: ConnectionId,
        protocol: ProtocolName,
        fallback: Vec<ProtocolName>,
    ) -> Result<StreamId, OpenError> {
        let specs = &self.behaviours[index].specs;
        let framing =
            |name: &ProtocolName| specs.iter().find(|spec| spec.name == *name).map(|spec| spec.framing);
        let owner = Owner::Behaviour(index);
        if fallback.is_empty() {
            let Some(framing) = framing(&protocol) else { return Err(OpenError::UnknownProtocol(protocol)) };
            return self.open_stream(connection, &protocol, owner, framing);
        }
        let mut protocols = Vec::with_capacity(1 + fallback.len());
        for name in std::iter::once(protocol.clone()).chain(fallback) {
            let Some(framing) = framing(&name) else { return Err(OpenError::UnknownProtocol(name)) };
            protocols.push((name, framing));
        }
        let mut proposal = BytesMut::new();
        let dialer = Dialer::new(protocols.iter().map(|(name, _)| name.as_str()), &mut proposal);
        let mode = Mode::Choosing(Box::new(Choice { dialer, protocols, held: Vec::new() }));
        self.open_proposing(connection, &protocol, owner, mode, proposal.freeze())
    }

    /// The remote says something to one of several proposals.
    pub(super) fn choose(&mut self, id: StreamId, chunk: Bytes) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let Mode::Choosing(choice) = &mut stream.mode else { return };
        let mut answer = BytesMut::new();
        let outcome = choice.dialer.handle_bytes(chunk, &mut answer);
        stream.enqueue(answer.freeze());
        match outcome {
            Ok(None) => self.heard_from(id),
            Ok(Some(name)) => self.chosen(id, &name),
            Err(error) => return self.disagreed(id, &error),
        }
        self.work.push_back(Work::Write(id));
        self.work.push_back(Work::Read(id));
    }

    fn chosen(&mut self, id: StreamId, name: &str) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let Mode::Choosing(choice) = &mut stream.mode else { return };
        let Some((protocol, framing)) = choice.protocols.iter().find(|(p, _)| p.as_str() == name).cloned()
        else {
            return;
        };
        let (rest, held) = (choice.dialer.take_rest(), std::mem::take(&mut choice.held));
        stream.protocol = Some(protocol.clone());
        let wanted = if stream.stopped.is_none() { held } else { Vec::new() };
        for frame in wanted {
            stream.queued = stream.queued.saturating_sub(frame.len());
            stream.enqueue_frame(framing, frame);
        }
        let changed = self.swarm.resources.change_protocol(stream.share, &protocol);
        self.proposal_accepted(id, framing, rest);
        match changed {
            Ok(()) => self.tell_owner(id, StreamEvent::Agreed { protocol }),
            Err(exceeded) => self.fail_stream(id, StreamFault::Limit(exceeded)),
        }
    }

    /// A behaviour answers a protocol from now on, or with another limit; see [`crate::behaviour::Action::Answer`].
    pub(super) fn answer_protocol(&mut self, index: usize, spec: ProtocolSpec) {
        let ProtocolSpec { name, framing, inbound_per_peer } = spec;
        let owner = Owner::Behaviour(index);
        let route = self.routes.get(&name);
        if route.is_some_and(|route| route.owner != owner && route.inbound_per_peer > 0) {
            self.counters.add("behaviours.answer_refused", 1);
            return;
        }
        let specs = &mut self.behaviours[index].specs;
        let framing = match specs.iter_mut().find(|spec| spec.name == name) {
            Some(known) => {
                known.inbound_per_peer = inbound_per_peer;
                known.framing
            }
            None => {
                specs.push(ProtocolSpec { name: name.clone(), framing, inbound_per_peer });
                framing
            }
        };
        self.routes.insert(name, Route { owner, framing, inbound_per_peer });
        let answered = answered(&self.routes);
        if answered != self.protocols {
            self.protocols = answered;
            self.work.push_back(Work::Tell(Input::Addresses));
        }
    }
}
