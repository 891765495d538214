//! Frames from the remote.

use bytes::Bytes;
use peerless_proto::yamux::{Flags, FrameType, GoAway, HEADER_LEN, Header, INITIAL_WINDOW, SESSION};

use super::{
    State, Yamux, frame,
    stream::{SendState, Stream},
    types::{CloseReason, MuxEvent, MuxStream, YamuxError},
};
use crate::{names::UpgradeRole, time::Instant};

/// Answers the remote may have us owe: beyond the 256 streams it may open unacknowledged, and its pings.
const MAX_REPLIES: usize = 512;
/// Identifiers remembered because a later one was seen first.
const MAX_GAPS: usize = 256;

/// Where in a frame the input stands, and what is known of the remote's identifiers.
#[derive(Debug)]
pub(super) struct Parser {
    at: At,
    /// The remote's next identifier, if it opens its streams in order.
    next: u64,
    /// Identifiers below `next` not opened yet, ascending: some implementations number their streams before
    /// they order them.
    gaps: Vec<u64>,
    /// Bytes that may still be under way for streams that are gone.
    stray: u64,
}

#[derive(Debug)]
enum At {
    Header {
        bytes: [u8; HEADER_LEN],
        have: usize,
    },
    /// `stream` is `None` where the body is to be skipped.
    Body {
        stream: Option<u32>,
        left: usize,
        fin: bool,
    },
}

impl At {
    const START: Self = Self::Header { bytes: [0; HEADER_LEN], have: 0 };
}

impl Parser {
    pub(super) const fn new(role: UpgradeRole) -> Self {
        let next = if matches!(role, UpgradeRole::Initiator) { 2 } else { 1 };
        Self { at: At::START, next, gaps: Vec::new(), stray: 0 }
    }

    /// Allows for `credit` bytes that the remote may have sent before it hears that a stream is gone.
    pub(super) const fn expect_stray(&mut self, credit: u32) {
        self.stray = self.stray.saturating_add(credit as u64);
    }

    /// Marks the remote's identifier as used; false if it was before.
    fn claim(&mut self, id: u32) -> bool {
        let id = u64::from(id);
        if id < self.next {
            let gap = self.gaps.binary_search(&id);
            return gap.map(|index| self.gaps.remove(index)).is_ok();
        }
        let oldest = self.next.max(id.saturating_sub(2 * MAX_GAPS as u64));
        self.gaps.extend((oldest..id).step_by(2));
        self.gaps.drain(..self.gaps.len().saturating_sub(MAX_GAPS));
        self.next = id + 2;
        true
    }
}

impl Yamux {
    /// Takes bytes from the pipe, in any chunking. Large payloads are kept as slices of `data`.
    ///
    /// # Errors
    /// The remote broke the protocol: the session is over, a go-away frame says so to the remote, and
    /// [`MuxEvent::Closed`] with the same error is the last event.
    pub fn handle_bytes(&mut self, now: Instant, mut data: Bytes) -> Result<(), YamuxError> {
        self.now = self.now.max(now);
        self.ping.last_heard = self.now;
        let source = data.len();
        while !data.is_empty() && self.state != State::Closed {
            let step = self.take_input(&mut data, source);
            step.inspect_err(|error| self.end(GoAway::ProtocolError, CloseReason::Violation(*error)))?;
        }
        Ok(())
    }

    fn take_input(&mut self, data: &mut Bytes, source: usize) -> Result<(), YamuxError> {
        match &mut self.parser.at {
            At::Header { bytes, have } => {
                let piece = data.split_to(data.len().min(HEADER_LEN - *have));
                bytes[*have..*have + piece.len()].copy_from_slice(&piece);
                *have += piece.len();
                if *have == HEADER_LEN {
                    let header = Header::decode(bytes)?;
                    self.parser.at = self.handle_header(header)?;
                    self.end_body();
                }
            }
            At::Body { stream, left, .. } => {
                let piece = data.split_to(data.len().min(*left));
                *left -= piece.len();
                if let Some(id) = *stream {
                    self.handle_body(id, piece, source);
                }
                self.end_body();
            }
        }
        Ok(())
    }

    /// Goes on to the next header if the body is complete.
    fn end_body(&mut self) {
        let At::Body { stream, left: 0, fin } = self.parser.at else { return };
        self.parser.at = At::START;
        if let (Some(id), true) = (stream, fin) {
            self.handle_fin(id);
        }
    }

    fn handle_header(&mut self, header: Header) -> Result<At, YamuxError> {
        match header.kind {
            FrameType::Ping => self.handle_ping(header)?,
            FrameType::GoAway => {
                let reason = CloseReason::Remote(GoAway::from(header.length));
                self.end(GoAway::Normal, reason);
            }
            FrameType::WindowUpdate => {
                if let Some(id) = self.handle_flags(header)? {
                    self.handle_credit(id, header.length)?;
                    if header.flags.contains(Flags::FIN) {
                        self.handle_fin(id);
                    }
                }
            }
            FrameType::Data => {
                let stream = self.handle_flags(header)?;
                return self.handle_data(stream, header);
            }
        }
        Ok(At::START)
    }

    fn handle_ping(&mut self, header: Header) -> Result<(), YamuxError> {
        if header.flags.contains(Flags::SYN) {
            return self.reply(frame(FrameType::Ping, Flags::ACK, SESSION, header.length));
        }
        if let Some((nonce, sent)) = self.ping.waiting
            && header.flags.contains(Flags::ACK)
            && nonce == header.length
        {
            self.ping.waiting = None;
            self.ping.rtt = Some(self.now.saturating_duration_since(sent));
        }
        Ok(())
    }

    /// Handles SYN, ACK and RST. Returns the stream if it is there afterwards.
    fn handle_flags(&mut self, header: Header) -> Result<Option<u32>, YamuxError> {
        let id = header.stream;
        if header.flags.contains(Flags::SYN) && !self.handle_syn(id)? {
            return Ok(None);
        }
        if header.flags.contains(Flags::RST) {
            // Of a data frame the length says how much data follows.
            let code = if header.kind == FrameType::WindowUpdate { header.length } else { 0 };
            self.handle_reset(id, code);
            return Ok(None);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(None) };
        if header.flags.contains(Flags::ACK) && std::mem::take(&mut stream.unacked) {
            self.unacked -= 1;
            self.wake_opener();
        }
        Ok(Some(id))
    }

    /// Opens a stream for the remote; false if it is refused.
    fn handle_syn(&mut self, id: u32) -> Result<bool, YamuxError> {
        if !self.is_remote(id) {
            return Err(YamuxError::InvalidStream(id));
        }
        if !self.parser.claim(id) {
            return Err(YamuxError::StreamReused(id));
        }
        if self.state != State::Open || self.inbound >= self.config.max_inbound_streams {
            self.parser.expect_stray(INITIAL_WINDOW);
            self.reply(frame(FrameType::WindowUpdate, Flags::RST, id, 0))?;
            return Ok(false);
        }
        self.inbound += 1;
        self.insert(id, Stream::new(self.now, Flags::ACK, false));
        self.events.push_back(MuxEvent::Opened(MuxStream(id)));
        Ok(true)
    }

    /// After its own FIN the remote's RST only says that it wants no more; what it sent stays readable.
    fn handle_reset(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.recv.finished {
            self.remove(id);
            self.events.push_back(MuxEvent::Reset(MuxStream(id), code));
        } else if stream.send.state != SendState::Finished {
            stream.send.state = SendState::Stopped;
            let dropped = stream.send.outbox.clear();
            self.release(dropped);
            self.events.push_back(MuxEvent::Stopped(MuxStream(id), code));
            self.remove_if_over(id);
        }
    }

    /// New credit for our data; for a stream that is gone it means nothing.
    fn handle_credit(&mut self, id: u32, delta: u32) -> Result<(), YamuxError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let send = &mut stream.send;
        send.credit = send.credit.checked_add(delta).ok_or(YamuxError::CreditOverflow(id))?;
        if delta > 0 {
            self.wake_writer(id);
        }
        Ok(())
    }

    /// Accounts for the body of a data frame before any of it came.
    fn handle_data(&mut self, stream: Option<u32>, header: Header) -> Result<At, YamuxError> {
        let (id, length) = (header.stream, header.length);
        let body = At::Body { stream, left: length as usize, fin: header.flags.contains(Flags::FIN) };
        let Some(stream) = stream.and_then(|id| self.streams.get_mut(&id)) else {
            let stray = self.parser.stray.checked_sub(u64::from(length));
            self.parser.stray = stray.ok_or(YamuxError::StrayData(id))?;
            return Ok(body);
        };
        let credit = stream.recv.credit.checked_sub(length);
        stream.recv.credit = credit.ok_or(YamuxError::WindowExceeded(id))?;
        if stream.recv.finished {
            // A writer that races with its own close can send data behind its FIN; it is not worth the session.
            return Ok(At::Body { stream: None, left: length as usize, fin: false });
        }
        Ok(body)
    }

    /// Part of a body. The stream may be gone since its header came.
    fn handle_body(&mut self, id: u32, piece: Bytes, source: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let len = piece.len();
        if !stream.recv.stopped {
            stream.recv.inbox.push(piece, source);
            self.unread += len;
            self.signal_readable(id);
        } else if stream.send.state == SendState::Finished {
            self.reset(MuxStream(id));
        } else {
            stream.recv.consume(len);
            self.grant(id);
        }
    }

    fn handle_fin(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recv.finished = true;
        if stream.recv.stopped {
            stream.recv.ended = true;
            self.remove_if_over(id);
        } else {
            self.signal_readable(id);
        }
    }

    fn signal_readable(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.recv.signalled, true)
        {
            self.events.push_back(MuxEvent::Readable(MuxStream(id)));
        }
    }

    fn reply(&mut self, header: Header) -> Result<(), YamuxError> {
        if self.output.replies.len() >= MAX_REPLIES {
            return Err(YamuxError::ReplyFlood);
        }
        self.output.replies.push_back(header);
        Ok(())
    }
}
