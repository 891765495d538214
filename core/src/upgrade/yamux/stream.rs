use std::time::Duration;

use bytes::Bytes;
use peerless_proto::yamux::{Flags, INITIAL_WINDOW};

use super::chunks::Chunks;
use crate::time::Instant;

/// One stream: what we receive, what we send, and which flags and queues it is in.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) recv: Recv,
    pub(super) send: Send,
    /// The flag that our next frame carries to open (SYN) or accept (ACK) the stream.
    pub(super) opening: Flags,
    /// We opened it and the remote did not acknowledge it yet.
    pub(super) unacked: bool,
    /// In the queue of streams that have a frame to send.
    pub(super) ready: bool,
}

impl Stream {
    pub(super) fn new(now: Instant, opening: Flags, outbound: bool) -> Self {
        Self { recv: Recv::new(now), send: Send::new(), opening, unacked: outbound, ready: false }
    }

    pub(super) fn has_frame(&self) -> bool {
        self.opening != Flags::NONE || self.send.outbox.len() > 0 || self.send.state == SendState::Finishing
    }

    pub(super) fn is_over(&self) -> bool {
        self.recv.ended && matches!(self.send.state, SendState::Finished | SendState::Stopped)
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Recv {
    pub(super) inbox: Chunks,
    /// Size the window is kept at: credit, plus bytes received and not granted anew.
    pub(super) window: u32,
    /// Bytes the remote may still send.
    pub(super) credit: u32,
    /// Bytes read or discarded and not yet granted anew.
    pub(super) consumed: u32,
    /// Granted and not yet told to the remote.
    pub(super) grant: u32,
    last_grant: Instant,
    /// The remote sent FIN.
    pub(super) finished: bool,
    /// We want no more: data is discarded on arrival.
    pub(super) stopped: bool,
    /// Nothing is left to come or to read.
    pub(super) ended: bool,
    /// `Readable` was reported and the reader did not come to the bottom since.
    pub(super) signalled: bool,
}

impl Recv {
    fn new(now: Instant) -> Self {
        Self {
            inbox: Chunks::default(),
            window: INITIAL_WINDOW,
            credit: INITIAL_WINDOW,
            consumed: 0,
            grant: 0,
            last_grant: now,
            finished: false,
            stopped: false,
            ended: false,
            signalled: false,
        }
    }

    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        let piece = self.inbox.pop(max)?;
        self.consume(piece.len());
        Some(piece)
    }

    /// Counts `len` received bytes as gone. All of them were within the window, so the sum fits.
    pub(super) fn consume(&mut self, len: usize) {
        self.consumed += u32::try_from(len).expect("received within a window of 32 bits");
    }

    /// Gives the remote new credit once half the window is consumed. The window doubles, by at most `room`
    /// bytes, if that took less than two round trips: then the window, not the reader, is the limit.
    /// Returns by how much it grew, or `None` if no credit is due.
    pub(super) fn grant(&mut self, now: Instant, rtt: Option<Duration>, room: u32) -> Option<u32> {
        if self.finished || self.consumed < self.window / 2 {
            return None;
        }
        let quick = rtt.is_some_and(|rtt| now.saturating_duration_since(self.last_grant) < rtt * 2);
        let growth = if quick && !self.stopped { self.window.min(room) } else { 0 };
        let credit = self.consumed + growth;
        self.window += growth;
        self.credit += credit;
        self.grant += credit;
        self.consumed = 0;
        self.last_grant = now;
        Some(growth)
    }
}

/// Where the sending half stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    /// Takes data; left by `finish`, a remote RST, or `reset`.
    Open,
    /// FIN goes out behind the queued data; left when it did.
    Finishing,
    /// FIN is out.
    Finished,
    /// The remote wants no more.
    Stopped,
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) outbox: Chunks,
    /// Bytes we may still send; queued bytes are paid for.
    pub(super) credit: u32,
    /// A write was refused since the last `Writable`.
    pub(super) blocked: bool,
    pub(super) state: SendState,
}

impl Send {
    fn new() -> Self {
        Self { outbox: Chunks::default(), credit: INITIAL_WINDOW, blocked: false, state: SendState::Open }
    }
}
