//! What a node knows of its connections and streams, and of what it leaves alone, as values: the embedder looks, and holds
//! nothing of the node's.

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::{Node, transport::Via};
use crate::{
    ids::{ConnectionId, SocketId, StreamId},
    names::{Direction, ProtocolName},
    quic::PathStats,
    streams::{Mode, Owner, Stream},
    swarm::dial::{backoff::BackedOff, black_hole},
    time::Instant,
};

/// A stream, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Its id. [`Node::read`] and the like take those of the embedder alone.
    pub stream: StreamId,
    /// The protocol agreed on, or the one that we proposed; `None` while the remote has not proposed any that we speak.
    pub protocol: Option<ProtocolName>,
    /// Who opened it.
    pub direction: Direction,
    /// When it was opened.
    pub opened: Instant,
    /// Bytes that were taken from it, those of the negotiation included.
    pub read: u64,
    /// Bytes that its connection took, those of the negotiation included; not all of them need have arrived.
    pub written: u64,
    /// Bytes in its queue, which the connection has not taken.
    pub queued: usize,
    /// What it is in the middle of.
    pub state: StreamState,
}

/// What a stream is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamState {
    /// The two sides agree on a protocol. Exits: open, refused, timed out.
    Negotiating,
    /// Both directions are open.
    Open,
    /// We send no more. Exit: the remote's end.
    LocalFinished,
    /// The remote sends no more, or we want no more of it. Exit: our end.
    RemoteFinished,
    /// It is one side of a circuit that we relay. Exit: the end of the circuit.
    Relayed,
    /// It carries a connection of ours through a relay. Exit: the end of that connection.
    CarriesCircuit,
    /// What is queued still leaves, and what comes is discarded. Exits: both ends, timed out.
    Draining,
}

/// The path that a direct connection takes through the network, and how that does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// The socket that it was last heard on.
    pub socket: SocketId,
    /// Our address: that of the socket, with the address of the machine that datagrams came to if the socket is bound to a
    /// wildcard and they told. `None` if the socket is gone.
    pub local: Option<SocketAddr>,
    /// Where the remote is.
    pub remote: SocketAddr,
    /// How well it carries.
    pub stats: PathStats,
}

/// What protects a connection and divides it into streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrades {
    /// Direct: `tls1.3`, as a part of QUIC (libp2p specs, `quic` and `tls`), unless
    /// [`Config::crypto`](super::Config::crypto) says otherwise. Through a relay: `/tls/1.0.0` or `/noise`.
    pub security: &'static str,
    /// Direct: `quic`. Through a relay: `/yamux/1.0.0`.
    pub muxer: &'static str,
}

/// Whether networks are taken to swallow what is sent over them; see
/// [`DialConfig::black_hole`](crate::swarm::dial::DialConfig::black_hole).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlackHoles {
    /// All of UDP.
    pub udp: black_hole::State,
    /// All of IPv6.
    pub ipv6: black_hole::State,
}

/// Connections and streams.
impl Node {
    /// The streams of a connection in the order of their opening, those being negotiated and those of the node's own
    /// protocols included; none if the connection is gone.
    pub fn streams_of(&self, connection: ConnectionId) -> Vec<StreamInfo> {
        let Some(link) = self.transport.links.get(&connection) else { return Vec::new() };
        let known =
            link.streams.values().filter_map(|id| Some(self.stream_info(*id, self.streams.get(*id)?)));
        let mut streams: Vec<_> = known.collect();
        streams.sort_by_key(|stream| stream.opened);
        streams
    }

    /// The path of a direct connection; `None` if it is gone, or goes through a relay: then that of the connection to the
    /// relay ([`Relayed::via`](crate::swarm::table::Relayed::via)) is part of its way.
    pub fn path_of(&self, connection: ConnectionId) -> Option<PathInfo> {
        let Via::Quic(id) = self.transport.links.get(&connection)?.via else { return None };
        let info = self.transport.quic.info(id)?;
        let bound = self.sockets.get(&info.socket).map(|bound| bound.local);
        let local = bound.map(|local| SocketAddr::new(info.local_ip.unwrap_or(local.ip()), local.port()));
        let stats = self.transport.quic.path_stats(id)?;
        Some(PathInfo { socket: info.socket, local, remote: info.remote, stats })
    }

    /// What protects a connection and divides it into streams; `None` if it is gone.
    pub fn upgrades_of(&self, connection: ConnectionId) -> Option<Upgrades> {
        match self.transport.links.get(&connection)?.via {
            Via::Quic(_) => Some(Upgrades { security: "tls1.3", muxer: "quic" }),
            Via::Circuit(id) => {
                let (security, muxer) = self.transport.circuits.get(id)?.upgrades?;
                Some(Upgrades { security: security.protocol(), muxer })
            }
        }
    }

    /// What a splice has passed on from this stream of it to the other, and back.
    pub(super) fn spliced_bytes(&self, stream: StreamId) -> Option<(u64, u64)> {
        let Mode::Spliced(splice) = self.streams.get(stream)?.mode else { return None };
        let splice = self.splices.get(splice)?;
        let (a_to_b, b_to_a) = splice.counts();
        Some(if splice.a == stream { (a_to_b, b_to_a) } else { (b_to_a, a_to_b) })
    }

    fn stream_info(&self, id: StreamId, stream: &Stream) -> StreamInfo {
        let (mut read, mut written) = (stream.read, stream.written);
        match stream.mode {
            Mode::Spliced(_) => {
                let (from, to) = self.spliced_bytes(id).unwrap_or_default();
                (read, written) = (read + from, written + to);
            }
            Mode::Carrying(circuit) => {
                if let Some(circuit) = self.transport.circuits.get(circuit) {
                    (read, written) = (read + circuit.received, written + circuit.sent);
                }
            }
            _ => {}
        }
        let is_inbound = stream.inbound || matches!(stream.mode, Mode::Listening(_));
        StreamInfo {
            stream: id,
            protocol: stream.protocol.clone(),
            direction: if is_inbound { Direction::Inbound } else { Direction::Outbound },
            opened: stream.opened,
            read,
            written,
            queued: stream.queued,
            state: state(stream),
        }
    }
}

fn state(stream: &Stream) -> StreamState {
    match stream.mode {
        Mode::Listening(_) | Mode::Proposing(..) | Mode::ProposingUnheard(_) => StreamState::Negotiating,
        Mode::Spliced(_) => StreamState::Relayed,
        Mode::Carrying(_) => StreamState::CarriesCircuit,
        Mode::Draining if stream.owner == Owner::Nobody => StreamState::Draining,
        _ if stream.remote_finished => StreamState::RemoteFinished,
        _ if stream.finishing => StreamState::LocalFinished,
        _ => StreamState::Open,
    }
}

/// What is left alone because it failed.
impl Node {
    /// Addresses and peers that are not dialled for now because they led nowhere, as far as dials respect that
    /// ([`DialOptions::respect_backoff`](crate::swarm::dial::DialOptions::respect_backoff)); those that end first come first.
    pub fn backed_off(&self) -> Vec<BackedOff> {
        self.dialing.backoff.entries(self.now)
    }

    /// Peers that are not dialled unasked for now, and until when; see [`AutoConnectConfig::cooldown`].
    ///
    /// [`AutoConnectConfig::cooldown`]: crate::swarm::autoconnect::AutoConnectConfig::cooldown
    pub fn resting_peers(&self) -> Vec<(PeerId, Instant)> {
        self.auto_connect.resting_peers().collect()
    }

    /// Whether networks are taken to swallow what is sent over them.
    pub fn black_holes(&self) -> BlackHoles {
        self.dialing.black_holes()
    }

    /// Forgets that anything failed: back-offs, cool-downs and black holes. Whoever is to be kept is dialled at once. A network
    /// that returns does the same.
    pub fn forget_failures(&mut self, now: Instant) {
        self.advance(now);
        self.dialing.network_is_back();
        self.auto_connect.clear_cooldowns(self.now);
        self.auto_connect();
        self.pump();
    }

    /// The same for one peer and its addresses.
    pub fn forget_failures_of(&mut self, now: Instant, peer: &PeerId) {
        self.advance(now);
        self.dialing.backoff.forget(peer);
        self.auto_connect.clear_cooldown(self.now, peer);
        self.auto_connect();
        self.pump();
    }
}

/// The peerstore.
impl Node {
    /// Forgets one address of a peer, whoever told it; it may be told again. Returns whether it was known.
    pub fn remove_peer_address(&mut self, now: Instant, peer: PeerId, address: &Multiaddr) -> bool {
        self.advance(now);
        self.peerstore.remove_address(self.now, peer, address)
    }

    /// Keeps what is known of a peer, however full the peerstore is, or no longer. Peers that are to be kept connected and ways
    /// into the network are protected by that already, until this takes it back. It says nothing of connections: those are
    /// spared by [`Tags::protect`](crate::swarm::tags::Tags::protect).
    pub fn protect_in_peerstore(&mut self, now: Instant, peer: PeerId, is_protected: bool) {
        self.advance(now);
        self.peerstore.protect(self.now, peer, is_protected);
    }
}
