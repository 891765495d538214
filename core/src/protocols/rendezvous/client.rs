//! The side that registers and discovers: keeps registrations alive at any number of points, asks for peers once or
//! watches for new ones, and says each change with its reason.

mod events;
mod record;
mod register;
mod request;
mod search;

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

pub use self::{
    events::{Discovery, Error, Event, Found},
    record::Dialect,
    register::RegistrationState,
};
use self::{
    record::Records,
    register::Registrar,
    request::{Job, Point, Purpose, Request},
    search::Search,
};
use super::{MAX_NAMESPACE, MAX_TTL, wire};
use crate::{
    behaviour::{Behaviour, Context, Input, PeerEvent, Reply},
    errors::{InvalidConfig, require},
    ids::{StreamId, Token},
    names::{ProtocolName, ProtocolSpec},
    protocols::by_connection::ByConnection,
    time::{Deadline, Instant, Timers, UnixTime},
};

/// How long a shutdown waits for the points to have heard that we leave.
const FAREWELL: Duration = Duration::from_millis(300);

/// How patient the client is, and how much it takes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a point may take to answer, connecting included; at least a second. Default: 30 s.
    pub timeout: Duration,
    /// Most registrations at a time. Default: 64.
    pub max_registrations: usize,
    /// Most watches at a time. Default: 64.
    pub max_watches: usize,
    /// Most discoveries under way. Default: 64.
    pub max_discoveries: usize,
    /// Most peers that one watch remembers, or that one discovery gives. Default: 4096.
    pub max_peers: usize,
    /// Most addresses in a record, ours and others'. Default: 32.
    pub max_addresses: usize,
    /// How many registrations a point is asked for at a time; at least 1. Default: 100.
    pub page: u64,
    /// How often a watch asks, if it does not say otherwise; at least a second. Default: 1 min.
    pub interval: Duration,
    /// How often a watch asks for everything, whatever its cookie says: a point that was restarted may take an old cookie
    /// for one of its own. Default: 15 min.
    pub resync: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            max_registrations: 64,
            max_watches: 64,
            max_discoveries: 64,
            max_peers: 4096,
            max_addresses: 32,
            page: 100,
            interval: Duration::from_secs(60),
            resync: Duration::from_secs(15 * 60),
        }
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const SECOND: Duration = Duration::from_secs(1);
        const AT_LEAST: &str = "must be at least a second";
        require(self.timeout >= SECOND, "rendezvous_client.timeout", AT_LEAST)?;
        require(self.interval >= SECOND, "rendezvous_client.interval", AT_LEAST)?;
        require(self.page >= 1, "rendezvous_client.page", "must be at least 1")
    }
}

/// A wish to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Where the point is, with its `/p2p`. May be that alone if there is a connection to it.
    pub point: Multiaddr,
    /// The namespace, of 1 to 255 bytes.
    pub namespace: String,
    /// The time to live asked for; it is renewed before. Many points refuse less than 2 h. Default: 2 h.
    pub ttl: Duration,
    /// How our addresses are sent. Default: [`Dialect::Auto`].
    pub dialect: Dialect,
}

impl Registration {
    /// With the defaults.
    pub fn new(point: Multiaddr, namespace: impl Into<String>) -> Self {
        let (namespace, ttl) = (namespace.into(), super::DEFAULT_TTL);
        Self { point, namespace, ttl, dialect: Dialect::Auto }
    }
}

/// A question for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where the point is, with its `/p2p`. May be that alone if there is a connection to it.
    pub point: Multiaddr,
    /// The namespace; `None` is all.
    pub namespace: Option<String>,
    /// Most peers wanted; `None` is all, up to [`Config::max_peers`].
    pub limit: Option<usize>,
    /// From an earlier answer, to get only what is new since.
    pub cookie: Option<Cookie>,
}

impl Query {
    /// For everybody in a namespace.
    pub fn new(point: Multiaddr, namespace: impl Into<String>) -> Self {
        Self { point, namespace: Some(namespace.into()), limit: None, cookie: None }
    }
}

/// A wish to be told of peers as they come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Where the point is, with its `/p2p`. May be that alone if there is a connection to it.
    pub point: Multiaddr,
    /// The namespace; `None` is all.
    pub namespace: Option<String>,
    /// How often to ask; `None` is [`Config::interval`].
    pub interval: Option<Duration>,
}

impl Watch {
    /// With the defaults.
    pub fn new(point: Multiaddr, namespace: impl Into<String>) -> Self {
        Self { point, namespace: Some(namespace.into()), interval: None }
    }
}

/// Where an earlier answer ended; good for the same point and namespace alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    point: PeerId,
    namespace: Option<String>,
    bytes: Vec<u8>,
}

/// Names a discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryId(Token);

/// The user of rendezvous points in one node.
#[derive(Debug)]
pub struct Client {
    config: Config,
    protocols: [ProtocolSpec; 1],
    /// What is known of each point of which something is wanted.
    points: BTreeMap<PeerId, Point>,
    registrations: BTreeMap<Token, Registrar>,
    /// Watches and discoveries.
    searches: BTreeMap<Token, Search>,
    /// Namespaces that points are to be told we leave.
    leaving: BTreeMap<Token, (PeerId, String)>,
    /// At most one for each job.
    requests: BTreeMap<Job, Request>,
    opening: ByConnection<Token, Job>,
    streams: ByConnection<StreamId, Purpose>,
    timers: Timers<Timer>,
    /// When [`Timer::Addresses`] is due.
    settles: Option<Instant>,
    /// When [`Timer::Farewell`] is due.
    farewell: Option<Instant>,
    records: Records,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A request takes too long.
    Request(Job),
    /// A remote does not end a stream.
    Stream(StreamId),
    /// The next step of a registration.
    Register(Token),
    /// A registration ends.
    Lapse(Token),
    /// Our addresses have changed a while ago.
    Addresses,
    /// Points have had their time to hear that we leave.
    Farewell,
    /// A watch asks again.
    Poll(Token),
    /// A peer that a watch knows is registered no longer.
    Expiry(Token),
}

impl Client {
    /// The user of rendezvous points in one node.
    pub fn new(mut config: Config) -> Self {
        config.timeout = config.timeout.max(Duration::from_secs(1));
        config.interval = config.interval.max(Duration::from_secs(1));
        config.page = config.page.max(1);
        Self {
            config,
            protocols: [super::spec(0)],
            points: BTreeMap::new(),
            registrations: BTreeMap::new(),
            searches: BTreeMap::new(),
            leaving: BTreeMap::new(),
            requests: BTreeMap::new(),
            opening: ByConnection::default(),
            streams: ByConnection::default(),
            timers: Timers::default(),
            settles: None,
            farewell: None,
            records: Records::default(),
        }
    }

    /// Entries in all tables; zero when nothing is wanted and the streams have ended.
    pub fn len(&self) -> usize {
        self.points.len()
            + self.registrations.len()
            + self.searches.len()
            + self.leaving.len()
            + self.requests.len()
            + self.opening.len()
            + self.streams.len()
            + self.timers.len()
    }

    /// Whether all tables are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wants nothing any more, and tells the points to which we are connected that we leave.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        let searches: Vec<_> = self.searches.keys().copied().collect();
        searches.into_iter().for_each(|id| self.remove_search(cx, id));
        let registrations: Vec<_> = self.registrations.keys().copied().collect();
        registrations.into_iter().for_each(|id| self.leave(cx, id));
        let unsent = |job: &Job| matches!(job, Job::Leave(_)) && self.requests[job].is_waiting();
        let unsent: Vec<_> = self.requests.keys().copied().filter(unsent).collect();
        unsent.into_iter().for_each(|job| self.drop_job(cx, job));
        self.set_farewell((!self.leaving.is_empty()).then_some(cx.now() + FAREWELL));
    }

    /// Whether points are still being told that we leave, since [`Client::stop`]: a connection that is closed now takes the
    /// word along.
    pub(crate) fn is_leaving(&self) -> bool {
        self.farewell.is_some()
    }

    fn set_farewell(&mut self, farewell: Option<Instant>) {
        if let Some(old) = std::mem::replace(&mut self.farewell, farewell) {
            self.timers.clear(old, Timer::Farewell);
        }
        if let Some(at) = farewell {
            self.timers.set(at, Timer::Farewell);
        }
    }

    /// Whom an address leads to, with what all commands want of it.
    fn point_of(&self, cx: &Context<'_>, address: &Multiaddr) -> Result<PeerId, Error> {
        match address::split_peer(address).1 {
            None => Err(Error::NoPeer),
            Some(point) if point == cx.view().local_peer() => Err(Error::Own),
            Some(point) => Ok(point),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Request(job) => self.fail(cx, job, Error::TimedOut),
            Timer::Stream(stream) => {
                if self.streams.remove(stream).is_some() {
                    cx.count("rendezvous.client.stream_timeout");
                    cx.reset(stream);
                }
            }
            Timer::Register(id) => self.register_step(cx, id),
            Timer::Lapse(id) => self.lapse(cx, id),
            Timer::Addresses => self.addresses_settled(cx),
            Timer::Farewell => self.farewell = None,
            Timer::Poll(id) => self.poll(cx, id),
            Timer::Expiry(id) => self.expire(cx, id),
        }
    }
}

fn check_namespace(namespace: &str) -> Result<(), Error> {
    if (1..=MAX_NAMESPACE).contains(&namespace.len()) {
        return Ok(());
    }
    Err(Error::Namespace(namespace.len()))
}

fn check_ttl(ttl: Duration) -> Result<(), Error> {
    if (Duration::from_secs(1)..=MAX_TTL).contains(&ttl) { Ok(()) } else { Err(Error::Ttl(ttl)) }
}

impl Behaviour for Client {
    fn name(&self) -> &'static str {
        "rendezvous-client"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        while let Some((_, timer)) = self.timers.pop_due(cx.now()) {
            self.on_timer(cx, timer);
        }
        match input {
            Input::Peer(PeerEvent::Connected { peer, .. }) => self.proceed(cx, peer),
            Input::Peer(PeerEvent::Disconnected { connection, peer, remaining, reason }) => {
                self.on_disconnected(cx, connection, &reason);
                if remaining == 0 {
                    self.register_disconnected(cx, peer, &reason);
                    self.search_disconnected(peer, &reason);
                }
            }
            Input::Peer(PeerEvent::Identified { peer, info, .. }) => self.on_identified(peer, &info),
            Input::Stream(stream, event) => self.on_stream(cx, stream, event),
            Input::Reply(token, Reply::Stream(result)) => self.on_opened(cx, token, result),
            Input::Reply(token, Reply::Dial(result)) => self.on_dialed(cx, token, result),
            Input::Addresses => self.on_addresses(cx),
            Input::Network => {
                self.register_network_is_back(cx);
                self.search_network_is_back(cx);
            }
            _ => {}
        }
        if self.requests.is_empty() && self.streams.len() == 0 {
            self.set_farewell(None);
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timers.first().map(|(at, timer)| {
            Deadline::new(
                at,
                match timer {
                    Timer::Request(_) => "rendezvous answer timeout",
                    Timer::Stream(_) => "rendezvous stream timeout",
                    Timer::Register(_) => "registration step",
                    Timer::Lapse(_) => "registration ends",
                    Timer::Addresses => "addresses settle",
                    Timer::Farewell => "rendezvous farewell",
                    Timer::Poll(_) => "rendezvous poll",
                    Timer::Expiry(_) => "found peer expires",
                },
            )
        })
    }

    fn describe(&self, _: &ProtocolName, frame: &[u8], _: UnixTime) -> Option<String> {
        Some(wire::describe(frame))
    }
}
