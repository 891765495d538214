//! The stream layer: it agrees on a protocol for every stream, cuts bytes into frames, queues writes, and knows which
//! behaviour, splice, circuit or embedder a stream belongs to.
//!
//! This module is the table and its accounting; [`crate::node`] moves the bytes.

pub mod negotiate;
pub(crate) mod pace;
pub(crate) mod splice;
pub mod windows;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;
use peerless_proto::frame::{FrameDecoder, Framing};

use self::negotiate::{Dialer, Listener};
use crate::{
    errors::{InvalidConfig, StreamFault, require},
    ids::{Arena, CircuitId, ConnectionId, SpliceId, StreamId, StreamShare},
    names::ProtocolName,
    rng::{HashKeys, Map},
    time::{Instant, Timers},
};

/// Limits of the stream layer.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long agreeing on a protocol may take, in either direction.
    pub negotiation_timeout: Duration,
    /// Most bytes a behaviour may have queued on one stream before the stream is reset.
    pub write_queue: usize,
    /// Most inbound streams of one connection that have not agreed on a protocol yet; one more is reset.
    pub negotiating_per_connection: usize,
    /// At a relay: how much the sources of circuits may have under way.
    pub windows: windows::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            negotiation_timeout: Duration::from_secs(10),
            write_queue: 256 << 10,
            negotiating_per_connection: 128,
            windows: windows::Config::default(),
        }
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const AT_LEAST_ONE: &str = "must be at least 1";
        require(!self.negotiation_timeout.is_zero(), "streams.negotiation_timeout", "must not be zero")?;
        require(self.write_queue >= 1, "streams.write_queue", AT_LEAST_ONE)?;
        require(self.negotiating_per_connection >= 1, "streams.negotiating_per_connection", AT_LEAST_ONE)?;
        require(self.windows.socket_buffer >= 1, "streams.windows.socket_buffer", AT_LEAST_ONE)?;
        require(self.windows.rate >= 1, "streams.windows.rate", AT_LEAST_ONE)
    }
}

/// What there is to read from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, at least one.
    Data(Bytes),
    /// Nothing now; [`crate::node::AppStreamEvent::Readable`] follows.
    Blocked,
    /// Nothing any more: the remote finished.
    Finished,
}

/// Why no more was read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is as much as was asked for.
    Most,
    /// There is no more for now.
    Blocked,
    /// There is no more: the remote finished.
    Finished,
}

/// Why nothing could be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteFault {
    /// The remote wants no more, for this reason; it may go on sending.
    Stopped(u64),
    /// The stream is gone in both directions.
    Lost(StreamFault),
}

/// To whom a stream belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody yet: an inbound stream that has not agreed on a protocol.
    Nobody,
    /// The behaviour with this index.
    Behaviour(usize),
    /// The embedder.
    App,
}

/// What is done with the bytes of a stream.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Waiting for the remote to propose a protocol we speak. Exits: agreed, refused, timed out.
    Listening(Box<Listener>),
    /// Waiting for the remote to agree to our proposal, while frames may already go out. Exits: agreed,
    /// refused, timed out; stopped ([`Mode::ProposingUnheard`]).
    Proposing(Box<Dialer>, Framing),
    /// The same; what the remote says beyond its agreement is not wanted. Exits: agreed ([`Mode::Draining`]), refused,
    /// timed out.
    ProposingUnheard(Box<Dialer>),
    /// Waiting for the remote to agree to one of several proposals; frames wait for that too. Exits: agreed, refused, timed
    /// out.
    Choosing(Box<Choice>),
    /// Cut into frames for a behaviour.
    Framed(Box<FrameDecoder>),
    /// Pulled by the embedder; the bytes here came together with the agreement and are read first.
    Pulled(VecDeque<Bytes>),
    /// One side of a splice.
    Spliced(SpliceId),
    /// The carrier of a circuit.
    Carrying(CircuitId),
    /// What is queued still leaves, what arrives is discarded. Exits: both directions ended, timed out.
    Draining,
    /// The same, because we do not speak what the remote proposed, which it must hear. Exits: both directions ended, timed
    /// out.
    Refused {
        /// Bytes that have come since.
        discarded: usize,
    },
}

impl Mode {
    /// Whether it is an inbound stream without a protocol, of which a connection may have a few.
    pub(crate) fn is_without_protocol(&self) -> bool {
        matches!(self, Self::Listening(_) | Self::Refused { .. })
    }

    /// What an agreed stream goes on as.
    pub(crate) fn agreed(owner: Owner, framing: Framing, rest: Vec<Bytes>) -> Self {
        if owner == Owner::App {
            return Self::Pulled(rest.into());
        }
        let mut decoder = FrameDecoder::new(framing);
        rest.into_iter().for_each(|chunk| decoder.push(chunk));
        Self::Framed(Box::new(decoder))
    }
}

/// A stream that may speak one of several protocols.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) dialer: Dialer,
    /// Most wanted first.
    pub(crate) protocols: Vec<(ProtocolName, Framing)>,
    /// Frames that go out when it is known which. They count as queued.
    pub(crate) held: Vec<Bytes>,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) connection: ConnectionId,
    /// What it takes of the limited resources.
    pub(crate) share: StreamShare,
    pub(crate) peer: PeerId,
    /// Its number within its connection.
    pub(crate) number: u64,
    pub(crate) owner: Owner,
    pub(crate) mode: Mode,
    pub(crate) protocol: Option<ProtocolName>,
    /// Whether it counts towards its protocol's inbound limit.
    pub(crate) inbound: bool,
    pub(crate) queue: VecDeque<Bytes>,
    pub(crate) queued: usize,
    /// When it was opened.
    pub(crate) opened: Instant,
    /// Bytes taken from its connection, and given to it; but those that pass in a splice or carry a circuit.
    pub(crate) read: u64,
    pub(crate) written: u64,
    /// Our direction is to end when the queue is empty.
    pub(crate) finishing: bool,
    /// Our direction has ended.
    pub(crate) finished: bool,
    /// It has ended because the remote wants no more (STOP_SENDING, RFC 9000 section 19.5), for this reason.
    pub(crate) stopped: Option<u64>,
    /// With which code the remote is asked to send no more, once it has agreed on the protocol.
    pub(crate) stop_code: u64,
    /// The remote's direction has ended.
    pub(crate) remote_finished: bool,
    /// It has agreed to our proposal, but may not hear our end before that.
    pub(crate) end_from: Option<Instant>,
    /// When negotiation, or draining, must be over, or a held end is due.
    pub(crate) deadline: Option<Instant>,
    /// Told the embedder that it can read, and it has not tried since.
    pub(crate) told_readable: bool,
    /// A write of the embedder was blocked.
    pub(crate) wants_to_write: bool,
    /// The owner is to be told when the queue is empty.
    pub(crate) drain_pending: bool,
    /// The owner wants no frames for now.
    pub(crate) paused: bool,
}

impl Stream {
    /// A stream that is about to negotiate, until `deadline`.
    pub(crate) fn new(
        connection: ConnectionId,
        share: StreamShare,
        peer: PeerId,
        number: u64,
        owner: Owner,
        mode: Mode,
        deadline: Instant,
    ) -> Self {
        Self {
            connection,
            share,
            peer,
            number,
            owner,
            mode,
            protocol: None,
            inbound: false,
            queue: VecDeque::new(),
            queued: 0,
            opened: Instant::ZERO,
            read: 0,
            written: 0,
            finishing: false,
            finished: false,
            stopped: None,
            stop_code: 0,
            remote_finished: false,
            end_from: None,
            deadline: Some(deadline),
            told_readable: false,
            wants_to_write: false,
            drain_pending: false,
            paused: false,
        }
    }

    /// Adds bytes behind what is queued.
    pub(crate) fn enqueue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Adds a frame behind what is queued.
    pub(crate) fn enqueue_frame(&mut self, framing: Framing, frame: Bytes) {
        self.enqueue(peerless_proto::encode_frame(framing, &frame));
    }

    /// The remote wants no more of what we send. What it sends can still be read.
    pub(crate) fn stop(&mut self, code: u64) {
        self.queue.clear();
        self.queued = 0;
        self.finishing = true;
        self.finished = true;
        self.stopped = Some(code);
    }

    /// Whether our direction is to end now. Unless the remote is known to hear every end, that waits for it to agree to our
    /// proposal, and then until [`Stream::end_from`]: js-libp2p loses streams whose end comes with the proposal, or before
    /// its handler runs.
    pub(crate) fn is_ready_to_finish(&self, now: Instant, hears_every_end: bool) -> bool {
        let is_heard = hears_every_end || self.is_agreed() && self.end_from.is_none_or(|at| at <= now);
        self.is_at_end() && is_heard
    }

    /// When our direction is to end, if only that instant is waited for.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.end_from.filter(|_| self.is_at_end() && self.is_agreed())
    }

    fn is_at_end(&self) -> bool {
        self.finishing && !self.finished && self.queue.is_empty() && !matches!(self.mode, Mode::Choosing(_))
    }

    fn is_agreed(&self) -> bool {
        !matches!(self.mode, Mode::Proposing(..) | Mode::ProposingUnheard(_) | Mode::Choosing(_))
    }

    /// Whether both directions have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.finished && self.remote_finished
    }
}

/// All streams of all connections.
#[derive(Debug)]
pub(crate) struct Streams {
    table: Arena<StreamId, Stream>,
    /// Inbound streams by peer and protocol.
    inbound: Map<(PeerId, ProtocolName), usize>,
    timers: Timers<StreamId>,
    /// See [`Config::write_queue`].
    write_queue: usize,
}

impl Streams {
    pub(crate) fn new(keys: HashKeys, write_queue: usize) -> Self {
        let (table, inbound) = (Arena::default(), Map::with_hasher(keys));
        Self { table, inbound, timers: Timers::default(), write_queue }
    }

    /// Adds a stream that is about to negotiate.
    pub(crate) fn insert(&mut self, stream: Stream) -> StreamId {
        let by = stream.deadline;
        let id = self.table.insert(stream);
        if let Some(at) = by {
            self.timers.set(at, id);
        }
        id
    }

    /// Removes a stream and its share in all accounts.
    pub(crate) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.table.remove(id)?;
        if let Some(at) = stream.deadline {
            self.timers.clear(at, id);
        }
        if let (true, Some(protocol)) = (stream.inbound, &stream.protocol) {
            let key = (stream.peer, protocol.clone());
            if let Some(count) = self.inbound.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.inbound.remove(&key);
                }
            }
        }
        Some(stream)
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.table.get_mut(id)
    }

    /// Arms the stream's timer anew, or disarms it.
    pub(crate) fn set_deadline(&mut self, id: StreamId, at: Option<Instant>) {
        let Some(stream) = self.table.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut stream.deadline, at) {
            self.timers.clear(old, id);
        }
        if let Some(at) = at {
            self.timers.set(at, id);
        }
    }

    /// Counts an inbound stream towards its protocol's limit. Returns false, and counts nothing, if that is reached.
    pub(crate) fn admit(&mut self, id: StreamId, protocol: &ProtocolName, limit: usize) -> bool {
        let Some(stream) = self.table.get_mut(id) else { return false };
        let count = self.inbound.entry((stream.peer, protocol.clone())).or_default();
        if *count >= limit {
            if *count == 0 {
                self.inbound.remove(&(stream.peer, protocol.clone()));
            }
            return false;
        }
        *count += 1;
        stream.inbound = true;
        stream.protocol = Some(protocol.clone());
        true
    }

    /// Takes a stream whose time is up.
    pub(crate) fn pop_late(&mut self, now: Instant) -> Option<StreamId> {
        let (_, id) = self.timers.pop_due(now)?;
        if let Some(stream) = self.table.get_mut(id) {
            stream.deadline = None;
        }
        Some(id)
    }

    /// When the next stream's time is up.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Armed timers.
    pub(crate) fn timers(&self) -> usize {
        self.timers.len()
    }
}

impl Queues for Streams {
    fn queued(&self, stream: StreamId) -> usize {
        self.get(stream).map_or(0, |s| s.queued)
    }

    fn limit(&self, stream: StreamId) -> usize {
        self.get(stream).map_or(0, |_| self.write_queue)
    }
}

/// How full the write queues are.
pub trait Queues: std::fmt::Debug {
    /// Bytes sent on `stream` that have not been taken by its connection; 0 if the id is stale.
    fn queued(&self, stream: StreamId) -> usize;

    /// Most bytes that may be queued on `stream`; one frame alone may be longer. 0 if the id is stale.
    fn limit(&self, stream: StreamId) -> usize;

    /// How many bytes there is room for on `stream`, the lengths before frames included.
    fn room(&self, stream: StreamId) -> usize {
        self.limit(stream).saturating_sub(self.queued(stream))
    }
}
