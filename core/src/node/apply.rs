//! What behaviours ask for, done.

use bytes::Bytes;

use super::{Node, circuits::Carried, pump::Work, storage::Asker};
use crate::{
    behaviour::{Action, Input, Reply},
    errors::{CloseReason, SpliceEnd, StreamFault},
    ids::{ConnectionId, StreamId, Token},
    names::SpliceReport,
    storage::StorageAsk,
    streams::{Mode, Owner, splice::Splice},
    trace::Glyph,
};

use super::dialing::Requester;

impl Node {
    /// Does what the behaviour with this index asks for. Ids that are stale, or not its own, change nothing.
    pub(super) fn apply(&mut self, index: usize, action: Action) {
        match action {
            Action::Open { token, connection, protocol, fallback } => {
                self.measure(connection);
                let opened = self.open_for(index, connection, protocol, fallback);
                self.reply(index, token, Reply::Stream(opened));
            }
            Action::Answer { spec } => self.answer_protocol(index, spec),
            Action::Send { stream, frame } => self.send_frame(index, stream, frame),
            Action::Pause { stream } => self.pause_stream(index, stream, true),
            Action::Resume { stream } => self.pause_stream(index, stream, false),
            Action::Finish { stream } => {
                if self.owns(index, stream) {
                    self.finish_stream(stream);
                }
            }
            Action::Stop { stream, code } => {
                if self.owns(index, stream) {
                    self.stop_stream(stream, code);
                }
            }
            Action::Reset { stream, code } => {
                if self.owns(index, stream) {
                    self.drop_stream_because(stream, code);
                }
            }
            Action::Splice { token, a, b, limit } => {
                let mine = self.owns(index, a) && self.owns(index, b);
                if mine {
                    self.start_splice(Splice::new(token, index, (a, b), limit, self.now));
                } else {
                    let end = SpliceEnd::A(StreamFault::ConnectionLost);
                    self.reply(index, token, Reply::Spliced(SpliceReport { a_to_b: 0, b_to_a: 0, end }));
                }
            }
            Action::Upgrade { token, dial, stream, peer, role, limit, address } => {
                let stream = self.owns(index, stream).then_some(stream);
                let carried = Carried { requester: (index, token), dial, peer, role, limit, address };
                self.start_circuit(stream, carried);
            }
            Action::Dial { token, peer, addresses, options } => {
                let requester = Requester::Behaviour(index, token);
                self.start_dial(requester, peer, &addresses, &options);
            }
            Action::DialFailed { token, error } => self.carried_attempt_failed(index, token, error),
            Action::Close { connection, code } => self.close_connection(connection, code),
            Action::AddAddress { address, source } => self.advertise(address, source),
            Action::RemoveAddress { address, source } => self.withdraw(address, source),
            Action::Load { token, table, after } => {
                self.ask_store(Asker::Behaviour(index, token), table, StorageAsk::Load { after });
            }
            Action::Store { token, table, writes } => {
                self.ask_store(Asker::Behaviour(index, token), table, StorageAsk::Store(writes));
            }
            Action::Tag { peer, tag, value, decay } => {
                self.change_tags(|tags, now| tags.tag_decaying(now, peer, tag, value, decay));
            }
            Action::Deny { peer, duration } => self.deny_for(peer, duration),
            Action::Untag { peer, tag } => self.change_tags(|tags, _| _ = tags.untag(&peer, tag)),
            Action::Protect { peer, tag } => self.change_tags(|tags, now| tags.protect(now, peer, tag)),
            Action::Unprotect { peer, tag } => self.change_tags(|tags, _| _ = tags.unprotect(&peer, tag)),
            Action::Learn { peer, addresses, source, record, ttl } => {
                self.learn_addresses(peer, &addresses, source, record, Some(ttl));
            }
            Action::Emit(notice) => self.emit_notice(index, notice),
        }
    }

    pub(super) fn reply(&mut self, index: usize, token: Token, reply: Reply) {
        self.work.push_back(Work::Input(index, Input::Reply(token, reply)));
    }

    fn owns(&self, index: usize, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|s| s.owner == Owner::Behaviour(index))
    }

    fn send_frame(&mut self, index: usize, id: StreamId, frame: Bytes) {
        let Some(stream) = self.streams.get_mut(id).filter(|s| s.owner == Owner::Behaviour(index)) else {
            return;
        };
        let Some(protocol) = stream.protocol.clone().filter(|_| !stream.finishing) else { return };
        let is_unread = matches!(stream.mode, Mode::ProposingUnheard(_) | Mode::Draining);
        if !is_unread && !matches!(stream.mode, Mode::Framed(_) | Mode::Proposing(..) | Mode::Choosing(_)) {
            return;
        }
        // One frame always finds room, as its protocol says how long it may be.
        let is_full =
            stream.queued > 0 && stream.queued.saturating_add(frame.len()) > self.stream_config.write_queue;
        if is_full {
            self.counters.add("streams.write_queue_full", 1);
            self.fail_stream(id, StreamFault::WriteQueueFull);
            return;
        }
        let queued = stream.queued.saturating_add(frame.len());
        if let Err(exceeded) = self.swarm.resources.set_queued(stream.share, queued) {
            self.fail_stream(id, StreamFault::Limit(exceeded));
            return;
        }
        let spec = self.behaviours[index].specs.iter().find(|spec| spec.name == protocol);
        let Some(framing) = spec.map(|spec| spec.framing) else { return };
        stream.drain_pending = true;
        let peer = stream.peer;
        if self.trace.is_enabled() {
            let unix = self.wall.at(self.now);
            let text = self.behaviours[index].behaviour.describe(&protocol, &frame, unix);
            let text = text.unwrap_or_else(|| format!("{protocol} {} bytes", frame.len()));
            self.trace.line(self.now, Glyph::Frame, Some(peer), || text);
        }
        match &mut stream.mode {
            Mode::Choosing(choice) => {
                stream.queued = queued;
                choice.held.push(frame);
            }
            _ => stream.enqueue_frame(framing, frame),
        }
        self.work.push_back(Work::Write(id));
    }

    /// A behaviour wants no frames of a stream for now, or wants them again.
    fn pause_stream(&mut self, index: usize, id: StreamId, paused: bool) {
        let stream = self.streams.get_mut(id).filter(|s| s.owner == Owner::Behaviour(index));
        if stream.is_some_and(|stream| std::mem::replace(&mut stream.paused, paused) && !paused) {
            self.work.push_back(Work::Read(id));
        }
    }

    /// Ends our direction of a stream behind what is queued.
    pub(super) fn finish_stream(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.finishing = true;
            self.work.push_back(Work::Write(id));
        }
    }

    /// Ends a connection at once and says so.
    pub(super) fn close_connection(&mut self, connection: ConnectionId, code: u64) {
        self.close_transport(connection, code);
        self.disconnected(connection, CloseReason::Local);
    }

    /// The same for a reason of ours.
    pub(super) fn close_because(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.close_transport(connection, reason.code());
        self.disconnected(connection, reason);
    }
}
