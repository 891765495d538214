//! What we say of ourselves: to each peer what it can use from where it is, signed anew only when that changes, and not more
//! often than we push.

use std::time::Duration;

use bytes::Bytes;
use multiaddr::Multiaddr;
use peerless_proto::{
    address::MAX_ADDR_LEN,
    keys,
    pb::{Message as _, identify::Identify as Message},
    peer_record::{Dialect, PeerRecord},
};

use super::{
    Config,
    message::{MAX_ADDRESSES, MAX_PROTOCOLS, clip},
};
use crate::{
    behaviour::{Context, View},
    names::ProtocolName,
    swarm::{addresses::Audience, table::ConnectionInfo},
    time::{Instant, UnixTime},
};

/// The longest message sent, in bytes: some peers accept no more, and no second one.
const MAX_SENT: usize = 4096;

/// Left free in what is sent for the observed address, which differs by connection.
const OBSERVED_ROOM: usize = 128;

/// Least that the fields around an address take, in the list and in the signed record together.
const ADDRESS_FRAMING: usize = 6;

/// How long what somebody was told stays as it is; later changes are collected (go-libp2p looks at its addresses every 5 s).
/// That is 12 pushes a minute, of which we and others accept 30.
const PAUSE: Duration = Duration::from_secs(5);

/// What we say, for each audience.
#[derive(Debug, Default)]
pub(super) struct Ours {
    /// Counts the changes; zero before the first.
    version: u64,
    revision: u64,
    protocols: Vec<ProtocolName>,
    faces: [Face; Audience::ALL.len()],
    seq: u64,
    /// When it changed, but for the first time.
    changed: Option<Instant>,
    /// Whether anybody was told since.
    is_told: bool,
}

/// What we say to one audience.
#[derive(Debug, Default)]
struct Face {
    /// The version in which it changed.
    version: u64,
    addresses: Vec<Multiaddr>,
    seq: u64,
    /// Made when somebody is to be told.
    message: Option<Message>,
}

impl Ours {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// For whom the message is that the remote of a connection gets, and in which version it changed last.
    pub(super) fn told_to(&self, connection: &ConnectionInfo) -> (Audience, u64) {
        let audience = Audience::at(&connection.remote);
        (audience, self.faces[audience as usize].version)
    }

    /// Takes over what has changed; or, if somebody was told a moment ago, returns when to do so.
    pub(super) fn refresh(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let view = cx.view();
        let is_first = self.version == 0;
        let speaks_other = is_first || self.protocols != view.protocols;
        if !speaks_other && self.revision == view.addresses.revision() {
            return None;
        }
        let addresses = Audience::ALL.map(|audience| view.addresses.told_to(audience));
        let is_same =
            !speaks_other && self.faces.iter().zip(&addresses).all(|(face, new)| face.addresses == *new);
        let settles = self.changed.map(|at| at + PAUSE).filter(|at| self.is_told && *at > cx.now());
        if !is_same && settles.is_some() {
            return settles;
        }
        self.revision = view.addresses.revision();
        if is_same {
            return None;
        }
        self.protocols = view.protocols.to_vec();
        self.version += 1;
        (self.changed, self.is_told) = ((!is_first).then_some(cx.now()), false);
        // Whoever is told more, because it is nearer, holds the newer record.
        self.seq = nanos(cx.unix()).max(self.seq.saturating_add(Audience::ALL.len() as u64));
        for (n, (face, addresses)) in self.faces.iter_mut().zip(addresses).enumerate() {
            if speaks_other || face.addresses != addresses {
                let seq = self.seq.saturating_add(n as u64);
                *face = Face { version: self.version, addresses, seq, message: None };
            }
        }
        None
    }

    /// The message for the remote of one connection, and what it is told by that. Where a relay sees us is nobody's
    /// business but the relay's.
    pub(super) fn message_for(
        &mut self,
        cx: &mut Context<'_>,
        config: &Config,
        connection: &ConnectionInfo,
    ) -> (Bytes, (Audience, u64)) {
        let (audience, version) = self.told_to(connection);
        self.is_told = true;
        let (face, protocols) = (&mut self.faces[audience as usize], &self.protocols);
        let message = face.message.take().unwrap_or_else(|| {
            let message = face.compose(cx.view(), config, protocols);
            if message.signed_peer_record.is_none() {
                cx.count("identify.record.unsigned");
            }
            message
        });
        let direct = connection.relayed.is_none() && connection.remote.len() < OBSERVED_ROOM;
        let observed_addr = direct.then(|| connection.remote.to_vec());
        let bytes = Message { observed_addr, ..message.clone() }.encode_to_vec().into();
        face.message = Some(message);
        (bytes, (audience, version))
    }
}

impl Face {
    /// As much as fits: the last addresses are the first to go (see [`Addresses::told_to`]), the signed record only if it
    /// leaves no room at all.
    ///
    /// [`Addresses::told_to`]: crate::swarm::addresses::Addresses::told_to
    fn compose(&self, view: View<'_>, config: &Config, protocols: &[ProtocolName]) -> Message {
        let mut message = Message {
            public_key: Some(keys::encode_public_key(&view.identity.public())),
            protocol_version: Some(clip(&config.protocol_version)),
            agent_version: Some(clip(&config.agent)),
            ..Message::default()
        };
        let mut room = MAX_SENT / 2;
        for protocol in protocols.iter().take(MAX_PROTOCOLS) {
            let Some(rest) = room.checked_sub(protocol.as_str().len() + 3) else { break };
            room = rest;
            message.protocols.push(protocol.as_str().into());
        }
        let mut addresses: Vec<_> =
            self.addresses.iter().filter(|a| a.len() <= MAX_ADDR_LEN).take(MAX_ADDRESSES).cloned().collect();
        loop {
            message.listen_addrs = addresses.iter().map(Multiaddr::to_vec).collect();
            message.signed_peer_record = self.signed(view, &addresses);
            let mut excess = (message.encoded_len() + OBSERVED_ROOM).saturating_sub(MAX_SENT);
            if excess == 0 {
                return message;
            }
            if addresses.is_empty() {
                return Message { signed_peer_record: None, ..message };
            }
            while let (1.., Some(dropped)) = (excess, addresses.pop()) {
                excess = excess.saturating_sub(2 * dropped.len() + ADDRESS_FRAMING);
            }
        }
    }

    fn signed(&self, view: View<'_>, addresses: &[Multiaddr]) -> Option<Vec<u8>> {
        let record = PeerRecord { peer: view.local_peer(), seq: self.seq, addresses: addresses.to_vec() };
        Some(record.seal(view.identity.keypair(), Dialect::Standard).ok()?.encode())
    }
}

fn nanos(unix: UnixTime) -> u64 {
    u64::try_from(unix.since_epoch().as_nanos()).unwrap_or(u64::MAX)
}
