//! Moving the bytes of streams: negotiation, frames, write queues, splices.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{
    Node,
    pump::Work,
    transport::{RESET_CODE, Transport},
};
use crate::{
    behaviour::{Input, Reply, StreamEvent},
    codes,
    errors::{OpenError, SpliceEnd, StreamFault},
    ids::{ConnectionId, SpliceId, StreamId},
    names::{Framing, ProtocolName, SpliceReport},
    node::{AppStreamEvent, Event},
    streams::{
        Mode, Owner, Read, Stream, Streams, Taken, WriteFault,
        negotiate::Dialer,
        splice::{Batch, Pipes, Splice, Turn},
    },
    trace::Glyph,
};

/// Most bytes taken from a stream at a time.
const CHUNK: usize = 64 << 10;
/// How long a circuit at its byte limit is given so that what it accepted gets through before the reset overtakes it: a
/// few round trips, within bounds.
const CUT_ROUND_TRIPS: u32 = 3;
const CUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Node {
    /// Opens a stream and proposes a protocol; whatever is written next travels with the proposal. If the remote grants no
    /// more streams for now, all that waits until it does, for as long as a negotiation may take.
    pub(super) fn open_stream(
        &mut self,
        connection: ConnectionId,
        protocol: &ProtocolName,
        owner: Owner,
        framing: Framing,
    ) -> Result<StreamId, OpenError> {
        let mut proposal = BytesMut::new();
        let dialer = Dialer::new([protocol.as_str()], &mut proposal);
        let mode = Mode::Proposing(Box::new(dialer), framing);
        self.open_proposing(connection, protocol, owner, mode, proposal.freeze())
    }

    /// Opens a stream that begins with a proposal.
    pub(super) fn open_proposing(
        &mut self,
        connection: ConnectionId,
        protocol: &ProtocolName,
        owner: Owner,
        mode: Mode,
        proposal: Bytes,
    ) -> Result<StreamId, OpenError> {
        let peer = self.connections.get(connection).ok_or(OpenError::NoConnection)?.peer;
        let share = self.open_stream_share(connection, owner, protocol)?;
        let number = match self.transport.open(connection) {
            Ok(number) => number,
            Err(error) => {
                self.swarm.resources.close_stream(share);
                return Err(error);
            }
        };
        let deadline = self.now + self.stream_config.negotiation_timeout;
        let mut stream = Stream::new(connection, share, peer, number, owner, mode, deadline);
        stream.opened = self.now;
        stream.protocol = Some(protocol.clone());
        stream.enqueue(proposal);
        let id = self.streams.insert(stream);
        if let Some(link) = self.transport.links.get_mut(&connection) {
            link.streams.insert(number, id);
        }
        self.work.push_back(Work::Write(id));
        Ok(id)
    }

    /// The remote grants more streams: those that wait for it get on with their negotiation.
    pub(super) fn streams_granted(&mut self, connection: ConnectionId) {
        while let Some((id, number)) = self.transport.granted(connection) {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.number = number;
            self.work.push_back(Work::Write(id));
        }
    }

    /// Takes what can be read from a stream, one step at a time: what a step leads to may change who reads next.
    pub(super) fn read_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        match &mut stream.mode {
            Mode::Spliced(splice) => {
                let splice = *splice;
                self.schedule_splice(splice);
            }
            Mode::Carrying(circuit) => {
                let circuit = *circuit;
                self.schedule_circuit(circuit);
            }
            Mode::Pulled(_) => {
                if !std::mem::replace(&mut stream.told_readable, true) {
                    self.emit_stream(id, AppStreamEvent::Readable);
                }
            }
            Mode::Framed(_) if stream.paused => {}
            Mode::Framed(decoder) => match decoder.next_frame() {
                Ok(Some(frame)) => self.deliver(id, StreamEvent::Frame(frame)),
                Ok(None) => self.read_more(id),
                Err(error) => self.fail_stream(id, StreamFault::Malformed(error.to_string())),
            },
            Mode::Listening(_) | Mode::Proposing(..) | Mode::ProposingUnheard(_) | Mode::Choosing(_) => {
                self.read_more(id);
            }
            Mode::Draining | Mode::Refused { .. } => self.discard(id),
        }
    }

    fn read_more(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id).filter(|s| !s.remote_finished) else { return };
        match self.transport.read(stream.connection, stream.number, CHUNK) {
            Ok(Read::Blocked) => {}
            Ok(Read::Data(chunk)) => {
                stream.read += chunk.len() as u64;
                self.take_chunk(id, chunk);
            }
            Ok(Read::Finished) => {
                stream.remote_finished = true;
                match &stream.mode {
                    Mode::Framed(decoder) if decoder.buffered() == 0 => {
                        self.deliver(id, StreamEvent::Finished);
                        self.remove_if_over(id);
                    }
                    _ => self.ended_in_the_middle(id),
                }
            }
            Err(fault) => self.fail_stream(id, fault),
        }
    }

    /// Reads for nobody.
    fn discard(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id).filter(|s| !s.remote_finished) else { return };
        match self.transport.read(stream.connection, stream.number, CHUNK) {
            Ok(Read::Blocked) => {}
            Ok(Read::Data(data)) => {
                stream.read += data.len() as u64;
                self.heard_from(id);
                self.talks_on(id, data.len());
                self.work.push_back(Work::Read(id));
            }
            Ok(Read::Finished) => {
                stream.remote_finished = true;
                self.remove_if_over(id);
            }
            Err(fault) => self.fail_stream(id, fault),
        }
    }

    fn take_chunk(&mut self, id: StreamId, chunk: Bytes) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if matches!(stream.mode, Mode::Choosing(_)) {
            return self.choose(id, chunk);
        }
        let mut answer = BytesMut::new();
        let outcome = match &mut stream.mode {
            Mode::Framed(decoder) => {
                decoder.push(chunk);
                Ok(None)
            }
            Mode::Proposing(dialer, framing) => {
                let agreed = dialer.handle_bytes(chunk, &mut answer);
                agreed.map(|agreed| agreed.map(|_| (None, *framing, dialer.take_rest())))
            }
            Mode::ProposingUnheard(dialer) => {
                let agreed = dialer.handle_bytes(chunk, &mut answer);
                agreed.map(|agreed| agreed.map(|_| (None, Framing::Raw, Vec::new())))
            }
            Mode::Listening(listener) => {
                let find = |name: &str| {
                    let found = self.routes.get_key_value(name);
                    found.filter(|(_, r)| r.inbound_per_peer > 0).map(|(name, route)| (name.clone(), *route))
                };
                let agreed = listener.handle_bytes(chunk, find, &mut answer);
                agreed.map(|agreed| agreed.map(|(n, r)| (Some((n, r)), r.framing, listener.take_rest())))
            }
            _ => Ok(None),
        };
        stream.enqueue(answer.freeze());
        match outcome {
            Ok(None) => self.heard_from(id),
            Ok(Some((None, framing, rest))) => self.proposal_accepted(id, framing, rest),
            Ok(Some((Some((name, route)), _, rest))) => self.inbound_agreed(id, name, route, rest),
            Err(error) => return self.disagreed(id, &error),
        }
        self.work.push_back(Work::Write(id));
        self.work.push_back(Work::Read(id));
    }

    pub(super) fn proposal_accepted(&mut self, id: StreamId, framing: Framing, rest: Vec<Bytes>) {
        self.streams.set_deadline(id, None);
        let Some(stream) = self.streams.get_mut(id) else { return };
        let is_app = stream.owner == Owner::App;
        if rest.is_empty() {
            stream.end_from = self.transport.end_grace(stream.connection).map(|grace| self.now + grace);
        }
        if matches!(stream.mode, Mode::ProposingUnheard(_)) {
            stream.mode = Mode::Draining;
            stream.remote_finished = true;
            self.transport.stop(stream.connection, stream.number, stream.stop_code);
        } else {
            stream.mode = Mode::agreed(stream.owner, framing, rest);
        }
        if is_app {
            self.emit_stream(id, AppStreamEvent::Agreed);
        }
    }

    /// Gives the owner an event at once, and goes on reading.
    fn deliver(&mut self, id: StreamId, event: StreamEvent) {
        self.tell_owner(id, event);
        self.work.push_back(Work::Read(id));
    }

    pub(super) fn tell_owner(&mut self, id: StreamId, event: StreamEvent) {
        if let Some(Stream { owner: Owner::Behaviour(index), .. }) = self.streams.get(id) {
            let index = *index;
            self.call(index, |behaviour, cx| behaviour.handle(cx, Input::Stream(id, event)));
        }
    }

    pub(super) fn emit_stream(&mut self, stream: StreamId, event: AppStreamEvent) {
        self.events.push_back(Event::Stream { stream, event });
    }

    /// Writes what is queued, and goes on with whatever waits for room.
    pub(super) fn write_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if let Err(fault) = flush(stream, &mut self.transport) {
            self.fail_stream(id, fault);
            return;
        }
        // Less than before is never refused; and what came with a negotiation was small.
        let _ = self.swarm.resources.set_queued(stream.share, stream.queued);
        if !stream.queue.is_empty() {
            return;
        }
        let held = stream.held_until();
        if std::mem::take(&mut stream.wants_to_write) {
            self.events.push_back(Event::Stream { stream: id, event: AppStreamEvent::Writable });
        }
        match stream.mode {
            Mode::Spliced(splice) => self.schedule_splice(splice),
            Mode::Carrying(circuit) => self.schedule_circuit(circuit),
            Mode::Choosing(_) => {}
            _ => {
                if std::mem::take(&mut stream.drain_pending) {
                    self.tell_owner(id, StreamEvent::Drained);
                }
            }
        }
        if held.is_some() {
            self.streams.set_deadline(id, held);
        }
        self.remove_if_over(id);
    }

    /// A stream is lost: gives it up and tells whom it concerns.
    pub(super) fn fail_stream(&mut self, id: StreamId, fault: StreamFault) {
        let Some(stream) = self.forget_stream(id) else { return };
        self.blame(stream.connection, &fault);
        self.transport.reset(stream.connection, stream.number, fault.code());
        self.stream_is_gone(id, &stream, fault);
    }

    /// We give a stream up. Its owner knows; whatever ran over it does not.
    pub(super) fn drop_stream(&mut self, id: StreamId) {
        self.drop_stream_because(id, RESET_CODE);
    }

    pub(super) fn drop_stream_because(&mut self, id: StreamId, code: u64) {
        let Some(stream) = self.forget_stream(id) else { return };
        // Whoever resets what it has spliced ends it because its time is up.
        let is_spliced = matches!(stream.mode, Mode::Spliced(_));
        let code = if is_spliced && code == RESET_CODE { codes::stream::LIMIT_EXCEEDED } else { code };
        self.transport.reset(stream.connection, stream.number, code);
        match stream.mode {
            Mode::Spliced(splice) => self.end_splice(splice, SpliceEnd::Local),
            Mode::Carrying(circuit) => self.carrier_lost(circuit, StreamFault::Remote(RESET_CODE)),
            _ => {}
        }
    }

    /// The connection of a stream has ended.
    pub(super) fn stream_lost_with_connection(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(id) else { return };
        self.swarm.resources.close_stream(stream.share);
        match stream.mode {
            Mode::Spliced(_) | Mode::Carrying(_) => {
                self.stream_is_gone(id, &stream, StreamFault::ConnectionLost)
            }
            _ => {}
        }
    }

    fn stream_is_gone(&mut self, id: StreamId, stream: &Stream, fault: StreamFault) {
        match (&stream.mode, stream.owner) {
            (Mode::Spliced(splice), _) => {
                let is_a = self.splices.get_mut(*splice).is_some_and(|s| s.a == id);
                self.end_splice(*splice, if is_a { SpliceEnd::A(fault) } else { SpliceEnd::B(fault) });
            }
            (Mode::Carrying(circuit), _) => self.carrier_lost(*circuit, fault),
            (_, Owner::Behaviour(index)) => {
                let input = Input::Stream(id, StreamEvent::Reset(fault));
                self.work.push_back(Work::Input(index, input));
            }
            (_, Owner::App) => self.emit_stream(id, AppStreamEvent::Reset(fault)),
            (_, Owner::Nobody) => self.counters.add("streams.lost.negotiating", 1),
        }
    }

    /// Removes a stream from all tables.
    fn forget_stream(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(id)?;
        self.swarm.resources.close_stream(stream.share);
        if let Some(link) = self.transport.links.get_mut(&stream.connection) {
            link.streams.remove(&stream.number);
            link.resets.remove(&stream.number);
            link.negotiating -= usize::from(stream.mode.is_without_protocol());
        }
        Some(stream)
    }

    /// Forgets a stream whose directions have both ended.
    pub(super) fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(id).is_some_and(Stream::is_over) {
            self.forget_stream(id);
        }
    }

    pub(super) fn expire_streams(&mut self) {
        while let Some(id) = self.streams.pop_late(self.now) {
            match self.streams.get(id).map(|stream| &stream.mode) {
                Some(
                    Mode::Listening(_) | Mode::Proposing(..) | Mode::ProposingUnheard(_) | Mode::Choosing(_),
                ) => {
                    self.counters.add("streams.negotiation.timeout", 1);
                    self.fail_stream(id, StreamFault::NegotiationTimeout);
                }
                Some(Mode::Refused { .. }) => self.refusal_expired(id),
                Some(Mode::Draining) if !self.is_held(id) => self.drop_stream(id),
                _ => self.work.push_back(Work::Write(id)),
            }
        }
    }
}

/// Splices.
impl Node {
    pub(super) fn schedule_splice(&mut self, id: SpliceId) {
        if let Some(splice) = self.splices.get_mut(id)
            && !std::mem::replace(&mut splice.scheduled, true)
        {
            self.work.push_back(Work::Splice(id));
        }
    }

    pub(super) fn turn_splice(&mut self, id: SpliceId) {
        let mut pipes = StreamPipes { streams: &mut self.streams, transport: &mut self.transport };
        let turn = self.splices.turn(id, &mut pipes, self.now);
        self.meter_splice(id);
        self.splice_turned(id, turn);
    }

    /// Lets splices go on that waited for their rates. Returns whether there were any.
    pub(super) fn resume_splices(&mut self) -> bool {
        if let Some(id) = self.splices.pop_resumed(self.now) {
            self.schedule_splice(id);
            return true;
        }
        let Some(id) = self.splices.pop_line(self.now) else { return false };
        let mut pipes = StreamPipes { streams: &mut self.streams, transport: &mut self.transport };
        let turn = self.splices.turn_first(id, &mut pipes, self.now);
        self.meter_splice(id);
        self.splice_turned(id, turn);
        true
    }

    fn splice_turned(&mut self, id: SpliceId, turn: Turn) {
        match turn {
            Turn::Idle => {}
            Turn::Paced(_) => self.counters.add("splices.held_back.circuit_byte_rate", 1),
            Turn::Queued => self.counters.add("splices.held_back.relay_byte_rate", 1),
            Turn::More => self.schedule_splice(id),
            Turn::Limit => self.cut_splice(id),
            Turn::Over(end) => self.end_splice(id, end),
        }
    }

    /// A direction is at its limit: nothing more is read, and both streams are reset when what was accepted has had the
    /// time to arrive.
    fn cut_splice(&mut self, id: SpliceId) {
        let Some(splice) = self.splices.get_mut(id) else { return };
        let ends = [splice.a, splice.b];
        let rtt = ends.iter().filter_map(|s| self.transport.rtt(self.streams.get(*s)?.connection)).max();
        let (low, high) = CUT_BOUNDS;
        let grace = rtt.map_or(high, |rtt| rtt.saturating_mul(CUT_ROUND_TRIPS).clamp(low, high));
        self.splices.cut(id, self.now + grace);
    }

    pub(super) fn expire_splices(&mut self) {
        while let Some((id, end)) = self.splices.pop_over(self.now) {
            self.end_splice(id, end);
        }
        while let Some(id) = self.splices.pop_look(self.now) {
            self.look_at_splice(id);
        }
    }

    /// Ends a splice, resets what is left of its streams, and reports.
    pub(super) fn end_splice(&mut self, id: SpliceId, end: SpliceEnd) {
        let Some(mut splice) = self.splices.remove(id) else { return };
        self.forget_meters(&mut splice);
        for stream in [splice.a, splice.b] {
            let Some(gone) = self.forget_stream(stream) else { continue };
            if end != SpliceEnd::Finished {
                self.transport.reset(gone.connection, gone.number, end.code());
            }
        }
        let (a_to_b, b_to_a) = splice.counts();
        self.trace.line(self.now, Glyph::SpliceEnded, None, || {
            let names = splice.names.map(|(a, b)| format!("{a}<->{b} ")).unwrap_or_default();
            format!("splice {names}ended: {end}      a>b {a_to_b} b>a {b_to_a}")
        });
        let reply = Reply::Spliced(SpliceReport { a_to_b, b_to_a, end });
        self.work.push_back(Work::Input(splice.owner, Input::Reply(splice.token, reply)));
    }

    /// Joins two streams of a behaviour; see [`crate::behaviour::Action::Splice`].
    pub(super) fn start_splice(&mut self, mut splice: Splice) {
        let (a, b) = (splice.a, splice.b);
        let mut names = [None; 2];
        let mut connections = [None; 2];
        let mut rest = [Vec::new(), Vec::new()];
        for (n, side) in [a, b].into_iter().enumerate() {
            let Some(stream) = self.streams.get_mut(side) else { continue };
            if let Mode::Framed(decoder) = &mut stream.mode {
                rest[n] = decoder.take_rest();
                names[n] = Some(stream.peer);
                connections[n] = Some(stream.connection);
            }
            if stream.remote_finished && n == 0 {
                splice.a_is_finished();
            } else if stream.remote_finished {
                splice.b_is_finished();
            }
        }
        let [from_a, from_b] = rest;
        let end = match names {
            [Some(_), Some(_)] if a != b => splice.preload(from_a, from_b).err(),
            [None, _] => Some(SpliceEnd::A(StreamFault::ConnectionLost)),
            _ => Some(SpliceEnd::B(StreamFault::ConnectionLost)),
        };
        if let [Some(a), Some(b)] = connections {
            splice.set_connections(a, b);
        }
        splice.names = names[0].zip(names[1]);
        if let Some((a, b)) = splice.names {
            self.trace.line(self.now, Glyph::Spliced, None, || format!("splice {a}<->{b}"));
        }
        let id = self.splices.insert(splice);
        for side in [a, b] {
            if let Some(stream) = self.streams.get_mut(side).filter(|_| end.is_none()) {
                stream.mode = Mode::Spliced(id);
                stream.end_from = None;
            }
        }
        match end {
            Some(end) => self.end_splice(id, end),
            None => self.schedule_splice(id),
        }
    }
}

/// Writes as much of the queue as the connection takes, and ends our direction behind it if that is due.
pub(super) fn flush(stream: &mut Stream, transport: &mut Transport) -> Result<(), StreamFault> {
    while let Some(front) = stream.queue.front_mut() {
        let taken = match transport.write(stream.connection, stream.number, front) {
            Ok(taken) => taken,
            Err(WriteFault::Stopped(code)) => {
                stream.stop(code);
                transport.reset_ours(stream.connection, stream.number);
                return Ok(());
            }
            Err(WriteFault::Lost(fault)) => return Err(fault),
        };
        stream.queued -= taken;
        stream.written += taken as u64;
        if front.is_empty() {
            stream.queue.pop_front();
        } else if taken == 0 {
            return Ok(());
        }
    }
    if stream.is_ready_to_finish(transport.now, transport.hears_every_end(stream.connection)) {
        transport.finish(stream.connection, stream.number);
        stream.finished = true;
    }
    Ok(())
}

/// Streams as the byte pipes of a splice: what was queued before it goes out first.
struct StreamPipes<'a> {
    streams: &'a mut Streams,
    transport: &'a mut Transport,
}

impl Pipes for StreamPipes<'_> {
    fn take(&mut self, stream: StreamId, most: usize, into: &mut Batch) -> Result<Taken, StreamFault> {
        let stream = self.streams.get(stream).ok_or(StreamFault::ConnectionLost)?;
        self.transport.take(stream.connection, stream.number, most, |chunk| into.push(chunk))
    }

    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteFault> {
        let lost = WriteFault::Lost(StreamFault::ConnectionLost);
        let stream = self.streams.get_mut(stream).ok_or(lost)?;
        flush(stream, self.transport).map_err(WriteFault::Lost)?;
        if !stream.queue.is_empty() {
            return Ok(0);
        }
        self.transport.write(stream.connection, stream.number, data)
    }

    fn stopped(&self, stream: StreamId) -> Option<u64> {
        self.streams.get(stream)?.stopped
    }

    fn reset(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get(stream) {
            self.transport.reset_ours(stream.connection, stream.number);
        }
    }

    fn stop(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get(stream) {
            self.transport.stop(stream.connection, stream.number, RESET_CODE);
        }
    }

    fn finish(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.finishing = true;
            // A fault here is met again by whoever writes or reads next.
            let _ = flush(stream, self.transport);
        }
    }
}
