//! What an address says to do.

use std::net::SocketAddr;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_proto::address::{self, CircuitAddr};

use crate::{
    errors::{AttemptError, Hostless},
    ids::SocketId,
    names::Family,
    node::Node,
    protocols::relay::client::any_relay,
    swarm::hostless,
};

/// Where to try.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Direct {
        address: Multiaddr,
        remote: SocketAddr,
        peer: Option<PeerId>,
        /// From which socket; `None` before that is settled.
        from: Option<SocketId>,
    },
    /// A host name.
    Name { address: Multiaddr, name: String, family: Family, port: u16, peer: Option<PeerId> },
    /// A name under which addresses are published.
    List {
        address: Multiaddr,
        name: String,
        peer: Option<PeerId>,
        /// How many such lists led here.
        depth: usize,
    },
    /// What a behaviour dials.
    Carried {
        address: Multiaddr,
        peer: PeerId,
        /// The behaviour's index.
        dialer: usize,
    },
}

impl Target {
    /// What to do with an address, in a dial to `expected` by `own`, if `dialer_of` tells who else dials it.
    fn parse(
        address: &Multiaddr,
        expected: Option<PeerId>,
        own: PeerId,
        dialer_of: impl Fn(&Multiaddr) -> Option<usize>,
    ) -> Result<Self, AttemptError> {
        if let Some(why) = hostless(address) {
            return Err(AttemptError::Hostless(why));
        }
        let unsupported = |error: &dyn std::fmt::Display| AttemptError::Unsupported(error.to_string());
        let check = |named: Option<PeerId>| match (expected, named) {
            (Some(expected), Some(found)) if expected != found => {
                Err(AttemptError::OtherPeer { expected, found })
            }
            (expected, named) if expected.or(named) == Some(own) => Err(AttemptError::Own),
            (expected, named) => Ok(expected.or(named)),
        };
        if let Some(dialer) = dialer_of(address) {
            let (address, peer) = carried(address, check)?;
            return Ok(Self::Carried { address, peer, dialer });
        }
        if address::is_circuit(address) {
            return Err(AttemptError::Unsupported("no relay client".into()));
        }
        let (place, named) = address::split_peer(address);
        if let Some(name) = listed_name(&place) {
            return Ok(Self::List { address: address.clone(), name, peer: check(named)?, depth: 0 });
        }
        if let Some((name, family, port)) = named_host(&place) {
            let peer = check(named)?;
            return Ok(Self::Name { address: address.clone(), name, family, port, peer });
        }
        let (remote, peer) = address::parse_quic_v1(address).map_err(|error| unsupported(&error))?;
        Ok(Self::Direct { address: address.clone(), remote, peer: check(peer)?, from: None })
    }

    pub(super) fn address(&self) -> &Multiaddr {
        match self {
            Self::Direct { address, .. }
            | Self::Name { address, .. }
            | Self::List { address, .. }
            | Self::Carried { address, .. } => address,
        }
    }

    /// Who must be there.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Direct { peer, .. } | Self::Name { peer, .. } | Self::List { peer, .. } => *peer,
            Self::Carried { peer, .. } => Some(*peer),
        }
    }

    /// Whether somebody has to be asked first where it leads.
    pub(super) fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::List { .. })
    }

    /// Whether it is a behaviour's business, and leads through somebody else.
    pub(super) fn is_carried(&self) -> bool {
        matches!(self, Self::Carried { .. })
    }
}

/// The address that a behaviour is told to dial, which names the peer at its end, and that peer.
fn carried(
    address: &Multiaddr,
    check: impl Fn(Option<PeerId>) -> Result<Option<PeerId>, AttemptError>,
) -> Result<(Multiaddr, PeerId), AttemptError> {
    let unsupported = |error: &dyn std::fmt::Display| AttemptError::Unsupported(error.to_string());
    if let Some(named) = any_relay(address) {
        check(Some(named))?;
        return Ok((address.clone(), named));
    }
    let (place, named) = match address::is_circuit(address) {
        true => {
            let circuit = CircuitAddr::parse(address).map_err(|error| unsupported(&error))?;
            (circuit.relay_with_peer().with(Protocol::P2pCircuit), circuit.target)
        }
        false => address::split_peer(address),
    };
    let peer = check(named)?.ok_or(unsupported(&"the address does not say which peer it leads to"))?;
    Ok((place.with(Protocol::P2p(peer)), peer))
}

impl Node {
    /// What to do with an address, in a dial to `expected`.
    pub(super) fn parse_target(
        &self,
        address: &Multiaddr,
        expected: Option<PeerId>,
    ) -> Result<Target, AttemptError> {
        Target::parse(address, expected, self.local_peer(), |address| self.dialer_of(address))
    }

    /// Whether whoever is meant may be dialled there, in a dial that only goes to where packets are sent if `is_direct`.
    pub(super) fn judge_target(&mut self, target: &Target, is_direct: bool) -> Result<(), AttemptError> {
        match target {
            target if is_direct && target.is_carried() => Err(AttemptError::NotDirect),
            Target::Direct { remote, .. } if self.is_own(*remote) => {
                Err(AttemptError::Hostless(Hostless::Ours))
            }
            target => self.judge_peer_dial(target.peer()).map_err(AttemptError::Refused),
        }
    }
}

/// What counts addresses that are not dialled for this reason.
pub(super) fn counter_of(error: &AttemptError) -> &'static str {
    match error {
        AttemptError::Own | AttemptError::Hostless(Hostless::Ours) => "dial.refused.own_address",
        AttemptError::Hostless(_) => "dial.refused.hostless",
        AttemptError::OtherPeer { .. } => "dial.refused.other_peer",
        AttemptError::Refused(_) => "dial.refused.gate",
        AttemptError::NotDirect => "dial.refused.not_direct",
        _ => "dial.refused.unsupported",
    }
}

/// `/dnsaddr/NAME`.
fn listed_name(place: &Multiaddr) -> Option<String> {
    let mut parts = place.iter();
    match (parts.next()?, parts.next()) {
        (Protocol::Dnsaddr(name), None) => Some(name.into_owned()),
        _ => None,
    }
}

/// `/dns|dns4|dns6/NAME/udp/PORT/quic-v1`.
fn named_host(place: &Multiaddr) -> Option<(String, Family, u16)> {
    let mut parts = place.iter();
    let (name, family) = match parts.next()? {
        Protocol::Dns(name) => (name, Family::Any),
        Protocol::Dns4(name) => (name, Family::V4),
        Protocol::Dns6(name) => (name, Family::V6),
        _ => return None,
    };
    match (parts.next()?, parts.next()?, parts.next()) {
        (Protocol::Udp(port), Protocol::QuicV1, None) => Some((name.into_owned(), family, port)),
        _ => None,
    }
}
