//! Relayed bytes: two streams joined so that what arrives on each leaves on the other.
//!
//! Bytes are copied once beside packet assembly (see [`join`]). A side that cannot be written to is not read from the other
//! end, so backpressure holds from end to end. Each turn moves at most [`QUANTUM`] bytes per direction, then the splice
//! goes to the back of the queue, so that circuits share fairly. Who is out of bytes per second is not read from until its
//! bucket has filled again; when all splices together are, they wait in line and get a turn each.

mod table;

use bytes::Bytes;
use heapless::Deque;
use libp2p_identity::PeerId;
use smallvec::SmallVec;

use crate::{
    errors::{SpliceEnd, StreamFault},
    ids::{ConnectionId, StreamId, Token},
    names::SpliceLimit,
    streams::{Taken, WriteFault, pace::Pace, windows::Meter},
    time::Instant,
};

pub(crate) use self::table::Splices;

/// Most bytes per direction and turn.
pub(crate) const QUANTUM: usize = 64 << 10;
/// Most chunks held for a side that cannot be written to: those of one turn are joined, so this is for what had been read
/// before the streams were.
const HOLD: usize = 16;

/// What a splice needs of the transport: its two streams as byte pipes.
pub(crate) trait Pipes {
    /// Takes up to `most` bytes from a stream, in the chunks in which they came. A fault may come after some.
    fn take(&mut self, stream: StreamId, most: usize, into: &mut Batch) -> Result<Taken, StreamFault>;
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
    /// Its own rate lets nothing pass until then; it begins to wait.
    Paced(Instant),
    /// The rate of all splices lets nothing pass; it begins to wait in line.
    Queued,
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
    limit: SpliceLimit,
    a_to_b: Flow,
    b_to_a: Flow,
    /// Set when the limit is reached: the splice ends then, and until then what was accepted gets through.
    pub(crate) cut_at: Option<Instant>,
    /// When bytes moved last.
    moved_at: Instant,
    idle_at: Option<Instant>,
    resume_at: Option<Instant>,
    look_at: Option<Instant>,
    /// Its place in the line.
    ticket: Option<u64>,
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
    pace: Option<Pace>,
    /// Its bucket ran dry; nothing is read until then.
    dry_until: Instant,
    meter: Meter,
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
    /// Joins `a` and `b`.
    pub(crate) fn new(
        token: Token,
        owner: usize,
        (a, b): (StreamId, StreamId),
        limit: SpliceLimit,
        now: Instant,
    ) -> Self {
        let flow = || Flow { pace: Pace::new(limit.rate, now), ..Flow::default() };
        Self {
            token,
            owner,
            a,
            b,
            limit,
            a_to_b: flow(),
            b_to_a: flow(),
            cut_at: None,
            moved_at: now,
            idle_at: None,
            resume_at: None,
            look_at: None,
            ticket: None,
            scheduled: false,
            names: None,
        }
    }

    /// Bytes delivered from `a` to `b` and from `b` to `a`.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.a_to_b.written, self.b_to_a.written)
    }

    /// Says whose windows the directions are to be measured for: the connections of `a` and `b`.
    pub(crate) fn set_connections(&mut self, a: ConnectionId, b: ConnectionId) {
        (self.a_to_b.meter, self.b_to_a.meter) = (Meter::new(a), Meter::new(b));
    }

    /// Of either direction: its meter, what it has read, and whether it reads no more for the moment.
    pub(crate) fn meters(&mut self, now: Instant) -> [(&mut Meter, u64, bool); 2] {
        let waits = self.ticket.is_some();
        [&mut self.a_to_b, &mut self.b_to_a].map(|flow| {
            let is_held = !flow.finished && (waits || !flow.hold.is_empty() || flow.dry_until > now);
            (&mut flow.meter, flow.read, is_held)
        })
    }

    /// Hands over bytes that had been read from `a` or `b` before they were joined.
    pub(crate) fn preload(&mut self, from_a: Vec<Bytes>, from_b: Vec<Bytes>) -> Result<(), SpliceEnd> {
        self.a_to_b.preload(from_a, self.limit.bytes)?;
        self.b_to_a.preload(from_b, self.limit.bytes)
    }

    /// `a` had finished before it was joined.
    pub(crate) fn a_is_finished(&mut self) {
        self.a_to_b.source_finished = true;
    }

    /// `b` had finished before it was joined.
    pub(crate) fn b_is_finished(&mut self) {
        self.b_to_a.source_finished = true;
    }

    /// Moves bytes both ways, at most [`QUANTUM`] each, and both together at most what `shared` still allows, which is
    /// reduced by as much. The directions end each on its own, with FIN, reset or stop.
    pub(crate) fn turn(&mut self, pipes: &mut impl Pipes, now: Instant, shared: &mut Option<u64>) -> Turn {
        let cap = if self.cut_at.is_some() { None } else { Some(self.limit.bytes) };
        let before = self.counts();
        let half = shared.map(|left| left.div_ceil(2));
        let forth = self.a_to_b.paced_turn(pipes, (self.a, self.b), cap, now, (shared, half));
        let forth = match forth {
            Ok(progress) => progress,
            Err(side) => return Turn::Over(side.of_source(true)),
        };
        let rest = *shared;
        let back = match self.b_to_a.paced_turn(pipes, (self.b, self.a), cap, now, (shared, rest)) {
            Ok(progress) => progress,
            Err(side) => return Turn::Over(side.of_source(false)),
        };
        if self.counts() != before {
            self.moved_at = now;
        }
        match forth.max(back) {
            Progress::Limit => Turn::Limit,
            Progress::More => Turn::More,
            Progress::Queued => Turn::Queued,
            Progress::Dry => Turn::Paced(self.next_helping(now)),
            Progress::Idle if self.a_to_b.finished && self.b_to_a.finished => Turn::Over(self.end()),
            Progress::Idle => Turn::Idle,
        }
    }

    /// When the first of the directions that ran dry may go on.
    fn next_helping(&self, now: Instant) -> Instant {
        let times = [self.a_to_b.dry_until, self.b_to_a.dry_until];
        times.into_iter().filter(|at| *at > now).min().unwrap_or(now)
    }

    fn end(&mut self) -> SpliceEnd {
        let forth = self.a_to_b.broken.take().map(|side| side.of_source(true));
        let back = self.b_to_a.broken.take().map(|side| side.of_source(false));
        forth.or(back).unwrap_or(SpliceEnd::Finished)
    }
}

/// What was read in one turn.
pub(crate) type Batch = SmallVec<[Bytes; 64]>;

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
    Budget,
    Blocked,
    Limit,
}

/// What a turn of one direction came to, in the order in which the worse tells what becomes of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Idle,
    /// Its own bucket is empty.
    Dry,
    /// The bucket of all is empty.
    Queued,
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

    /// A turn within the rates: of this direction, and of `most` of the bytes `shared` by all.
    fn paced_turn(
        &mut self,
        pipes: &mut impl Pipes,
        ends: (StreamId, StreamId),
        cap: Option<u64>,
        now: Instant,
        (shared, most): (&mut Option<u64>, Option<u64>),
    ) -> Result<Progress, Side> {
        let own = match &mut self.pace {
            Some(_) if now < self.dry_until => Some(0),
            Some(pace) => Some(pace.available(now)),
            None => None,
        };
        let allowed = own.into_iter().chain(most).fold(QUANTUM as u64, u64::min);
        let before = self.read;
        let progress = self.turn(pipes, ends, cap, allowed as usize)?;
        let moved = self.read - before;
        if let Some(shared) = shared {
            *shared -= moved.min(*shared);
        }
        if let Some(pace) = &mut self.pace {
            pace.spend(moved);
            if progress == Progress::More && own == Some(moved) {
                if self.dry_until <= now {
                    self.dry_until = pace.ready_at();
                }
                return Ok(Progress::Dry);
            }
        }
        let queued = progress == Progress::More && *shared == Some(0);
        Ok(if queued { Progress::Queued } else { progress })
    }

    /// Moves up to `budget` bytes, in all up to `cap` (0 for no cap; `None` not to read any more). An error is the loss
    /// of a whole stream; what ends this direction alone is kept in `broken`.
    fn turn(
        &mut self,
        pipes: &mut impl Pipes,
        (source, sink): (StreamId, StreamId),
        cap: Option<u64>,
        budget: usize,
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
            let Some(cap) = cap else { break };
            match outcome {
                Some(Filled::Limit) => return Ok(Progress::Limit),
                Some(Filled::Budget) => return Ok(Progress::More),
                Some(Filled::Blocked) => break,
                None => outcome = Some(self.fill(pipes, (source, sink), cap, budget)?),
            }
        }
        Ok(Progress::Idle)
    }

    /// Reads up to `budget` bytes into the hold.
    fn fill(
        &mut self,
        pipes: &mut impl Pipes,
        (source, sink): (StreamId, StreamId),
        cap: u64,
        budget: usize,
    ) -> Result<Filled, Side> {
        if budget == 0 {
            return Ok(Filled::Budget);
        }
        let left = if cap == 0 { u64::MAX } else { cap - self.read };
        let most = budget.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut batch = Batch::new();
        let mut taken = pipes.take(source, most, &mut batch);
        let size: usize = batch.iter().map(Bytes::len).sum();
        self.read += size as u64;
        if taken == Ok(Taken::Most) && most < budget {
            // At the limit one more byte is asked for: only a source that goes on sending has exceeded it.
            taken = pipes.take(source, 1, &mut Batch::new());
        }
        let filled = match taken {
            Ok(Taken::Most) if most < budget => Filled::Limit,
            Ok(Taken::Most) => Filled::Budget,
            Ok(Taken::Blocked) => Filled::Blocked,
            Ok(Taken::Finished) => {
                self.source_finished = true;
                Filled::Blocked
            }
            Err(StreamFault::Remote(code)) => {
                pipes.reset(sink);
                self.finished = true;
                self.broken = Some(Side::Source(StreamFault::Remote(code)));
                return Ok(Filled::Blocked);
            }
            Err(fault) => return Err(Side::Source(fault)),
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

#[cfg(test)]
mod tests;
