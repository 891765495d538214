//! What a node is made of.

use std::sync::Arc;

use crate::{
    behaviour::Behaviour,
    errors::InvalidConfig,
    identity::Identity,
    names::ProtocolName,
    network::Network,
    protocols::{identify, ping, relay, rendezvous},
    quic, streams,
    swarm::SwarmConfig,
    time::{Instant, UnixTime},
    upgrade,
};

/// The moment and the randomness a node starts with. The same start and the same inputs give the same outputs.
#[derive(Clone, Debug)]
pub struct Start {
    /// The embedder's monotonic clock.
    pub now: Instant,
    /// The wall clock at the same moment.
    pub unix: UnixTime,
    /// Where all randomness of the node comes from. Draw it from the operating system, but for tests.
    pub seed: [u8; 32],
}

/// A stream protocol of the embedder, whose streams it pulls bytes from and pushes bytes to.
#[derive(Clone, Debug)]
pub struct AppProtocol {
    /// The protocol's id.
    pub name: ProtocolName,
    /// Most inbound streams that one peer may have open with it; 0: we only open such streams and do not answer them.
    pub inbound_per_peer: usize,
}

/// What a node is, speaks and allows.
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Whether others may connect to it. If not, its addresses are not advertised.
    pub accept_inbound: bool,
    /// Networks whose addresses are not told to anybody, though we are there. None.
    pub no_announce: Vec<Network>,
    /// `/ipfs/ping/1.0.0`.
    pub ping: ping::Config,
    /// `/ipfs/id/1.0.0` and its push.
    pub identify: identify::Config,
    /// The parts it may play in circuits: without HOP it relays for nobody, whatever [`Config::hop`] says; without STOP it
    /// accepts no circuits; without CLIENT it dials none.
    pub relay_roles: relay::Roles,
    /// Being a relay; `None` is not to be one. One that is there for many wants [`SwarmConfig::for_relay`] as well.
    pub hop: Option<relay::hop::Config>,
    /// Using relays: reservations, circuits to others, circuits to us.
    pub relay_client: relay::client::Config,
    /// Using rendezvous points: registrations, discoveries, watches.
    pub rendezvous_client: rendezvous::client::Config,
    /// Being a rendezvous point; `None` is not to be one.
    pub rendezvous_server: Option<rendezvous::server::Config>,
    /// How circuits become connections.
    pub upgrade: upgrade::Config,
    /// QUIC.
    pub quic: quic::Config,
    /// What authenticates QUIC connections; `None` is libp2p TLS.
    pub crypto: Option<Arc<dyn quic::QuicCrypto>>,
    /// Connection management: whom we talk to, how much of everything, who goes first.
    pub swarm: SwarmConfig,
    /// The stream layer.
    pub streams: streams::Config,
    /// Protocols that the embedder serves or opens itself.
    pub app_protocols: Vec<AppProtocol>,
    /// Whether the embedder keeps what behaviours store, and the peerstore (see
    /// [`PeerstoreConfig::stored`](crate::swarm::peerstore::PeerstoreConfig::stored)), and is asked with
    /// [`Event::Storage`](crate::node::Event::Storage). If not, it is forgotten with the node.
    pub storage: bool,
    /// Further behaviours, after the built-in ones.
    pub behaviours: Vec<Box<dyn Behaviour>>,
    /// Whether the embedder can look up TXT records ([`crate::node::Event::ResolveText`]), without which `/dnsaddr`
    /// addresses lead nowhere.
    pub resolves_text: bool,
    /// Whether the embedder answers [`Event::Route`](crate::node::Event::Route). Default: no, and of several sockets of one
    /// address family those are tried in turn that are not wildcards.
    pub knows_routes: bool,
    /// Whether to write a trace; see [`super::Node::take_trace`].
    pub trace: bool,
}

impl Config {
    /// The defaults for `identity`: QUIC with libp2p TLS, ping, identify, circuits to and from us, no relay.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            accept_inbound: true,
            no_announce: Vec::new(),
            ping: ping::Config::default(),
            identify: identify::Config::default(),
            relay_roles: relay::Roles::ALL,
            hop: None,
            relay_client: relay::client::Config::default(),
            rendezvous_client: rendezvous::client::Config::default(),
            rendezvous_server: None,
            upgrade: upgrade::Config::default(),
            quic: quic::Config::default(),
            crypto: None,
            swarm: SwarmConfig::default(),
            streams: streams::Config::default(),
            app_protocols: Vec::new(),
            storage: false,
            behaviours: Vec::new(),
            resolves_text: false,
            knows_routes: false,
            trace: false,
        }
    }
}

impl Config {
    /// Finds the first setting that makes no sense; [`Node::new`](super::Node::new) does so too.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.swarm.validate()?;
        self.quic.validate()?;
        self.streams.validate()?;
        self.upgrade.validate()?;
        self.ping.validate()?;
        self.relay_client.validate()?;
        self.rendezvous_client.validate()?;
        self.hop.as_ref().map_or(Ok(()), relay::hop::Config::validate)?;
        self.rendezvous_server.as_ref().map_or(Ok(()), rendezvous::server::Config::validate)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Why a node could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The libp2p certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Certificate(String),
    /// Two behaviours, or a behaviour and the embedder, answer the same protocol.
    #[error("protocol {0} is answered twice")]
    ProtocolTwice(ProtocolName),
    /// A setting makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
    /// A behaviour has the name of another, or of the peerstore's table.
    #[error("a behaviour is called {0}, and that name is taken")]
    NameTwice(&'static str),
}
