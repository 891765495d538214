//! Relayed bytes: two streams joined so that what arrives on each leaves on the other.
//!
//! Bytes are copied once beside packet assembly (see [`join`]). A side that cannot be written to is not read from the other
//! end, so backpressure holds from end to end. Each turn moves at most [`QUANTUM`] bytes per direction, then the splice
//! goes to the back of the queue, so that circuits share fairly.

use bytes::Bytes;
use heapless::Deque;
use libp2p_identity::PeerId;
use smallvec::SmallVec;

use crate::{
    event::{SpliceEnd, StreamFault},
    ids::{Arena, Id, StreamId, Token},
    streams::{Read, WriteFault},
    time::{Instant, Timers},
};

/// Most bytes per direction and turn.
pub(crate) const QUANTUM: usize = 64 << 10;
/// Most chunks held for a side that cannot be written to: those of one turn are joined, so this is for what had been read
/// before the streams were.
const HOLD: usize = 16;

/// One splice; generational like all ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpliceId(u32, u32);

impl Id for SpliceId {
    fn from_parts(index: u32, generation: u32) -> Self {
        Self(index, generation)
    }

    fn index(self) -> u32 {
        self.0
    }

    fn generation(self) -> u32 {
        self.1
    }
}

/// What a splice needs of the transport: its two streams as byte pipes.
pub(crate) trait Pipes {
    /// Takes up to `max` bytes from a stream.
    fn read(&mut self, stream: StreamId, max: usize) -> Result<Read, StreamFault>;
    /// Takes a prefix off `data`; 0 means blocked.
    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteFault>;
    /// Why the remote wants no more, if it does not.
    fn stopped(&self, stream: StreamId) -> Option<u64>;
    /// Ends our direction.
    fn finish(&mut self, stream: StreamId);
    /// Ends our direction at once.
    fn reset(&mut self, stream: StreamId);
    /// Ends the remote's direction at once.
    fn stop(&mut self, stream: StreamId);
}

/// What one turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing more to do until a side becomes readable or writable.
    Idle,
    /// The quantum is used up; there may be more.
    More,
    /// A direction reached its limit; nothing is read any more.
    Limit,
    /// It is over.
    Over(SpliceEnd),
}

/// Two joined streams.
#[derive(Debug)]
pub(crate) struct Splice {
    pub(crate) token: Token,
    /// The behaviour that asked for it.
    pub(crate) owner: usize,
    pub(crate) a: StreamId,
    pub(crate) b: StreamId,
    limit: u64,
    a_to_b: Flow,
    b_to_a: Flow,
    /// Set when the limit is reached: the splice ends then, and until then what was accepted gets through.
    pub(crate) cut_at: Option<Instant>,
    /// It is in the work queue.
    pub(crate) scheduled: bool,
    /// Between whom, for the trace.
    pub(crate) names: Option<(PeerId, PeerId)>,
}

#[derive(Debug, Default)]
struct Flow {
    hold: Deque<Bytes, HOLD>,
    read: u64,
    written: u64,
    source_finished: bool,
    finished: bool,
    /// Why it finished before its source did.
    broken: Option<Side>,
}

/// At which end of a flow something happened.
#[derive(Debug)]
enum Side {
    Source(StreamFault),
    Sink(StreamFault),
}

impl Side {
    fn of_source(self, source_is_a: bool) -> SpliceEnd {
        match (self, source_is_a) {
            (Self::Source(fault), true) | (Self::Sink(fault), false) => SpliceEnd::A(fault),
            (Self::Source(fault), false) | (Self::Sink(fault), true) => SpliceEnd::B(fault),
        }
    }
}

impl Splice {
    /// Joins `a` and `b`. `limit` is the most bytes per direction, 0 for no limit.
    pub(crate) fn new(token: Token, owner: usize, a: StreamId, b: StreamId, limit: u64) -> Self {
        let (a_to_b, b_to_a) = (Flow::default(), Flow::default());
        Self { token, owner, a, b, limit, a_to_b, b_to_a, cut_at: None, scheduled: false, names: None }
    }

    /// Bytes delivered from `a` to `b` and from `b` to `a`.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.a_to_b.written, self.b_to_a.written)
    }

    /// Hands over bytes that had been read from `a` or `b` before they were joined.
    pub(crate) fn preload(&mut self, from_a: Vec<Bytes>, from_b: Vec<Bytes>) -> Result<(), SpliceEnd> {
        self.a_to_b.preload(from_a, self.limit)?;
        self.b_to_a.preload(from_b, self.limit)
    }

    /// `a` had finished before it was joined.
    pub(crate) fn a_is_finished(&mut self) {
        self.a_to_b.source_finished = true;
    }

    /// `b` had finished before it was joined.
    pub(crate) fn b_is_finished(&mut self) {
        self.b_to_a.source_finished = true;
    }

    /// Moves bytes both ways, at most [`QUANTUM`] each. The directions end each on its own, with FIN, reset or stop.
    pub(crate) fn turn(&mut self, pipes: &mut impl Pipes) -> Turn {
        let reading = self.cut_at.is_none();
        let forth = match self.a_to_b.turn(pipes, self.a, self.b, self.limit, reading) {
            Ok(progress) => progress,
            Err(side) => return Turn::Over(side.of_source(true)),
        };
        let back = match self.b_to_a.turn(pipes, self.b, self.a, self.limit, reading) {
            Ok(progress) => progress,
            Err(side) => return Turn::Over(side.of_source(false)),
        };
        match (forth, back) {
            (Progress::Limit, _) | (_, Progress::Limit) => Turn::Limit,
            (Progress::More, _) | (_, Progress::More) => Turn::More,
            _ if self.a_to_b.finished && self.b_to_a.finished => Turn::Over(self.end()),
            _ => Turn::Idle,
        }
    }

    fn end(&mut self) -> SpliceEnd {
        let forth = self.a_to_b.broken.take().map(|side| side.of_source(true));
        let back = self.b_to_a.broken.take().map(|side| side.of_source(false));
        forth.or(back).unwrap_or(SpliceEnd::Finished)
    }
}

/// What was read in one turn.
type Batch = SmallVec<[Bytes; 64]>;

/// Makes one chunk of many. A chunk is what one packet brought, and the sending side searches its chunks from the oldest
/// unacknowledged one for each packet it assembles: with a window full of them that costs more than this copy, which also
/// lets go of the packets' buffers at once.
fn join(mut batch: Batch, size: usize) -> Option<Bytes> {
    if batch.len() < 2 {
        return batch.pop();
    }
    let mut joined = Vec::with_capacity(size);
    batch.iter().for_each(|chunk| joined.extend_from_slice(chunk));
    Some(joined.into())
}

/// Why no more was read.
enum Filled {
    Quantum,
    Blocked,
    Limit,
}

enum Progress {
    Idle,
    More,
    Limit,
}

impl Flow {
    fn preload(&mut self, chunks: Vec<Bytes>, limit: u64) -> Result<(), SpliceEnd> {
        for chunk in chunks {
            self.read += chunk.len() as u64;
            if limit > 0 && self.read > limit {
                return Err(SpliceEnd::Limit);
            }
            // Leftovers of one frame decoder are a frame's worth at most, in few chunks; more would be our own fault.
            self.hold.push_back(chunk).map_err(|_| SpliceEnd::Limit)?;
        }
        Ok(())
    }

    /// Moves up to a quantum. An error is the loss of a whole stream; what ends this direction alone is kept in
    /// `broken`.
    fn turn(
        &mut self,
        pipes: &mut impl Pipes,
        source: StreamId,
        sink: StreamId,
        limit: u64,
        reading: bool,
    ) -> Result<Progress, Side> {
        let mut outcome = None;
        while !self.finished {
            if let Some(code) = pipes.stopped(sink) {
                self.sink_stopped(pipes, source, code);
                break;
            }
            if !self.write_held(pipes, source, sink)? {
                break;
            }
            if self.source_finished {
                pipes.finish(sink);
                self.finished = true;
                break;
            }
            match outcome {
                Some(Filled::Limit) => return Ok(Progress::Limit),
                Some(Filled::Quantum) => return Ok(Progress::More),
                Some(Filled::Blocked) => break,
                None if !reading => break,
                None => outcome = Some(self.fill(pipes, source, sink, limit)?),
            }
        }
        Ok(Progress::Idle)
    }

    /// Reads up to a quantum into the hold.
    fn fill(
        &mut self,
        pipes: &mut impl Pipes,
        source: StreamId,
        sink: StreamId,
        limit: u64,
    ) -> Result<Filled, Side> {
        let mut batch = Batch::new();
        let mut size = 0;
        let filled = loop {
            if size >= QUANTUM {
                break Filled::Quantum;
            }
            let left = if limit == 0 { u64::MAX } else { limit - self.read };
            // At the limit one more byte is asked for: only a source that goes on sending has exceeded it.
            let max = (QUANTUM - size).min(usize::try_from(left).unwrap_or(usize::MAX)).max(1);
            match pipes.read(source, max) {
                Ok(Read::Blocked) => break Filled::Blocked,
                Ok(Read::Finished) => {
                    self.source_finished = true;
                    break Filled::Blocked;
                }
                Ok(Read::Data(_)) if left == 0 => break Filled::Limit,
                Ok(Read::Data(chunk)) => {
                    size += chunk.len();
                    self.read += chunk.len() as u64;
                    batch.push(chunk);
                }
                Err(StreamFault::Remote(code)) => {
                    pipes.reset(sink);
                    self.finished = true;
                    self.broken = Some(Side::Source(StreamFault::Remote(code)));
                    return Ok(Filled::Blocked);
                }
                Err(fault) => return Err(Side::Source(fault)),
            }
        };
        if let Some(chunk) = join(batch, size) {
            let fits = self.hold.push_back(chunk);
            debug_assert!(fits.is_ok(), "the hold was just emptied");
        }
        Ok(filled)
    }

    fn sink_stopped(&mut self, pipes: &mut impl Pipes, source: StreamId, code: u64) {
        if !self.source_finished {
            pipes.stop(source);
        }
        self.hold.clear();
        self.finished = true;
        self.broken = Some(Side::Sink(StreamFault::Remote(code)));
    }

    /// Writes what is held. Returns whether the flow may go on reading.
    fn write_held(&mut self, pipes: &mut impl Pipes, source: StreamId, sink: StreamId) -> Result<bool, Side> {
        while let Some(front) = self.hold.front_mut() {
            match pipes.write(sink, front) {
                Ok(0) => return Ok(false),
                Ok(taken) => self.written += taken as u64,
                Err(WriteFault::Stopped(code)) => {
                    self.sink_stopped(pipes, source, code);
                    return Ok(false);
                }
                Err(WriteFault::Lost(fault)) => return Err(Side::Sink(fault)),
            }
            if front.is_empty() {
                self.hold.pop_front();
            }
        }
        Ok(true)
    }
}

/// All splices and their cuts.
#[derive(Debug, Default)]
pub(crate) struct Splices {
    table: Arena<SpliceId, Splice>,
    cuts: Timers<SpliceId>,
}

impl Splices {
    pub(crate) fn insert(&mut self, splice: Splice) -> SpliceId {
        self.table.insert(splice)
    }

    pub(crate) fn get_mut(&mut self, id: SpliceId) -> Option<&mut Splice> {
        self.table.get_mut(id)
    }

    pub(crate) fn remove(&mut self, id: SpliceId) -> Option<Splice> {
        let splice = self.table.remove(id)?;
        if let Some(at) = splice.cut_at {
            self.cuts.clear(at, id);
        }
        Some(splice)
    }

    /// Ends a splice at `at`, once what it accepted has had the time to get through.
    pub(crate) fn cut(&mut self, id: SpliceId, at: Instant) {
        if let Some(splice) = self.table.get_mut(id).filter(|s| s.cut_at.is_none()) {
            splice.cut_at = Some(at);
            self.cuts.set(at, id);
        }
    }

    /// Takes a splice whose time has come.
    pub(crate) fn pop_cut(&mut self, now: Instant) -> Option<SpliceId> {
        let (_, id) = self.cuts.pop_due(now)?;
        if let Some(splice) = self.table.get_mut(id) {
            splice.cut_at = None;
        }
        Some(id)
    }

    /// When the next splice is cut.
    pub(crate) fn next_cut(&self) -> Option<Instant> {
        self.cuts.next()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests;
