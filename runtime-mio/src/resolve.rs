//! Host names: the system's resolver blocks, so it has a thread of its own.

use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use mio::Waker;
use peerless_core::{event::Family, ids::QueryId};

/// Names that may wait for the resolver; one more is answered with an error.
const QUEUE: usize = 64;
/// Addresses taken from one answer.
const MAX_ADDRESSES: usize = 16;

/// What the resolver found, or why not, in words.
pub(crate) type Answer = (QueryId, Result<Vec<IpAddr>, String>);
type Question = (QueryId, String, Family);

/// The thread's two queues. The thread starts with the first question and ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    questions: Option<SyncSender<Question>>,
    answers: Receiver<Answer>,
    answer: Sender<Answer>,
    waker: Arc<Waker>,
}

impl Resolver {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (answer, answers) = channel();
        Self { questions: None, answers, answer, waker }
    }

    /// Asks for the addresses of `name`; there is always one answer.
    pub(crate) fn ask(&mut self, query: QueryId, name: String, family: Family) {
        let asked = self.thread().and_then(|questions| {
            questions.try_send((query, name, family)).map_err(|_| "the resolver is busy".to_owned())
        });
        if let Err(error) = asked {
            // The other end is ours, so it is there.
            let _ = self.answer.send((query, Err(error)));
            let _ = self.waker.wake();
        }
    }

    /// The next answer, if one has come.
    pub(crate) fn next(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    fn thread(&mut self) -> Result<SyncSender<Question>, String> {
        if let Some(questions) = &self.questions {
            return Ok(questions.clone());
        }
        let (questions, queue) = sync_channel::<Question>(QUEUE);
        let (answer, waker) = (self.answer.clone(), Arc::clone(&self.waker));
        let work = move || {
            for (query, name, family) in queue {
                if answer.send((query, look_up(&name, family))).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("resolver".into())
            .spawn(work)
            .map_err(|error| format!("no thread for the resolver: {error}"))?;
        Ok(self.questions.insert(questions).clone())
    }
}

fn look_up(name: &str, family: Family) -> Result<Vec<IpAddr>, String> {
    let mut found = Vec::new();
    for address in (name, 0).to_socket_addrs().map_err(|error| error.to_string())? {
        let ip = address.ip();
        if family.takes(&ip) && !found.contains(&ip) && found.len() < MAX_ADDRESSES {
            found.push(ip);
        }
    }
    if found.is_empty() { Err("no address of the wanted family".into()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn an_answer_comes_with_a_wake_up_and_keeps_to_the_family() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let mut resolver = Resolver::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        for (n, name, family) in
            [(1, "127.0.0.1", Family::V4), (2, "127.0.0.1", Family::V6), (3, "::1", Family::Any)]
        {
            resolver.ask(QueryId(n), name.into(), family);
        }
        let mut answers = Vec::new();
        while answers.len() < 3 {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "no wake-up");
            answers.extend(std::iter::from_fn(|| resolver.next()));
        }
        assert_eq!(answers[0], (QueryId(1), Ok(vec!["127.0.0.1".parse().unwrap()])));
        assert!(answers[1].1.is_err());
        assert_eq!(answers[2], (QueryId(3), Ok(vec!["::1".parse().unwrap()])));
    }

    #[test]
    fn a_full_queue_is_an_answer_too() {
        let poll = Poll::new().unwrap();
        let mut resolver = Resolver::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        let (questions, _queue) = sync_channel(1);
        resolver.questions = Some(questions);
        resolver.ask(QueryId(1), "a".into(), Family::Any);
        resolver.ask(QueryId(2), "b".into(), Family::Any);
        assert_eq!(resolver.next(), Some((QueryId(2), Err("the resolver is busy".into()))));
        assert_eq!(resolver.next(), None);
    }
}
