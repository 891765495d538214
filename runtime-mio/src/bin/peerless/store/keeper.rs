//! Between the node and the thread that does what may take long: says no while that stalls or the store is down, and has it
//! opened again.

use std::{
    collections::VecDeque,
    mem,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use peerless_core::storage::{StorageAnswer, StorageAsk, StorageId, StorageRequest, StoreError};

use super::{engine::Engine, watch::Watch};
use crate::report::Line;

/// Requests that may wait for the one under way. The node asks for one thing at a time for each of those who store.
const QUEUE: usize = 16;
/// As long as there is nothing to wait for.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// When the keeper loses patience.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// A request that takes so long is answered with a failure, and those that follow at once.
    pub(super) stall: Duration,
    /// How long a store that failed is left alone at first, then doubled,
    pub(super) first: Duration,
    /// but no longer than this.
    pub(super) most: Duration,
    /// How long the end waits for what was asked for.
    pub(super) end: Duration,
}

impl Times {
    pub(super) const USUAL: Self = Self {
        stall: Duration::from_secs(10),
        first: Duration::from_secs(1),
        most: Duration::from_secs(60),
        end: Duration::from_secs(5),
    };
}

/// What the keeper hears.
#[derive(Debug)]
pub(super) enum Note {
    /// From the node.
    Ask(StorageRequest),
    /// From the worker: what became of its job.
    Done(Outcome),
    /// From the worker: the store is closed.
    Closed,
    /// The process ends.
    End,
}

/// What the worker is to do.
#[derive(Debug)]
pub(super) enum Job {
    Answer(&'static str, StorageAsk),
    /// Open the store again, and see whether so many bytes can be written.
    Open(usize),
}

#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Result<StorageAnswer, String>),
    Opened(Result<(), String>),
}

/// Does one job after the other, each as long as the disk takes.
pub(super) fn work(mut engine: Engine, jobs: &Receiver<Job>, notes: &Sender<Note>) {
    while let Ok(job) = jobs.recv() {
        let outcome = match job {
            Job::Answer(table, ask) => Outcome::Answered(engine.answer(table, &ask)),
            Job::Open(size) => {
                let opened = engine.reopen().map_err(|error| error.to_string());
                Outcome::Opened(opened.and_then(|()| engine.try_out(size)))
            }
        };
        // If the keeper is gone, so will be the jobs.
        let _ = notes.send(Note::Done(outcome));
    }
    engine.close();
    let _ = notes.send(Note::Closed);
}

/// What the worker does, and since when.
#[derive(Debug)]
enum Phase {
    /// Nothing.
    Idle,
    /// It is at a request of the node's; until it has done it, or has taken too long.
    Busy { id: StorageId, until: Instant },
    /// It has been at a request for so long that the node was told that it failed; until it has done it.
    Stalled,
    /// Nothing: the store failed; until it is opened again.
    Closed { until: Instant },
    /// It opens the store again.
    Opening,
}

/// See the module.
pub(super) struct Keeper<Tell, Say> {
    pub(super) jobs: Sender<Job>,
    pub(super) watch: Watch,
    pub(super) times: Times,
    /// Takes answers to the node.
    pub(super) tell: Tell,
    /// Prints.
    pub(super) say: Say,
    state: State,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    queue: VecDeque<StorageRequest>,
    /// Failures since a request was done.
    failures: u32,
    /// Bytes that the last request was to write.
    size: usize,
    /// The process ends, at this time at the latest.
    end: Option<Instant>,
}

#[expect(clippy::disallowed_methods, reason = "runtimes read the clock")]
fn now() -> Instant {
    Instant::now()
}

impl<Tell, Say> Keeper<Tell, Say>
where
    Tell: Fn(StorageId, Result<StorageAnswer, StoreError>),
    Say: Fn(&Line),
{
    pub(super) fn new(jobs: Sender<Job>, watch: Watch, times: Times, tell: Tell, say: Say) -> Self {
        let state = State { phase: Phase::Idle, queue: VecDeque::new(), failures: 0, size: 0, end: None };
        Self { jobs, watch, times, tell, say, state }
    }

    /// Runs until the process ends.
    pub(super) fn run(mut self, notes: &Receiver<Note>) {
        while !self.is_over() {
            let wait = self.deadline().map_or(A_DAY, |at| at.saturating_duration_since(now()));
            match notes.recv_timeout(wait) {
                Ok(note) => self.on_note(note),
                Err(RecvTimeoutError::Timeout) => self.on_time(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.begin_next();
        }
        // The worker closes the store when there can be no more jobs.
        let Self { jobs, say, state, .. } = self;
        drop(jobs);
        let end = state.end.unwrap_or_else(now);
        loop {
            match notes.recv_timeout(end.saturating_duration_since(now())) {
                Ok(Note::Closed) => return,
                Ok(_) => {}
                Err(_) => {
                    let message = "the store did not end in time; what was acknowledged is in it".into();
                    return say(&Line::Error { message });
                }
            }
        }
    }

    /// Whether the process ends, and nothing is left to do or to wait for.
    fn is_over(&self) -> bool {
        match self.state.phase {
            Phase::Idle | Phase::Closed { .. } => self.state.end.is_some(),
            Phase::Busy { .. } | Phase::Stalled | Phase::Opening => {
                self.state.end.is_some_and(|end| end <= now())
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let of_phase = match self.state.phase {
            Phase::Busy { until, .. } | Phase::Closed { until } => Some(until),
            Phase::Idle | Phase::Stalled | Phase::Opening => None,
        };
        [of_phase, self.state.end].into_iter().flatten().min()
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Ask(request) => match self.state.phase {
                Phase::Idle | Phase::Busy { .. } if self.state.queue.len() < QUEUE => {
                    self.state.queue.push_back(request);
                }
                _ => self.refuse(request.id),
            },
            Note::Done(Outcome::Answered(result)) => self.on_answered(result),
            Note::Done(Outcome::Opened(Ok(()))) => {
                self.watch.reopened();
                self.works_again();
            }
            Note::Done(Outcome::Opened(Err(reason))) => self.failed(reason),
            Note::Closed => {}
            Note::End => self.state.end = Some(now() + self.times.end),
        }
    }

    fn on_time(&mut self) {
        let now = now();
        match self.state.phase {
            Phase::Busy { id, until } if until <= now => {
                let seconds = self.times.stall.as_secs_f64();
                self.down(format!("a request has taken more than {seconds} s"));
                self.watch.stalled();
                self.state.phase = Phase::Stalled;
                self.refuse(id);
                self.refuse_all();
            }
            Phase::Closed { until } if until <= now => {
                self.state.phase = Phase::Opening;
                self.start(Job::Open(self.state.size));
            }
            _ => {}
        }
    }

    fn on_answered(&mut self, result: Result<StorageAnswer, String>) {
        let phase = mem::replace(&mut self.state.phase, Phase::Idle);
        match (phase, result) {
            (Phase::Busy { id, .. }, Ok(answer)) => {
                self.state.failures = 0;
                (self.tell)(id, Ok(answer));
            }
            (Phase::Busy { id, .. }, Err(reason)) => {
                self.failed(reason);
                self.refuse(id);
            }
            (_, Ok(_)) => self.works_again(),
            (_, Err(reason)) => self.failed(reason),
        }
    }

    fn begin_next(&mut self) {
        if !matches!(self.state.phase, Phase::Idle) {
            return;
        }
        let Some(StorageRequest { id, table, ask }) = self.state.queue.pop_front() else { return };
        self.state.size = match &ask {
            StorageAsk::Store(writes) => writes.iter().map(|write| write.size()).sum(),
            _ => 0,
        };
        self.state.phase = Phase::Busy { id, until: now() + self.times.stall };
        self.start(Job::Answer(table, ask));
    }

    fn start(&mut self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!("the store's thread is gone");
        }
    }

    /// The store is closed after a failure, and is opened again later and later.
    fn failed(&mut self, reason: String) {
        let times = &self.times;
        let wait = times.first.saturating_mul(2_u32.saturating_pow(self.state.failures)).min(times.most);
        self.state.failures = self.state.failures.saturating_add(1);
        self.state.phase = Phase::Closed { until: now() + wait };
        self.watch.failed();
        self.down(reason);
        self.refuse_all();
    }

    fn down(&self, reason: String) {
        if self.watch.down(&reason) {
            (self.say)(&Line::StoreDown { reason });
        }
    }

    fn works_again(&mut self) {
        self.state.phase = Phase::Idle;
        if let Some(time) = self.watch.up() {
            (self.say)(&Line::StoreUp { seconds: time.as_secs() });
        }
    }

    fn refuse(&self, id: StorageId) {
        self.watch.refused();
        let why = self.watch.fault().unwrap_or_else(|| "too many requests wait for the store".into());
        (self.tell)(id, Err(StoreError::Failed(why)));
    }

    fn refuse_all(&mut self) {
        for request in mem::take(&mut self.state.queue) {
            self.refuse(request.id);
        }
    }
}
