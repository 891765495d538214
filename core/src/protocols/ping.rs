//! `/ipfs/ping/1.0.0` (libp2p specs, ping): is the peer alive, and how far away is it.

use std::{fmt, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::by_connection::ByConnection;
use crate::{
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{InvalidConfig, OpenError, StreamFault, require},
    ids::{ConnectionId, StreamId, Token},
    names::{Framing, ProtocolName, ProtocolSpec},
    time::{Deadline, Instant, Timers, UnixTime},
};

/// `/ipfs/ping/1.0.0`.
pub const PROTOCOL: ProtocolName = ProtocolName::from_static("/ipfs/ping/1.0.0");

/// Bytes in a ping and in its answer.
const SIZE: usize = 32;

/// The shortest interval and timeout; a shorter one in the configuration means this.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// When to ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The pause between two pings of each connection; `None` pings only when asked.
    pub interval: Option<Duration>,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { interval: None, timeout: Duration::from_secs(10) }
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const AT_LEAST: &str = "must be at least 1 ms";
        require(self.timeout >= MIN_WAIT, "ping.timeout", AT_LEAST)?;
        require(self.interval.is_none_or(|interval| interval >= MIN_WAIT), "ping.interval", AT_LEAST)
    }
}

/// Answers pings, and sends them when asked or from time to time. Each ping has a stream of its own.
#[derive(Debug)]
pub struct Ping {
    config: Config,
    protocols: [ProtocolSpec; 1],
    /// With whether they were asked for.
    opening: ByConnection<Token, (PeerId, bool)>,
    streams: ByConnection<StreamId, State>,
    /// Connections whose next ping is due then; only with an interval.
    next: ByConnection<ConnectionId, Instant>,
    timers: Timers<Timer>,
}

/// What a stream of ours waits for. Besides what is listed, a reset or the end of the connection ends each state.
#[derive(Debug)]
enum State {
    /// We echo; until the remote finishes.
    Echoing,
    /// A frame; until it comes or the timeout.
    Pinging { peer: PeerId, asked: bool, payload: [u8; SIZE], sent: Instant, until: Instant },
    /// The remote's end of stream; until it comes or the timeout.
    Closing { until: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Next(ConnectionId),
    Timeout(StreamId),
}

impl Ping {
    /// A behaviour for one node.
    pub fn new(config: Config) -> Self {
        let spec = ProtocolSpec { name: PROTOCOL, framing: Framing::Fixed(SIZE), inbound_per_peer: 2 };
        Self {
            config,
            protocols: [spec],
            opening: ByConnection::default(),
            streams: ByConnection::default(),
            next: ByConnection::default(),
            timers: Timers::default(),
        }
    }

    /// Pings a connection once; the outcome is an [`Event`]. Fails if there is no such connection.
    pub fn ping(&mut self, cx: &mut Context<'_>, connection: ConnectionId) -> Result<(), OpenError> {
        self.start(cx, connection, true)
    }

    /// As [`Ping::ping`], for those who look at a connection from time to time and do not wait for the outcome.
    pub(crate) fn probe(&mut self, cx: &mut Context<'_>, connection: ConnectionId) -> Result<(), OpenError> {
        self.start(cx, connection, false)
    }

    fn start(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        asked: bool,
    ) -> Result<(), OpenError> {
        let peer = cx.view().connections.get(connection).ok_or(OpenError::NoConnection)?.peer;
        let token = cx.open(connection, PROTOCOL);
        self.opening.insert(token, connection, (peer, asked));
        Ok(())
    }

    /// Streams and requests under way, and connections to ping; zero when no peer is left.
    pub fn len(&self) -> usize {
        self.opening.len() + self.streams.len() + self.next.len() + self.timers.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn on_peer(&mut self, cx: &mut Context<'_>, event: PeerEvent) {
        match event {
            PeerEvent::Connected { connection, .. } => self.schedule(cx.now(), connection),
            PeerEvent::Disconnected { connection, .. } => {
                if let Some((_, at)) = self.next.remove(connection) {
                    self.timers.clear(at, Timer::Next(connection));
                }
                for (_, (peer, asked)) in self.opening.remove_connection(connection) {
                    let result = Err(Failure::Open(OpenError::NoConnection));
                    cx.emit(Event { connection, peer, asked, result });
                }
                for (stream, state) in self.streams.remove_connection(connection) {
                    self.disarm(stream, &state);
                    if let State::Pinging { peer, asked, .. } = state {
                        let result = Err(Failure::Stream(StreamFault::ConnectionLost));
                        cx.emit(Event { connection, peer, asked, result });
                    }
                }
            }
            _ => {}
        }
    }

    fn on_opened(&mut self, cx: &mut Context<'_>, token: Token, result: Result<StreamId, OpenError>) {
        let Some((connection, (peer, asked))) = self.opening.remove(token) else { return };
        match result {
            Ok(stream) => {
                let payload = cx.rng().bytes();
                let until = cx.now() + self.config.timeout.max(MIN_WAIT);
                cx.send(stream, Bytes::copy_from_slice(&payload));
                self.timers.set(until, Timer::Timeout(stream));
                let state = State::Pinging { peer, asked, payload, sent: cx.now(), until };
                self.streams.insert(stream, connection, state);
            }
            Err(error) => self.conclude(cx, connection, (peer, asked), Err(Failure::Open(error))),
        }
    }

    fn on_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, event: StreamEvent) {
        if let StreamEvent::Accepted { connection, .. } = event {
            self.streams.insert(stream, connection, State::Echoing);
            return;
        }
        let Some(state) = self.streams.get(stream) else { return };
        match (state, event) {
            (State::Echoing, StreamEvent::Frame(frame)) => {
                cx.count("ping.answered");
                cx.send(stream, frame);
            }
            (State::Echoing, StreamEvent::Finished) => {
                cx.finish(stream);
                self.remove(stream);
            }
            (State::Pinging { payload, sent, .. }, StreamEvent::Frame(frame)) => {
                let rtt = cx.now().saturating_duration_since(*sent);
                let result = if frame[..] == payload[..] { Ok(rtt) } else { Err(Failure::Mismatch) };
                self.on_answer(cx, stream, result);
            }
            (State::Pinging { .. }, StreamEvent::Finished) => {
                self.on_answer(cx, stream, Err(Failure::Mismatch));
            }
            (State::Pinging { .. }, StreamEvent::Reset(fault)) => {
                self.on_answer(cx, stream, Err(Failure::Stream(fault)));
            }
            (_, StreamEvent::Reset(_)) | (State::Closing { .. }, StreamEvent::Finished) => {
                self.remove(stream);
            }
            _ => {}
        }
    }

    /// Ends a ping: politely if it was answered, else by giving its stream up.
    fn on_answer(&mut self, cx: &mut Context<'_>, stream: StreamId, result: Result<Duration, Failure>) {
        let Some((connection, State::Pinging { peer, asked, until, .. })) = self.remove(stream) else {
            return;
        };
        match &result {
            Ok(_) => {
                cx.finish(stream);
                self.timers.set(until, Timer::Timeout(stream));
                self.streams.insert(stream, connection, State::Closing { until });
            }
            Err(Failure::Stream(_)) => {}
            Err(_) => cx.reset(stream),
        }
        self.conclude(cx, connection, (peer, asked), result);
    }

    fn conclude(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        (peer, asked): (PeerId, bool),
        result: Result<Duration, Failure>,
    ) {
        if result.is_err() {
            cx.count("ping.failed");
        }
        cx.emit(Event { connection, peer, asked, result });
        self.schedule(cx.now(), connection);
    }

    /// Plans the next ping of a connection, in place of the one planned before.
    fn schedule(&mut self, now: Instant, connection: ConnectionId) {
        let Some(interval) = self.config.interval else { return };
        if let Some((_, at)) = self.next.remove(connection) {
            self.timers.clear(at, Timer::Next(connection));
        }
        let at = now + interval.max(MIN_WAIT);
        self.timers.set(at, Timer::Next(connection));
        self.next.insert(connection, connection, at);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Next(connection) => {
                self.next.remove(connection);
                // An unknown connection has been removed above, so nothing is left to ping.
                let _ = self.probe(cx, connection);
            }
            Timer::Timeout(stream) => match self.streams.get(stream) {
                Some(State::Pinging { .. }) => self.on_answer(cx, stream, Err(Failure::Timeout)),
                Some(State::Closing { .. }) => {
                    cx.reset(stream);
                    self.remove(stream);
                }
                Some(State::Echoing) | None => {}
            },
        }
    }

    fn remove(&mut self, stream: StreamId) -> Option<(ConnectionId, State)> {
        let (connection, state) = self.streams.remove(stream)?;
        self.disarm(stream, &state);
        Some((connection, state))
    }

    fn disarm(&mut self, stream: StreamId, state: &State) {
        if let State::Pinging { until, .. } | State::Closing { until } = state {
            self.timers.clear(*until, Timer::Timeout(stream));
        }
    }
}

impl Behaviour for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        while let Some((_, timer)) = self.timers.pop_due(cx.now()) {
            self.on_timer(cx, timer);
        }
        match input {
            Input::Peer(event) => self.on_peer(cx, event),
            Input::Stream(stream, event) => self.on_stream(cx, stream, event),
            Input::Reply(token, Reply::Stream(result)) => self.on_opened(cx, token, result),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, timer)| {
            Deadline::new(
                at,
                match timer {
                    Timer::Next(_) => "next ping",
                    Timer::Timeout(_) => "ping timeout",
                },
            )
        })
    }

    fn describe(&self, _: &ProtocolName, frame: &[u8], _: UnixTime) -> Option<String> {
        (frame.len() == SIZE).then(|| "ping".into())
    }
}

/// The outcome of one ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The connection pinged.
    pub connection: ConnectionId,
    /// Its peer.
    pub peer: PeerId,
    /// Whether [`Ping::ping`] was called for it; else its time had come.
    pub asked: bool,
    /// The round-trip time, or what went wrong.
    pub result: Result<Duration, Failure>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, result, .. } = self;
        match result {
            Ok(rtt) => write!(f, "ping {peer} {rtt:?}"),
            Err(error) => write!(f, "ping {peer} failed: {error}"),
        }
    }
}

/// Why a ping failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer was not what was sent.
    #[error("the answer differs from what was sent")]
    Mismatch,
    /// No stream could be opened.
    #[error("{0}")]
    Open(OpenError),
    /// The stream was lost.
    #[error("{0}")]
    Stream(StreamFault),
}
