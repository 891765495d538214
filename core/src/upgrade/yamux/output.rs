//! Frames to the remote: answers and control first, then credit, then data, stream by stream in turn.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use peerless_proto::yamux::{Flags, FrameType, GoAway, HEADER_LEN, Header, SESSION};

use super::{
    MAX_STREAM_QUEUE, State, Yamux, frame,
    stream::SendState,
    types::{CloseReason, MuxEvent, MuxStream},
};

/// Payload of one data frame at most, so that streams take turns; with its header it fills a TLS record.
const MAX_FRAME: usize = (16 << 10) - HEADER_LEN;
/// Headers are cut from blocks of this size.
const HEADER_BLOCK: usize = 64 * HEADER_LEN;

/// What waits to be sent. Queued identifiers may be of streams that are gone.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Frames the remote made us owe.
    pub(super) replies: VecDeque<Header>,
    /// Frames of our own will.
    pub(super) control: VecDeque<Header>,
    /// Streams with credit to tell.
    pub(super) grants: VecDeque<u32>,
    /// Streams with a frame to send, in turn.
    ready: VecDeque<u32>,
    /// What is left of the frame being sent.
    pub(super) body: VecDeque<Bytes>,
    pub(super) goaway: Option<GoAway>,
    /// Bytes written and not yet in a frame.
    pub(super) queued: usize,
    /// Streams whose writer waits for room in the queue.
    pub(super) waiting: VecDeque<u32>,
    headers: BytesMut,
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty() && self.replies.is_empty() && self.control.is_empty()
    }

    /// Drops all but the frame being sent.
    pub(super) fn abandon(&mut self) {
        let body = std::mem::take(&mut self.body);
        *self = Self { body, queued: self.queued, ..Self::default() };
    }

    fn encode(&mut self, header: Header) -> Bytes {
        if self.headers.capacity() < HEADER_LEN {
            self.headers = BytesMut::with_capacity(HEADER_BLOCK);
        }
        self.headers.extend_from_slice(&header.encode());
        self.headers.split().freeze()
    }
}

impl Yamux {
    /// The next bytes for the pipe: a header or a piece of payload, never empty. Whatever was returned must
    /// be sent, in order.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.output.body.pop_front() {
            return Some(piece);
        }
        let header = self.next_frame()?;
        Some(self.output.encode(header))
    }

    fn next_frame(&mut self) -> Option<Header> {
        if let Some(header) = self.output.replies.pop_front().or_else(|| self.output.control.pop_front()) {
            return Some(header);
        }
        if self.state == State::Closed {
            return None;
        }
        while let Some(id) = self.output.grants.pop_front() {
            if let Some(header) = self.grant_frame(id) {
                return Some(header);
            }
        }
        while let Some(id) = self.output.ready.pop_front() {
            if let Some(header) = self.stream_frame(id) {
                return Some(header);
            }
        }
        let code = self.output.goaway.take()?;
        self.closed(CloseReason::Local);
        Some(frame(FrameType::GoAway, Flags::NONE, SESSION, code.into()))
    }

    fn grant_frame(&mut self, id: u32) -> Option<Header> {
        let stream = self.streams.get_mut(&id)?;
        let delta = std::mem::take(&mut stream.recv.grant);
        let flags = std::mem::take(&mut stream.opening);
        (delta > 0).then(|| frame(FrameType::WindowUpdate, flags, id, delta))
    }

    /// The stream's next frame; its payload goes to `body`.
    fn stream_frame(&mut self, id: u32) -> Option<Header> {
        let stream = self.streams.get_mut(&id)?;
        stream.ready = false;
        if !stream.has_frame() {
            return None;
        }
        let mut flags = std::mem::take(&mut stream.opening);
        let len = stream.send.outbox.len().min(MAX_FRAME);
        let mut left = len;
        while let Some(piece) = (left > 0).then(|| stream.send.outbox.pop(left)).flatten() {
            left -= piece.len();
            self.output.body.push_back(piece);
        }
        // FIN travels alone: the go and js receivers look at flags before data, and may miss data that comes with it.
        let fin = len == 0 && stream.send.state == SendState::Finishing;
        if fin {
            flags = flags | Flags::FIN;
            stream.send.state = SendState::Finished;
            self.events.push_back(MuxEvent::Finished(MuxStream(id)));
        }
        let kind = if len == 0 && !fin { FrameType::WindowUpdate } else { FrameType::Data };
        self.release(len);
        self.wake_writer(id);
        self.mark_ready(id);
        self.remove_if_over(id);
        Some(frame(kind, flags, id, u32::try_from(len).expect("at most MAX_FRAME")))
    }

    /// Puts a stream that has a frame to send at the end of the turn.
    pub(super) fn mark_ready(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.has_frame()
            && !std::mem::replace(&mut stream.ready, true)
        {
            self.output.ready.push_back(id);
        }
    }

    /// Tells a writer that was refused, if the stream itself has room again.
    pub(super) fn wake_writer(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.send.blocked
            && stream.send.credit > 0
            && stream.send.outbox.len() <= MAX_STREAM_QUEUE / 2
        {
            stream.send.blocked = false;
            self.events.push_back(MuxEvent::Writable(MuxStream(id)));
        }
    }

    /// Counts `len` bytes out of the session's queue and, once it is half empty, wakes who waited for room.
    pub(super) fn release(&mut self, len: usize) {
        self.output.queued -= len;
        if self.output.queued <= self.config.max_queued / 2 {
            for id in std::mem::take(&mut self.output.waiting) {
                self.wake_writer(id);
            }
        }
    }
}
