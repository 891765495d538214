//! Yamux: many streams over one reliable byte pipe, as in the libp2p `yamux` specification.
//!
//! A [`Yamux`] is driven by its owner: bytes from the pipe go into [`Yamux::handle_bytes`], the passing of
//! [`Yamux::deadline`] into [`Yamux::handle_timeout`]; after either, and after any command, the owner takes
//! [`Yamux::poll_event`] until it is empty and, as far as the pipe has room, [`Yamux::poll_transmit`]; and events
//! once more if that transmitted anything, since it makes room for writers.
//! While [`Yamux::wants_input`] is false the pipe is not read.
//!
//! The protocol cannot say "stop sending" for one direction. A stream that we [`stop`](Yamux::stop) is
//! drained: data is discarded and granted anew, so that the remote is never stuck; once our own half is
//! finished as well, the next data resets the stream.

mod chunks;
mod input;
mod output;
mod stream;
#[cfg(test)]
mod tests;
mod types;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
pub use peerless_proto::yamux::GoAway;
use peerless_proto::yamux::{Flags, FrameType, Header, SESSION};

pub use self::types::{
    CloseReason, MuxEvent, MuxStream, OpenError, Read, ReadError, WriteError, YamuxConfig, YamuxError,
};
use self::{
    input::Parser,
    output::Output,
    stream::{SendState, Stream},
};
use crate::{
    names::UpgradeRole,
    time::{Deadline, Instant},
};

/// The name to negotiate before the first yamux byte.
pub const PROTOCOL: &str = "/yamux/1.0.0";

/// Streams we opened that may wait for the remote's acknowledgement.
const MAX_UNACKED: usize = 256;
/// Bytes one stream may have queued to send, so that it does not fill the session's queue alone.
const MAX_STREAM_QUEUE: usize = 64 << 10;
/// Events the owner may leave lying before no more input is wanted.
const MAX_EVENTS: usize = 4096;

/// One end of a yamux session.
#[derive(Debug)]
pub struct Yamux {
    role: UpgradeRole,
    config: YamuxConfig,
    /// The latest time we were told.
    now: Instant,
    streams: BTreeMap<u32, Stream>,
    inbound: usize,
    unacked: usize,
    next_id: u32,
    open_blocked: bool,
    /// Sum of the streams' receive windows.
    windows: u64,
    /// Bytes received and not yet read.
    unread: usize,
    parser: Parser,
    output: Output,
    events: VecDeque<MuxEvent>,
    ping: Ping,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Left by `close`, a remote go-away, a violation, or silence.
    Open,
    /// Our go-away follows the queued data; left when it is out, or as `Open` is.
    Closing,
    Closed,
}

/// The keepalive ping, which also measures the round trip.
#[derive(Debug)]
struct Ping {
    next: u32,
    /// The ping on its way and when it left.
    waiting: Option<(u32, Instant)>,
    last_sent: Instant,
    last_heard: Instant,
    rtt: Option<Duration>,
}

impl Yamux {
    /// A session over a fresh pipe.
    pub fn new(role: UpgradeRole, config: YamuxConfig, now: Instant) -> Self {
        let mut session = Self {
            role,
            config,
            now,
            streams: BTreeMap::new(),
            inbound: 0,
            unacked: 0,
            next_id: if role == UpgradeRole::Initiator { 1 } else { 2 },
            open_blocked: false,
            windows: 0,
            unread: 0,
            parser: Parser::new(role),
            output: Output::default(),
            events: VecDeque::new(),
            ping: Ping { next: 0, waiting: None, last_sent: now, last_heard: now, rtt: None },
            state: State::Open,
        };
        session.send_ping();
        session
    }

    /// The next event, in the order things happened.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    /// Opens a stream. Data written at once travels with the frame that opens it.
    pub fn open(&mut self) -> Result<MuxStream, OpenError> {
        if self.state != State::Open {
            return Err(OpenError::Closed);
        }
        if !self.may_open() {
            self.open_blocked = true;
            return Err(OpenError::Blocked);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(2).ok_or(OpenError::Exhausted)?;
        self.unacked += 1;
        self.insert(id, Stream::new(self.now, Flags::SYN, true));
        Ok(MuxStream(id))
    }

    /// Takes at most `max` received bytes of a stream. Once it returned [`Read::Finished`], and our half is
    /// finished too, the stream is forgotten.
    pub fn read(&mut self, id: MuxStream, max: usize) -> Result<Read, ReadError> {
        let stream = self.streams.get_mut(&id.0).ok_or(ReadError::UnknownStream)?;
        if stream.recv.stopped {
            return Err(ReadError::Stopped);
        }
        if let Some(data) = stream.recv.read(max.max(1)) {
            self.unread -= data.len();
            self.grant(id.0);
            return Ok(Read::Data(data));
        }
        if stream.recv.finished {
            stream.recv.ended = true;
            self.remove_if_over(id.0);
            return Ok(Read::Finished);
        }
        if self.state == State::Closed {
            return Err(ReadError::Closed);
        }
        stream.recv.signalled = false;
        Ok(Read::Blocked)
    }

    /// Queues bytes for sending and takes them off the front of `data`; returns how many.
    pub fn write(&mut self, id: MuxStream, data: &mut Bytes) -> Result<usize, WriteError> {
        let stream = self.sendable(id)?;
        if data.is_empty() {
            return Ok(0);
        }
        let credit = stream.send.credit as usize;
        let stream_room = MAX_STREAM_QUEUE.saturating_sub(stream.send.outbox.len());
        let room = self.config.max_queued.saturating_sub(self.output.queued);
        let take = data.len().min(credit).min(stream_room).min(room);
        let stream = self.streams.get_mut(&id.0).ok_or(WriteError::UnknownStream)?;
        if take == 0 {
            if room == 0 && !stream.send.blocked {
                self.output.waiting.push_back(id.0);
            }
            stream.send.blocked = true;
            return Err(WriteError::Blocked);
        }
        stream.send.credit -= u32::try_from(take).expect("at most the credit, which has 32 bits");
        stream.send.outbox.push(data.split_to(take), take);
        self.output.queued += take;
        self.mark_ready(id.0);
        Ok(take)
    }

    /// Ends our half of a stream behind the data queued; [`MuxEvent::Finished`] follows.
    pub fn finish(&mut self, id: MuxStream) -> Result<(), WriteError> {
        self.sendable(id)?.send.state = SendState::Finishing;
        self.mark_ready(id.0);
        Ok(())
    }

    /// Ends a stream at once in both directions. Unknown streams are ignored.
    pub fn reset(&mut self, id: MuxStream) {
        self.reset_with(id, 0);
    }

    /// The same with a code that tells the remote why.
    pub fn reset_with(&mut self, id: MuxStream, code: u32) {
        let Some(stream) = self.remove(id.0) else { return };
        if !stream.opening.contains(Flags::SYN) && self.state != State::Closed {
            self.output.control.push_back(frame(FrameType::WindowUpdate, Flags::RST, id.0, code));
        }
    }

    /// Discards what a stream received and will receive. Unknown streams are ignored.
    pub fn stop(&mut self, id: MuxStream) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        let discarded = stream.recv.inbox.clear();
        stream.recv.consume(discarded);
        stream.recv.stopped = true;
        stream.recv.ended |= stream.recv.finished || self.state == State::Closed;
        self.unread -= discarded;
        self.grant(id.0);
        self.remove_if_over(id.0);
    }

    /// Ends the session: a go-away frame leaves behind the queued data, then [`MuxEvent::Closed`] follows.
    pub fn close(&mut self) {
        self.close_with(GoAway::Normal);
    }

    /// The same with another code.
    pub fn close_with(&mut self, code: GoAway) {
        if self.state == State::Open {
            self.state = State::Closing;
            self.output.goaway = Some(code);
        }
    }

    /// Pings that are due, and the end of the session if the last one found no answer.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.deadline().is_none_or(|deadline| now < deadline.at) {
            return;
        }
        if self.ping.waiting.is_none() {
            self.send_ping();
        } else if self.wants_input() {
            self.end(GoAway::InternalError, CloseReason::Unresponsive);
        } else {
            // The answer may be in what our owner does not read: that is not the remote's fault.
            self.ping.last_heard = now;
        }
    }

    /// The pipe is gone, for `reason`: nothing is sent or received any more.
    pub fn handle_end(&mut self, reason: CloseReason) {
        if self.state != State::Closed {
            self.output.abandon();
            self.output.body.clear();
            self.closed(reason);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Deadline> {
        if self.state == State::Closed {
            return None;
        }
        Some(match self.ping.waiting {
            Some((_, sent)) => {
                let at = sent.max(self.ping.last_heard) + self.config.pong_timeout;
                Deadline { at, why: "yamux pong timeout" }
            }
            None => Deadline { at: self.ping.last_sent + self.config.keepalive, why: "yamux keepalive" },
        })
    }

    /// False while so much is unread that the pipe should not be read; reads, stops and resets end that.
    pub fn wants_input(&self) -> bool {
        self.unread < self.config.max_connection_window as usize && self.events.len() < MAX_EVENTS
    }

    /// True once the session is over and nothing is left to transmit.
    pub fn is_drained(&self) -> bool {
        self.state == State::Closed && self.output.is_empty()
    }

    /// Streams that exist, in any state.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Payload bytes held: received and not read, or written and not sent.
    pub fn buffered(&self) -> usize {
        self.unread + self.output.queued
    }

    /// The last measured round trip.
    pub const fn rtt(&self) -> Option<Duration> {
        self.ping.rtt
    }

    fn sendable(&mut self, id: MuxStream) -> Result<&mut Stream, WriteError> {
        let stream = self.streams.get_mut(&id.0).ok_or(WriteError::UnknownStream)?;
        match stream.send.state {
            SendState::Finishing | SendState::Finished => Err(WriteError::Finished),
            SendState::Stopped => Err(WriteError::Stopped),
            SendState::Open if self.state != State::Open => Err(WriteError::Closed),
            SendState::Open => Ok(stream),
        }
    }

    fn insert(&mut self, id: u32, stream: Stream) {
        self.windows += u64::from(stream.recv.window);
        self.streams.insert(id, stream);
        self.mark_ready(id);
    }

    fn remove_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.remove(id);
        }
    }

    /// Forgets a stream and everything that counted for it.
    fn remove(&mut self, id: u32) -> Option<Stream> {
        let mut stream = self.streams.remove(&id)?;
        self.windows -= u64::from(stream.recv.window);
        self.unread -= stream.recv.inbox.clear();
        self.parser.expect_stray(stream.recv.credit);
        self.release(stream.send.outbox.clear());
        self.unacked -= usize::from(stream.unacked);
        self.inbound -= usize::from(self.is_remote(id));
        self.wake_opener();
        Some(stream)
    }

    fn may_open(&self) -> bool {
        let outbound = self.streams.len() - self.inbound;
        self.state == State::Open && self.unacked < MAX_UNACKED && outbound < self.config.max_outbound_streams
    }

    fn wake_opener(&mut self) {
        if self.open_blocked && self.may_open() {
            self.open_blocked = false;
            self.events.push_back(MuxEvent::Available);
        }
    }

    const fn is_remote(&self, id: u32) -> bool {
        (id % 2 == 1) == matches!(self.role, UpgradeRole::Responder)
    }

    /// Grants a stream the credit that is due, growing its window while the connection's limit allows.
    fn grant(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let room = u64::from(self.config.max_connection_window).saturating_sub(self.windows);
        let room = self
            .config
            .max_stream_window
            .saturating_sub(stream.recv.window)
            .min(u32::try_from(room).unwrap_or(u32::MAX));
        let queued = stream.recv.grant > 0;
        if let Some(growth) = stream.recv.grant(self.now, self.ping.rtt, room) {
            self.windows += u64::from(growth);
            if !queued && self.state != State::Closed {
                self.output.grants.push_back(id);
            }
        }
    }

    fn send_ping(&mut self) {
        let nonce = self.ping.next;
        self.ping.next = nonce.wrapping_add(1);
        self.ping.waiting = Some((nonce, self.now));
        self.ping.last_sent = self.now;
        self.output.control.push_back(frame(FrameType::Ping, Flags::SYN, SESSION, nonce));
    }

    /// Ends the session: nothing more is sent but what is told to the remote with `code`.
    fn end(&mut self, code: GoAway, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        self.output.abandon();
        if !matches!(reason, CloseReason::Remote(_)) {
            self.output.control.push_back(frame(FrameType::GoAway, Flags::NONE, SESSION, code.into()));
        }
        self.closed(reason);
    }

    fn closed(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.events.push_back(MuxEvent::Closed(reason));
    }
}

const fn frame(kind: FrameType, flags: Flags, stream: u32, length: u32) -> Header {
    Header { kind, flags, stream, length }
}
