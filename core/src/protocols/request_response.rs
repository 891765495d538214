//! Request and response: a protocol of your own from what its messages are and who answers them.
//!
//! Implement [`Protocol`] and put [`RequestResponse`] among the node's behaviours: it opens one stream for each request,
//! dials if there is no connection, keeps time limits and bounds, and says how each request ended as an [`Outcome`].
//!
//! ```
//! use bytes::Bytes;
//! use peerless_core::{
//!     behaviour::Context,
//!     names::ProtocolName,
//!     protocols::request_response::{Answer, Asked, Config, Protocol, RequestResponse},
//! };
//!
//! /// Greets whoever says a name.
//! struct Hello;
//!
//! impl Protocol for Hello {
//!     type Request = String;
//!     type Response = String;
//!
//!     fn name(&self) -> &'static str {
//!         "hello"
//!     }
//!
//!     fn protocol(&self) -> ProtocolName {
//!         ProtocolName::from_static("/hello/1.0.0")
//!     }
//!
//!     fn encode_request(&self, name: &String) -> Bytes {
//!         name.clone().into()
//!     }
//!
//!     fn decode_request(&self, frame: Bytes) -> Result<String, String> {
//!         String::from_utf8(frame.into()).map_err(|error| error.to_string())
//!     }
//!
//!     fn encode_response(&self, greeting: &String) -> Bytes {
//!         greeting.clone().into()
//!     }
//!
//!     fn decode_response(&self, frame: Bytes) -> Result<String, String> {
//!         String::from_utf8(frame.into()).map_err(|error| error.to_string())
//!     }
//!
//!     fn answer(&mut self, _: &mut Context<'_>, _: Asked, name: String) -> Answer<String> {
//!         Answer::Now(format!("hello, {name}"))
//!     }
//! }
//!
//! # use peerless_core::{identity::Identity, node, rng::Rng};
//! # let identity = Identity::generate(&mut Rng::new([1; 32]).fork("identity"));
//! let mut config = node::Config::new(identity);
//! config.behaviours.push(Box::new(RequestResponse::new(Hello, Config::default())));
//! # let start = node::Start {
//! #     now: peerless_core::time::Instant::ZERO,
//! #     unix: peerless_core::time::UnixTime::from_secs(1_800_000_000),
//! #     seed: [7; 32],
//! # };
//! # let (now, peer) = (start.now, node::Config::new(Identity::generate(&mut Rng::new([2; 32]).fork("x"))).identity.peer());
//! # let mut node = node::Node::new(config, start)?;
//! // Later: a request, and what became of it among the node's events.
//! let request = node.with(now, |hello: &mut RequestResponse<Hello>, cx| hello.request(cx, peer, &"Ada".into()));
//! while let Some(event) = node.poll_event() {
//!     if let Some(outcome) = event.notice::<peerless_core::protocols::request_response::Outcome<Hello>>() {
//!         println!("{}: {:?}", outcome.peer, outcome.result);
//!     }
//! }
//! # assert!(request.is_some_and(|request| request.is_ok()));
//! # Ok::<(), peerless_core::node::ConfigError>(())
//! ```

mod inbound;

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;

use self::inbound::Inbound;
use super::by_connection::ByConnection;
use crate::{
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply, StreamEvent},
    errors::{DialError, OpenError, StreamFault},
    ids::{ConnectionId, StreamId, Token},
    names::{Framing, ProtocolName, ProtocolSpec},
    time::{Deadline, Instant, Timers},
};

/// What a request/response protocol is: its messages as bytes, and who answers.
///
/// Messages are framed by their length as an unsigned varint, as most protocols of libp2p do.
pub trait Protocol: Send + 'static {
    /// What is asked.
    type Request: fmt::Debug + Send + 'static;
    /// What is answered.
    type Response: fmt::Debug + Send + 'static;

    /// The behaviour's name, unique in the node; see [`Behaviour::name`].
    fn name(&self) -> &'static str;

    /// The stream protocol's id.
    fn protocol(&self) -> ProtocolName;

    /// A request as it stands on the wire.
    fn encode_request(&self, request: &Self::Request) -> Bytes;

    /// The request that stands on the wire, or what is wrong with it.
    fn decode_request(&self, frame: Bytes) -> Result<Self::Request, String>;

    /// A response as it stands on the wire.
    fn encode_response(&self, response: &Self::Response) -> Bytes;

    /// The response that stands on the wire, or what is wrong with it.
    fn decode_response(&self, frame: Bytes) -> Result<Self::Response, String>;

    /// Answers a request: at once, later by [`RequestResponse::respond`], or not at all.
    fn answer(
        &mut self,
        cx: &mut Context<'_>,
        asked: Asked,
        request: Self::Request,
    ) -> Answer<Self::Response>;
}

/// Limits of a request/response protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a request may take, dialling included; and how long we may take to answer one.
    pub timeout: Duration,
    /// Most bytes of a message. It must fit the write queue of a stream
    /// ([`streams::Config::write_queue`](crate::streams::Config::write_queue)).
    pub max_message: usize,
    /// Most requests of ours that may be under way in all; one more is refused.
    pub max_requests: usize,
    /// Most requests that one peer may have under way with us; the stream of one more is reset.
    pub inbound_per_peer: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            max_message: 128 << 10,
            max_requests: 1024,
            inbound_per_peer: 16,
        }
    }
}

/// A request of ours, unique in its behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// A request that somebody made of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// The authenticated peer that asks.
    pub peer: PeerId,
    /// The connection that it asks on.
    pub connection: ConnectionId,
    stream: StreamId,
}

/// What becomes of a request that was made of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<R> {
    /// This is the response.
    Now(R),
    /// The response comes by [`RequestResponse::respond`], within [`Config::timeout`].
    Later,
    /// There will be none: the stream is reset.
    Refuse,
}

/// How a request of ours ended. Told to the embedder; see [`Event::notice`](crate::node::Event::notice).
#[derive(Clone)]
pub struct Outcome<P: Protocol> {
    /// The request.
    pub request: RequestId,
    /// Whom it was made of.
    pub peer: PeerId,
    /// The response, or why there is none.
    pub result: Result<P::Response, RequestError>,
}

impl<P: Protocol> fmt::Debug for Outcome<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, peer, result } = self;
        f.debug_struct("Outcome")
            .field("request", request)
            .field("peer", peer)
            .field("result", result)
            .finish()
    }
}

impl<P: Protocol> fmt::Display for Outcome<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(response) => write!(f, "{} answered: {response:?}", self.peer),
            Err(error) => write!(f, "request to {} failed: {error}", self.peer),
        }
    }
}

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// As many requests as may be are under way already.
    #[error("too many requests are under way")]
    TooMany,
    /// The message is longer than [`Config::max_message`].
    #[error("the request has {0} bytes, more than may be sent")]
    TooLong(usize),
    /// The peer could not be reached.
    #[error("the peer could not be reached: {0}")]
    Dial(DialError),
    /// No stream could be opened.
    #[error("no stream could be opened: {0}")]
    Open(OpenError),
    /// The peer does not speak the protocol.
    #[error("the peer does not speak the protocol")]
    Unsupported,
    /// There was no response in time.
    #[error("no response in time")]
    TimedOut,
    /// The stream was lost; [`StreamFault::Remote`] may mean that the peer refuses to answer.
    #[error("{0}")]
    Stream(StreamFault),
    /// The peer ended the stream without a response.
    #[error("the peer ended the stream without a response")]
    NoResponse,
    /// What the peer sent is no response.
    #[error("the response cannot be read: {0}")]
    Malformed(String),
}

/// A request/response protocol as a behaviour; see the [module documentation](self).
#[derive(Debug)]
pub struct RequestResponse<P> {
    protocol: P,
    config: Config,
    specs: [ProtocolSpec; 1],
    next: u64,
    requests: BTreeMap<RequestId, Request>,
    /// Requests by the reply that they wait for.
    by_token: BTreeMap<Token, RequestId>,
    /// Streams of ours.
    streams: ByConnection<StreamId, Outbound>,
    inbound: Inbound,
    timers: Timers<RequestId>,
    closing: Timers<StreamId>,
}

/// A request of ours that has no outcome yet.
#[derive(Debug)]
struct Request {
    peer: PeerId,
    until: Instant,
    state: State,
}

/// What a request waits for. Besides what is listed, its time limit ends each state.
#[derive(Debug)]
enum State {
    /// A connection; until the reply to the dial.
    Dialing { token: Token, frame: Bytes },
    /// A stream; until the reply.
    Opening { token: Token, connection: ConnectionId, frame: Bytes },
    /// The response on this stream; until it comes, or the stream or its connection ends.
    Waiting(StreamId),
}

/// What a stream of ours waits for. A reset or the end of its connection ends both.
#[derive(Clone, Copy, Debug)]
enum Outbound {
    /// The response to a request.
    Waiting(RequestId),
    /// The remote's end of stream; until it comes, or until then.
    Closing(Instant),
}

impl<P: Protocol> RequestResponse<P> {
    /// The behaviour for `protocol`.
    pub fn new(protocol: P, config: Config) -> Self {
        let spec = ProtocolSpec {
            name: protocol.protocol(),
            framing: Framing::Varint { max: config.max_message },
            inbound_per_peer: config.inbound_per_peer,
        };
        Self {
            protocol,
            config,
            specs: [spec],
            next: 0,
            requests: BTreeMap::new(),
            by_token: BTreeMap::new(),
            streams: ByConnection::default(),
            inbound: Inbound::default(),
            timers: Timers::default(),
            closing: Timers::default(),
        }
    }

    /// Makes a request of `peer`, which is dialled if there is no connection. Unless this fails, an [`Outcome`] follows,
    /// within [`Config::timeout`].
    pub fn request(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        request: &P::Request,
    ) -> Result<RequestId, RequestError> {
        if self.requests.len() >= self.config.max_requests {
            cx.count("request_response.refused.too_many");
            return Err(RequestError::TooMany);
        }
        let frame = self.protocol.encode_request(request);
        if frame.len() > self.config.max_message {
            return Err(RequestError::TooLong(frame.len()));
        }
        let id = RequestId(self.next);
        self.next += 1;
        let until = cx.now() + self.config.timeout;
        let state = match cx.view().connections.best(&peer) {
            Some(connection) => self.open(cx, connection, frame),
            None => State::Dialing { token: cx.dial(Some(peer), Vec::new()), frame },
        };
        self.timers.set(until, id);
        self.insert(id, Request { peer, until, state });
        Ok(id)
    }

    /// Answers a request whose [`Protocol::answer`] was [`Answer::Later`]. Returns whether it still waits for that.
    pub fn respond(&mut self, cx: &mut Context<'_>, asked: Asked, response: &P::Response) -> bool {
        if !self.inbound.is_answering(asked.stream) {
            return false;
        }
        self.send_response(cx, asked.stream, response);
        true
    }

    /// Gives a request up. No outcome follows; returns whether it was under way.
    pub fn cancel(&mut self, cx: &mut Context<'_>, request: RequestId) -> bool {
        let Some(gone) = self.remove(request) else { return false };
        if let State::Waiting(stream) = gone.state {
            self.streams.remove(stream);
            cx.reset(stream);
        }
        true
    }

    /// What was given to [`RequestResponse::new`].
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// The same, to be changed.
    pub fn protocol_mut(&mut self) -> &mut P {
        &mut self.protocol
    }

    /// Requests and streams that something is kept for; zero when no peer is left and no request under way.
    pub fn len(&self) -> usize {
        self.requests.len() + self.streams.len() + self.inbound.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn open(&self, cx: &mut Context<'_>, connection: ConnectionId, frame: Bytes) -> State {
        State::Opening { token: cx.open(connection, self.specs[0].name.clone()), connection, frame }
    }

    fn insert(&mut self, id: RequestId, request: Request) {
        match request.state {
            State::Dialing { token, .. } | State::Opening { token, .. } => {
                self.by_token.insert(token, id);
            }
            State::Waiting(_) => {}
        }
        self.requests.insert(id, request);
    }

    fn remove(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.timers.clear(request.until, id);
        if let State::Dialing { token, .. } | State::Opening { token, .. } = request.state {
            self.by_token.remove(&token);
        }
        Some(request)
    }

    fn conclude(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestId,
        result: Result<P::Response, RequestError>,
    ) {
        if let Some(Request { peer, .. }) = self.remove(request) {
            Self::tell(cx, request, peer, result);
        }
    }

    fn tell(
        cx: &mut Context<'_>,
        request: RequestId,
        peer: PeerId,
        result: Result<P::Response, RequestError>,
    ) {
        if result.is_err() {
            cx.count("request_response.failed");
        }
        cx.emit(Outcome::<P> { request, peer, result });
    }

    fn on_reply(&mut self, cx: &mut Context<'_>, token: Token, reply: Reply) {
        let Some(id) = self.by_token.remove(&token) else {
            // The request has ended; nobody wants the stream.
            if let Reply::Stream(Ok(stream)) = reply {
                cx.reset(stream);
            }
            return;
        };
        let Some(mut request) = self.requests.remove(&id) else { return };
        let error = match (request.state, reply) {
            (State::Dialing { frame, .. }, Reply::Dial(Ok(connection))) => {
                request.state = self.open(cx, connection, frame);
                return self.insert(id, request);
            }
            (State::Opening { connection, frame, .. }, Reply::Stream(Ok(stream))) => {
                cx.send(stream, frame);
                cx.finish(stream);
                self.streams.insert(stream, connection, Outbound::Waiting(id));
                request.state = State::Waiting(stream);
                return self.insert(id, request);
            }
            (_, Reply::Dial(Err(error))) => RequestError::Dial(error),
            (_, Reply::Stream(Err(error))) => RequestError::Open(error),
            (state, _) => {
                request.state = state;
                return self.insert(id, request);
            }
        };
        self.timers.clear(request.until, id);
        Self::tell(cx, id, request.peer, Err(error));
    }

    fn on_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, event: StreamEvent) {
        if let StreamEvent::Accepted { connection, peer, .. } = event {
            let until = cx.now() + self.config.timeout;
            return self.inbound.accepted(stream, connection, peer, until);
        }
        let Some((connection, state)) = self.streams.entry(stream) else {
            return self.on_inbound(cx, stream, event);
        };
        match (*state, event) {
            (Outbound::Waiting(request), StreamEvent::Frame(frame)) => {
                let until = cx.now() + self.config.timeout;
                self.streams.insert(stream, connection, Outbound::Closing(until));
                self.closing.set(until, stream);
                let result = self.protocol.decode_response(frame).map_err(RequestError::Malformed);
                self.conclude(cx, request, result);
            }
            (Outbound::Waiting(request), StreamEvent::Finished) => {
                self.streams.remove(stream);
                self.conclude(cx, request, Err(RequestError::NoResponse));
            }
            (Outbound::Waiting(request), StreamEvent::Reset(fault)) => {
                self.streams.remove(stream);
                self.conclude(cx, request, Err(fault.into()));
            }
            (Outbound::Closing(until), StreamEvent::Finished | StreamEvent::Reset(_)) => {
                self.streams.remove(stream);
                self.closing.clear(until, stream);
            }
            // More than one response.
            (Outbound::Closing(_), StreamEvent::Frame(_)) => self.give_up(cx, stream),
            _ => {}
        }
    }

    fn give_up(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if let Some((_, Outbound::Closing(until))) = self.streams.remove(stream) {
            self.closing.clear(until, stream);
            cx.reset(stream);
        }
    }

    fn on_inbound(&mut self, cx: &mut Context<'_>, stream: StreamId, event: StreamEvent) {
        match event {
            StreamEvent::Frame(frame) => {
                let Some((connection, peer)) = self.inbound.asked(stream) else {
                    // A second request on one stream.
                    cx.count("request_response.refused.malformed");
                    return self.inbound.give_up(cx, stream);
                };
                let answer = match self.protocol.decode_request(frame) {
                    Ok(request) => self.protocol.answer(cx, Asked { peer, connection, stream }, request),
                    Err(_) => {
                        cx.count("request_response.refused.malformed");
                        Answer::Refuse
                    }
                };
                match answer {
                    Answer::Now(response) => self.send_response(cx, stream, &response),
                    Answer::Later => {}
                    Answer::Refuse => self.inbound.give_up(cx, stream),
                }
            }
            StreamEvent::Finished => self.inbound.finished(cx, stream),
            StreamEvent::Reset(_) => self.inbound.lost(stream),
            _ => {}
        }
    }

    fn send_response(&mut self, cx: &mut Context<'_>, stream: StreamId, response: &P::Response) {
        let frame = self.protocol.encode_response(response);
        if frame.len() > self.config.max_message {
            cx.count("request_response.refused.response_too_long");
            return self.inbound.give_up(cx, stream);
        }
        cx.send(stream, frame);
        cx.finish(stream);
        self.inbound.answered(stream);
    }

    fn disconnected(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.inbound.disconnected(connection);
        for (stream, state) in self.streams.remove_connection(connection) {
            match state {
                Outbound::Waiting(request) => {
                    self.conclude(cx, request, Err(RequestError::Stream(StreamFault::ConnectionLost)));
                }
                Outbound::Closing(until) => self.closing.clear(until, stream),
            }
        }
    }

    fn expire(&mut self, cx: &mut Context<'_>) {
        while let Some((_, request)) = self.timers.pop_due(cx.now()) {
            if let Some(State::Waiting(stream)) = self.requests.get(&request).map(|r| &r.state) {
                let stream = *stream;
                self.streams.remove(stream);
                cx.reset(stream);
            }
            self.conclude(cx, request, Err(RequestError::TimedOut));
        }
        while let Some((_, stream)) = self.closing.pop_due(cx.now()) {
            self.give_up(cx, stream);
        }
        self.inbound.expire(cx);
    }
}

impl<P: Protocol> Behaviour for RequestResponse<P> {
    fn name(&self) -> &'static str {
        self.protocol.name()
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.specs
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        self.expire(cx);
        match input {
            Input::Stream(stream, event) => self.on_stream(cx, stream, event),
            Input::Reply(token, reply) => self.on_reply(cx, token, reply),
            Input::Peer(PeerEvent::Disconnected { connection, .. }) => self.disconnected(cx, connection),
            _ => {}
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        let request = self.timers.next().map(|at| Deadline::new(at, "response"));
        let closing = self.closing.next().map(|at| Deadline::new(at, "end of stream"));
        Deadline::earliest(Deadline::earliest(request, closing), self.inbound.deadline())
    }
}

impl From<StreamFault> for RequestError {
    fn from(fault: StreamFault) -> Self {
        match fault {
            StreamFault::Unsupported => Self::Unsupported,
            fault => Self::Stream(fault),
        }
    }
}
