//! The program as a state machine beside the node: events in, commands out. Any loop can drive it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, ToSocketAddrs},
    process::ExitCode,
};

use bytes::Bytes;
use peerless_core::{
    ids::{ConnectionId, DialId, StreamId},
    node::{AppStreamEvent, Event, Node, Read, StreamError},
    time::Instant,
};

use super::{CHUNK, ECHO, Job, Options, Pattern, finish, report, report_echo, report_left};

/// Streams of ours that may wait for the remote's agreement at the same time.
const MAX_PROPOSED: u64 = 64;

/// What the node's events lead to.
#[derive(Debug)]
pub struct App {
    job: Job,
    dial: Option<DialId>,
    connection: Option<ConnectionId>,
    serving: BTreeMap<StreamId, Bytes>,
    asking: BTreeMap<StreamId, Exchange>,
    pattern: Pattern,
    opened: u64,
    proposed: u64,
    pings: u64,
    echoed: u64,
    finished: u64,
    outcome: Option<Result<(), String>>,
}

/// A stream whose echo we check.
#[derive(Debug, Default)]
struct Exchange {
    sent: u64,
    finished: bool,
    received: u64,
}

impl App {
    pub fn new(options: &Options) -> Self {
        Self {
            job: options.job.clone(),
            dial: None,
            connection: None,
            serving: BTreeMap::new(),
            asking: BTreeMap::new(),
            pattern: Pattern::new(),
            opened: 0,
            proposed: 0,
            pings: 0,
            echoed: 0,
            finished: 0,
            outcome: None,
        }
    }

    /// To be called once, when the node has its sockets.
    pub fn start(&mut self, node: &mut Node, now: Instant) {
        match &self.job {
            Job::Listen { relays } => {
                for relay in relays.clone() {
                    if let Err(error) = node.reserve(now, relay.clone()) {
                        self.end(Err(format!("no reservation at {relay}: {error}")));
                    }
                }
            }
            Job::Relay => {}
            Job::Ping { to, .. } | Job::Echo { to, .. } => {
                self.dial = Some(node.dial(now, None, to));
            }
        }
    }

    /// Whether the work is done, so that the node may be shut down.
    pub fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// How it went. A listener that is stopped has done its work; the others have not.
    pub fn exit(self, node: &Node) -> ExitCode {
        report_left(&node.stats(), 0);
        let interrupted = match self.job {
            Job::Listen { .. } | Job::Relay => Ok(()),
            _ => Err("interrupted".to_owned()),
        };
        finish(self.outcome.unwrap_or(interrupted))
    }

    pub fn on_event(&mut self, node: &mut Node, now: Instant, event: &Event) {
        report(node.local_peer(), event);
        match event {
            // It blocks, which a node that serves many had better not do.
            Event::Resolve { query, name, .. } => node.handle_resolved(now, *query, look_up(name)),
            Event::Dialed { dial, connection, .. } if Some(*dial) == self.dial => {
                self.connection = Some(*connection);
                match self.job {
                    Job::Ping { .. } => self.ping(node, now, *connection),
                    _ => self.open(node, now),
                }
            }
            Event::DialFailed { dial, error, .. } if Some(*dial) == self.dial => {
                self.end(Err(error.to_string()));
            }
            Event::Ping(ping) if Some(ping.connection) == self.connection => {
                self.pings += 1;
                match (&ping.result, &self.job) {
                    (Err(error), _) => self.end(Err(error.to_string())),
                    (Ok(_), Job::Ping { count, .. }) if self.pings < *count => {
                        self.ping(node, now, ping.connection);
                    }
                    (Ok(_), _) => self.end(Ok(())),
                }
            }
            Event::Disconnected { connection, reason, .. } if Some(*connection) == self.connection => {
                self.end(Err(format!("the connection was lost: {reason}")));
            }
            Event::Stream { stream, event } => self.on_stream(node, now, *stream, event),
            _ => {}
        }
    }

    fn ping(&mut self, node: &mut Node, now: Instant, connection: ConnectionId) {
        if let Err(error) = node.ping(now, connection) {
            self.end(Err(error.to_string()));
        }
    }

    fn end(&mut self, outcome: Result<(), String>) {
        self.outcome.get_or_insert(outcome);
    }

    /// Opens as many streams as are wanted and the remote has agreed to others.
    fn open(&mut self, node: &mut Node, now: Instant) {
        let (&Job::Echo { streams, .. }, Some(connection)) = (&self.job, self.connection) else { return };
        while self.opened < streams && self.proposed < MAX_PROPOSED && self.outcome.is_none() {
            match node.open(now, connection, &ECHO) {
                Ok(stream) => {
                    self.asking.insert(stream, Exchange::default());
                    self.opened += 1;
                    self.proposed += 1;
                    if let Err(error) = self.exchange(node, now, stream) {
                        return self.end(Err(format!("the stream was lost: {error}")));
                    }
                }
                Err(error) => return self.end(Err(format!("no stream: {error}"))),
            }
        }
    }

    fn on_stream(&mut self, node: &mut Node, now: Instant, stream: StreamId, event: &AppStreamEvent) {
        match event {
            AppStreamEvent::Accepted { .. } => _ = self.serving.insert(stream, Bytes::new()),
            AppStreamEvent::Agreed => {
                self.proposed -= 1;
                self.open(node, now);
            }
            AppStreamEvent::Reset(fault) => {
                self.serving.remove(&stream);
                if self.asking.remove(&stream).is_some() {
                    self.end(Err(format!("the stream was lost: {fault}")));
                }
            }
            _ => {}
        }
        if let Some(held) = self.serving.get_mut(&stream) {
            let served = serve(node, now, stream, held);
            if served.is_err() {
                node.reset(now, stream);
            }
            if !matches!(served, Ok(false)) {
                self.serving.remove(&stream);
            }
        } else if let Err(error) = self.exchange(node, now, stream) {
            self.end(Err(format!("the stream was lost: {error}")));
        }
    }

    /// Sends and compares as much as is possible now.
    fn exchange(&mut self, node: &mut Node, now: Instant, id: StreamId) -> Result<(), StreamError> {
        let (Job::Echo { bytes, .. }, Some(stream)) = (&self.job, self.asking.get_mut(&id)) else {
            return Ok(());
        };
        while !stream.finished {
            let mut chunk = self.pattern.at(stream.sent, bytes - stream.sent);
            if chunk.is_empty() {
                node.finish(now, id)?;
                stream.finished = true;
            } else {
                match node.write(now, id, &mut chunk)? {
                    0 => break,
                    written => stream.sent += written as u64,
                }
            }
        }
        loop {
            let ok = match node.read(now, id, CHUNK)? {
                Read::Blocked => return Ok(()),
                Read::Data(data) if data == self.pattern.at(stream.received, data.len() as u64) => {
                    stream.received += data.len() as u64;
                    continue;
                }
                Read::Data(_) => false,
                Read::Finished => stream.received == *bytes,
            };
            self.echoed += stream.received;
            self.asking.remove(&id);
            self.finished += 1;
            if !ok || self.finished == self.opened {
                report_echo(self.echoed, ok);
                self.end(if ok { Ok(()) } else { Err("other bytes came back than were sent".into()) });
            }
            return Ok(());
        }
    }
}

/// Writes back what is read, and holds one chunk at most; true at the end.
fn serve(node: &mut Node, now: Instant, stream: StreamId, held: &mut Bytes) -> Result<bool, StreamError> {
    loop {
        if !held.is_empty() {
            if node.write(now, stream, held)? == 0 {
                return Ok(false);
            }
            continue;
        }
        match node.read(now, stream, CHUNK)? {
            Read::Data(data) => *held = data,
            Read::Blocked => return Ok(false),
            Read::Finished => return node.finish(now, stream).map(|()| true),
        }
    }
}

fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}
