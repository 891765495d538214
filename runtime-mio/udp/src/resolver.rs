//! Names, looked up on threads of their own: as many at a time as are asked for, within bounds.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use peerless_core::{ids::QueryId, names::Family};

use crate::names::{Answer, Names};

/// Most threads, and so names looked up at a time. Our own questions end after seconds, so those of the system's resolver,
/// which may hang for longer and are asked only of servers that have just answered, cannot hold all of them.
const MAX_THREADS: usize = 128;
/// Names that may wait for a thread; one more is answered with an error.
const MAX_WAITING: usize = 1024;
/// A thread that has had nothing to do for so long ends.
const LINGER: Duration = Duration::from_secs(10);
/// Room for the system's resolver, and for what it loads.
const STACK: usize = 512 << 10;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The addresses of a host.
    Host(String, Family),
    /// The TXT records of a name.
    Text(String),
}

impl Question {
    /// How a failure is told.
    fn failure(&self) -> fn(String) -> Answer {
        match self {
            Self::Host(..) => |error| Answer::Host(Err(error)),
            Self::Text(_) => |error| Answer::Text(Err(error)),
        }
    }
}

/// Looks names up beside each other, so that one that is dead delays no other (RFC 8305 section 3). Threads are started as
/// they are needed, and end when this is dropped.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    names: Names,
    /// Takes each answer, on the thread that found it.
    answer: Box<dyn Fn(QueryId, Answer) + Send + Sync>,
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    waiting: VecDeque<(QueryId, Question)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Resolver {
    /// Asks `name_servers`, or the system and its name servers if there are none, and gives each answer to `answer`, on any
    /// thread.
    pub fn new(
        name_servers: Vec<SocketAddr>,
        answer: impl Fn(QueryId, Answer) + Send + Sync + 'static,
    ) -> Self {
        let names = Names::new(name_servers);
        let (answer, work, wake) = (Box::new(answer), Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { names, answer, work, wake }) }
    }

    /// Asks a question. The answer comes later, and always.
    ///
    /// # Errors
    /// If there is no room for it; this is its answer then.
    pub fn ask(&self, query: QueryId, question: Question) -> Result<(), Answer> {
        let mut work = self.shared.lock();
        let failed = question.failure();
        if work.waiting.len() >= MAX_WAITING {
            return Err(failed(format!("{MAX_WAITING} names wait to be looked up already")));
        }
        work.waiting.push_back((query, question));
        if work.waiting.len() <= work.idle || work.threads >= MAX_THREADS {
            self.shared.wake.notify_one();
            return Ok(());
        }
        match self.start() {
            Ok(()) => work.threads += 1,
            // Another thread takes it later.
            Err(_) if work.threads > 0 => {}
            Err(error) => {
                work.waiting.pop_back();
                return Err(failed(format!("no thread to look names up: {error}")));
            }
        }
        Ok(())
    }

    fn start(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("resolver".into()).stack_size(STACK);
        thread.spawn(move || shared.run()).map(drop)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut work = self.shared.lock();
        work.closed = true;
        work.waiting.clear();
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((query, question)) = self.next() {
            let answer = match &question {
                Question::Host(name, family) => Answer::Host(self.names.addresses(name, *family)),
                Question::Text(name) => Answer::Text(self.names.texts(name)),
            };
            (self.answer)(query, answer);
        }
    }

    /// The next question; `None` when there has been none for a while, and the thread is to end.
    fn next(&self) -> Option<(QueryId, Question)> {
        let mut work = self.lock();
        work.idle += 1;
        let is_needless = |work: &mut Work| work.waiting.is_empty() && !work.closed;
        let (mut work, _) =
            self.wake.wait_timeout_while(work, LINGER, is_needless).unwrap_or_else(PoisonError::into_inner);
        work.idle -= 1;
        let next = work.waiting.pop_front();
        work.threads -= usize::from(next.is_none());
        next
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("work", &self.work).finish_non_exhaustive()
    }
}
