//! Host names and TXT records: the system's resolver blocks, and so do questions to name servers, so they have a thread of
//! their own.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use mio::Waker;
use peerless_core::ids::QueryId;
use peerless_udp::text;

/// Names that may wait for the resolver; one more is answered with an error.
const QUEUE: usize = 64;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// The addresses of a host.
    Host(String),
    /// The TXT records of a name.
    Text(String),
}

/// What the resolver found, or why not, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Addresses of both families: the node picks those it asked for.
    Host(Result<Vec<IpAddr>, String>),
    Text(Result<Vec<String>, String>),
}

/// The thread's two queues. The thread starts with the first question and ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    name_servers: Arc<[SocketAddr]>,
    questions: Option<SyncSender<(QueryId, Question)>>,
    answers: Receiver<(QueryId, Answer)>,
    answer: Sender<(QueryId, Answer)>,
    waker: Arc<Waker>,
}

impl Resolver {
    /// Asks `name_servers` for texts, or those of the system if there are none.
    pub(crate) fn new(waker: Arc<Waker>, name_servers: Vec<SocketAddr>) -> Self {
        let (answer, answers) = channel();
        Self { name_servers: name_servers.into(), questions: None, answers, answer, waker }
    }

    /// Asks a question; there is always one answer.
    pub(crate) fn ask(&mut self, query: QueryId, question: Question) {
        let asked = self.thread().and_then(|questions| {
            questions.try_send((query, question.clone())).map_err(|_| "the resolver is busy".to_owned())
        });
        if let Err(error) = asked {
            // The other end is ours, so it is there.
            let _ = self.answer.send((query, question.failed(error)));
            let _ = self.waker.wake();
        }
    }

    /// The next answer, if one has come.
    pub(crate) fn next(&self) -> Option<(QueryId, Answer)> {
        self.answers.try_recv().ok()
    }

    fn thread(&mut self) -> Result<SyncSender<(QueryId, Question)>, String> {
        if let Some(questions) = &self.questions {
            return Ok(questions.clone());
        }
        let (questions, queue) = sync_channel::<(QueryId, Question)>(QUEUE);
        let (answer, waker) = (self.answer.clone(), Arc::clone(&self.waker));
        let name_servers = Arc::clone(&self.name_servers);
        let work = move || {
            for (query, question) in queue {
                if answer.send((query, question.answer(&name_servers))).is_err() || waker.wake().is_err() {
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

impl Question {
    fn answer(self, name_servers: &[SocketAddr]) -> Answer {
        match self {
            Self::Host(name) => Answer::Host(look_up(&name)),
            Self::Text(name) => Answer::Text(text::look_up(&name, name_servers)),
        }
    }

    fn failed(self, error: String) -> Answer {
        match self {
            Self::Host(_) => Answer::Host(Err(error)),
            Self::Text(_) => Answer::Text(Err(error)),
        }
    }
}

fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    fn host(name: &str) -> Question {
        Question::Host(name.into())
    }

    #[test]
    fn an_answer_comes_with_a_wake_up() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut resolver = Resolver::new(waker, Vec::new());
        for (n, question) in [
            (1, host("127.0.0.1")),
            (2, host("no such name")),
            (3, host("::1")),
            (4, Question::Text("..".into())),
        ] {
            resolver.ask(QueryId(n), question);
        }
        let mut answers = Vec::new();
        while answers.len() < 4 {
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "no wake-up");
            answers.extend(std::iter::from_fn(|| resolver.next()));
        }
        assert_eq!(answers[0], (QueryId(1), Answer::Host(Ok(vec!["127.0.0.1".parse().unwrap()]))));
        assert!(matches!(answers[1].1, Answer::Host(Err(_))));
        assert_eq!(answers[2], (QueryId(3), Answer::Host(Ok(vec!["::1".parse().unwrap()]))));
        assert_eq!(answers[3], (QueryId(4), Answer::Text(Err("`..` is no host name".into()))));
    }

    #[test]
    fn a_full_queue_is_an_answer_too() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut resolver = Resolver::new(waker, Vec::new());
        let (questions, _queue) = sync_channel(1);
        resolver.questions = Some(questions);
        resolver.ask(QueryId(1), host("a"));
        resolver.ask(QueryId(2), Question::Text("b".into()));
        let busy = Answer::Text(Err("the resolver is busy".into()));
        assert_eq!(resolver.next(), Some((QueryId(2), busy)));
        assert_eq!(resolver.next(), None);
    }
}
