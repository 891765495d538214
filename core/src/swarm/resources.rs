//! How much of everything, by scope. What is asked for is taken from every scope that it belongs to, or from none.
//!
//! | scope | holds |
//! |---|---|
//! | system | everything |
//! | transient | connections whose peer is not known yet, streams that have not agreed on a protocol |
//! | peer | its connections and their streams |
//! | connection | its streams |
//! | service | the streams of one behaviour, or of the embedder |
//! | protocol | the streams of one protocol |
//! | stream | its memory |
//! | network | inbound connections from an address, household, site or configured network, and how often they come |
//!
//! A connection over QUIC and one through a relay are the same here, but that the latter comes from no network.

mod limits;
mod places;
mod usage;

use std::{collections::BTreeMap, net::IpAddr};

use libp2p_identity::PeerId;

use self::places::Places;
pub use self::{
    limits::{Limits, NetworkLimit, ScopeLimit},
    usage::Usage,
};
use crate::{
    errors::{Exceeded, Resource, Scope},
    ids::{Arena, ConnectionShare, StreamShare},
    names::{Direction, ProtocolName},
    time::Instant,
};

/// What a connection is taken to hold besides its streams, in bytes: what QUIC keeps of one that is idle.
pub const CONNECTION_MEMORY: usize = 20 << 10;
/// What a stream is taken to hold besides its queue, in bytes.
const STREAM_MEMORY: usize = 1 << 10;

/// What is held, by whom.
#[derive(Debug, Default)]
pub struct Resources {
    limits: Limits,
    system: Usage,
    transient: Usage,
    services: BTreeMap<&'static str, Usage>,
    protocols: BTreeMap<ProtocolName, Usage>,
    peers: BTreeMap<PeerId, Usage>,
    connections: Arena<ConnectionShare, Connection>,
    streams: Arena<StreamShare, Stream>,
    places: Places,
    refusals: BTreeMap<(Scope, Resource), u64>,
}

#[derive(Debug)]
struct Connection {
    direction: Direction,
    /// Where an inbound one comes from.
    ip: Option<IpAddr>,
    /// `None`: it is transient.
    peer: Option<PeerId>,
    /// What its streams hold.
    streams: Usage,
}

impl Connection {
    /// All that it holds.
    fn usage(&self) -> Usage {
        let mut usage = Usage::connection(self.direction, CONNECTION_MEMORY);
        usage.add(&self.streams);
        usage
    }
}

#[derive(Debug)]
struct Stream {
    connection: ConnectionShare,
    direction: Direction,
    /// `None`: it is transient.
    purpose: Option<(&'static str, ProtocolName)>,
    /// Bytes, with [`STREAM_MEMORY`].
    memory: usize,
}

impl Stream {
    fn usage(&self) -> Usage {
        Usage::stream(self.direction, self.memory)
    }
}

/// Connections.
impl Resources {
    /// Nothing is held.
    pub fn new(limits: Limits) -> Self {
        Self { places: Places::new(&limits), limits, ..Self::default() }
    }

    /// How much there may be from now on. What is held stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.places.follow(&limits, self.connections.iter().filter_map(|(_, connection)| connection.ip));
        self.limits = limits;
    }

    /// Whether somebody may begin to connect from `ip`. Of an address that has not been `validated`, which anybody can put
    /// on a datagram, half of what the address may have is kept for its owner. Takes nothing, counts nothing.
    pub fn may_connect(&self, now: Instant, ip: Option<IpAddr>, validated: bool) -> Result<(), Exceeded> {
        let share = Usage::connection(Direction::Inbound, CONNECTION_MEMORY);
        self.check(Scope::Transient, &self.limits.transient, &self.transient, &share)?;
        self.check(Scope::System, &self.limits.system, &self.system, &share)?;
        ip.map_or(Ok(()), |ip| self.places.admits(&self.limits, now, ip, validated))
    }

    /// Takes the share of a connection that is being opened, inbound ones from `ip`.
    pub fn open_connection(
        &mut self,
        now: Instant,
        direction: Direction,
        ip: Option<IpAddr>,
    ) -> Result<ConnectionShare, Exceeded> {
        let share = Usage::connection(direction, CONNECTION_MEMORY);
        let ip = ip.filter(|_| direction == Direction::Inbound);
        let admitted = self
            .check(Scope::Transient, &self.limits.transient, &self.transient, &share)
            .and_then(|()| self.check(Scope::System, &self.limits.system, &self.system, &share))
            .and_then(|()| ip.map_or(Ok(()), |ip| self.places.admits(&self.limits, now, ip, true)));
        self.count(admitted)?;
        self.system.add(&share);
        self.transient.add(&share);
        if let Some(ip) = ip {
            self.places.enter(&self.limits, now, ip);
        }
        Ok(self.connections.insert(Connection { direction, ip, peer: None, streams: Usage::default() }))
    }

    /// The peer of a connection is known: it is transient no more. If the peer has too much already, it stays so.
    pub fn set_peer(&mut self, id: ConnectionShare, peer: PeerId) -> Result<(), Exceeded> {
        let Some(connection) = self.connections.get(id).filter(|c| c.peer.is_none()) else { return Ok(()) };
        let (direction, usage) = (connection.direction, connection.usage());
        let held = self.peers.get(&peer).copied().unwrap_or_default();
        let admitted = self.check(Scope::Peer, &self.limits.peer, &held, &usage);
        self.count(admitted)?;
        self.transient.sub(&Usage::connection(direction, CONNECTION_MEMORY));
        self.peers.entry(peer).or_default().add(&usage);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.peer = Some(peer);
        }
        Ok(())
    }

    /// Gives back what a connection and its streams hold. Stale ids change nothing.
    pub fn close_connection(&mut self, id: ConnectionShare) {
        let Some(connection) = self.connections.remove(id) else { return };
        let usage = connection.usage();
        self.system.sub(&usage);
        match &connection.peer {
            Some(peer) => take_off(&mut self.peers, peer, &usage),
            None => self.transient.sub(&Usage::connection(connection.direction, CONNECTION_MEMORY)),
        }
        if let Some(ip) = connection.ip {
            self.places.leave(ip);
        }
    }
}

/// Streams.
impl Resources {
    /// Takes the share of a stream that has not agreed on a protocol. Of a connection that is gone there are none.
    pub fn open_stream(
        &mut self,
        connection: ConnectionShare,
        direction: Direction,
    ) -> Result<StreamShare, Exceeded> {
        let share = Usage::stream(direction, STREAM_MEMORY);
        let admitted = self
            .check(Scope::Transient, &self.limits.transient, &self.transient, &share)
            .and_then(|()| self.check(Scope::Stream, &self.limits.stream, &Usage::default(), &share))
            .and_then(|()| self.check_shared(connection, &share));
        self.count(admitted)?;
        self.transient.add(&share);
        self.add_shared(connection, &share);
        Ok(self.streams.insert(Stream { connection, direction, purpose: None, memory: STREAM_MEMORY }))
    }

    /// A stream has agreed on a protocol, which `service` speaks: it is transient no more. If there are too many already,
    /// it stays so.
    pub fn set_protocol(
        &mut self,
        id: StreamShare,
        service: &'static str,
        protocol: &ProtocolName,
    ) -> Result<(), Exceeded> {
        let Some(stream) = self.streams.get(id).filter(|s| s.purpose.is_none()) else { return Ok(()) };
        let usage = stream.usage();
        let of_service = self.services.get(service).copied().unwrap_or_default();
        let of_protocol = self.protocols.get(protocol).copied().unwrap_or_default();
        let admitted = self
            .check(Scope::Service, &self.limits.service, &of_service, &usage)
            .and_then(|()| self.check(Scope::Protocol, &self.limits.protocol, &of_protocol, &usage));
        self.count(admitted)?;
        self.transient.sub(&usage);
        self.services.entry(service).or_default().add(&usage);
        self.protocols.entry(protocol.clone()).or_default().add(&usage);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.purpose = Some((service, protocol.clone()));
        }
        Ok(())
    }

    /// A stream turns out to speak another protocol of the same service.
    ///
    /// # Errors
    /// If there are too many of that protocol; nothing has changed then.
    pub fn change_protocol(&mut self, id: StreamShare, protocol: &ProtocolName) -> Result<(), Exceeded> {
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        let Some((service, before)) = stream.purpose.clone().filter(|(_, before)| before != protocol) else {
            return Ok(());
        };
        let usage = stream.usage();
        let of_protocol = self.protocols.get(protocol).copied().unwrap_or_default();
        let admitted = self.check(Scope::Protocol, &self.limits.protocol, &of_protocol, &usage);
        self.count(admitted)?;
        self.protocols.entry(before.clone()).or_default().sub(&usage);
        forget_empty(&mut self.protocols, &before);
        self.protocols.entry(protocol.clone()).or_default().add(&usage);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.purpose = Some((service, protocol.clone()));
        }
        Ok(())
    }

    /// Sets how many bytes a stream has queued. Less is always possible.
    pub fn set_queued(&mut self, id: StreamShare, bytes: usize) -> Result<(), Exceeded> {
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        let (before, memory) = (stream.memory, bytes.saturating_add(STREAM_MEMORY));
        if memory < before {
            self.with_scopes_of(id, &Usage::memory(before - memory), Usage::sub);
        } else if memory > before {
            let more = Usage::memory(memory - before);
            let admitted = self.check_memory(id, &more);
            self.count(admitted)?;
            self.with_scopes_of(id, &more, Usage::add);
        }
        if let Some(stream) = self.streams.get_mut(id) {
            stream.memory = memory;
        }
        Ok(())
    }

    /// Gives back what a stream holds. Stale ids change nothing.
    pub fn close_stream(&mut self, id: StreamShare) {
        let Some(stream) = self.streams.get(id) else { return };
        let usage = stream.usage();
        self.with_scopes_of(id, &usage, Usage::sub);
        let stream = self.streams.remove(id);
        if let Some((service, protocol)) = stream.and_then(|stream| stream.purpose) {
            forget_empty(&mut self.services, &service);
            forget_empty(&mut self.protocols, &protocol);
        }
    }

    fn check_memory(&self, id: StreamShare, more: &Usage) -> Result<(), Exceeded> {
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        self.check(Scope::Stream, &self.limits.stream, &stream.usage(), more)?;
        match &stream.purpose {
            Some((service, protocol)) => {
                let of_service = self.services.get(service).copied().unwrap_or_default();
                self.check(Scope::Service, &self.limits.service, &of_service, more)?;
                let of_protocol = self.protocols.get(protocol).copied().unwrap_or_default();
                self.check(Scope::Protocol, &self.limits.protocol, &of_protocol, more)?;
            }
            None => self.check(Scope::Transient, &self.limits.transient, &self.transient, more)?,
        }
        self.check_shared(stream.connection, more)
    }

    /// Changes all scopes that a stream belongs to.
    fn with_scopes_of(&mut self, id: StreamShare, change: &Usage, apply: fn(&mut Usage, &Usage)) {
        let Some(stream) = self.streams.get(id) else { return };
        match &stream.purpose {
            Some((service, protocol)) => {
                if let Some(usage) = self.services.get_mut(service) {
                    apply(usage, change);
                }
                if let Some(usage) = self.protocols.get_mut(protocol) {
                    apply(usage, change);
                }
            }
            None => apply(&mut self.transient, change),
        }
        // What a connection that is gone held was given back with it.
        let Some(connection) = self.connections.get_mut(stream.connection) else { return };
        apply(&mut connection.streams, change);
        apply(&mut self.system, change);
        if let Some(usage) = connection.peer.and_then(|peer| self.peers.get_mut(&peer)) {
            apply(usage, change);
        }
    }
}

/// The scopes that all streams of a connection share, and the counting.
impl Resources {
    fn check_shared(&self, id: ConnectionShare, more: &Usage) -> Result<(), Exceeded> {
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        self.check(Scope::Connection, &self.limits.connection, &connection.streams, more)?;
        if let Some(held) = connection.peer.and_then(|peer| self.peers.get(&peer)) {
            self.check(Scope::Peer, &self.limits.peer, held, more)?;
        }
        self.check(Scope::System, &self.limits.system, &self.system, more)
    }

    fn add_shared(&mut self, id: ConnectionShare, more: &Usage) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.streams.add(more);
        self.system.add(more);
        if let Some(usage) = connection.peer.and_then(|peer| self.peers.get_mut(&peer)) {
            usage.add(more);
        }
    }

    fn check(&self, scope: Scope, limit: &ScopeLimit, held: &Usage, more: &Usage) -> Result<(), Exceeded> {
        limit.admits(held, more).map_err(|resource| Exceeded { scope, resource })
    }

    fn count(&mut self, result: Result<(), Exceeded>) -> Result<(), Exceeded> {
        result.inspect_err(|exceeded| self.refuse(*exceeded))
    }

    /// Counts what was refused after [`Resources::may_connect`].
    pub(crate) fn refuse(&mut self, Exceeded { scope, resource }: Exceeded) {
        *self.refusals.entry((scope, resource)).or_default() += 1;
    }
}

/// Looking at it.
impl Resources {
    /// What may be held.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Everything that is held.
    pub fn system(&self) -> Usage {
        self.system
    }

    /// What is not anybody's yet.
    pub fn transient(&self) -> Usage {
        self.transient
    }

    /// What a peer holds.
    pub fn peer(&self, peer: &PeerId) -> Usage {
        self.peers.get(peer).copied().unwrap_or_default()
    }

    /// What a behaviour, or the embedder as [`EMBEDDER`], holds.
    pub fn service(&self, name: &str) -> Usage {
        self.services.get(name).copied().unwrap_or_default()
    }

    /// What the streams of a protocol hold.
    pub fn protocol(&self, name: &str) -> Usage {
        self.protocols.get(name).copied().unwrap_or_default()
    }

    /// What all services hold, those that hold nothing left out.
    pub fn services(&self) -> impl Iterator<Item = (&'static str, Usage)> + '_ {
        self.services.iter().map(|(name, usage)| (*name, *usage))
    }

    /// What the streams of all protocols hold, those that hold nothing left out.
    pub fn protocols(&self) -> impl Iterator<Item = (&ProtocolName, Usage)> + '_ {
        self.protocols.iter().map(|(name, usage)| (name, *usage))
    }

    /// What all peers hold, those that hold nothing left out.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, Usage)> + '_ {
        self.peers.iter().map(|(peer, usage)| (peer, *usage))
    }

    /// What the streams of each connection hold, and its peer, if that is known yet.
    pub fn connections(&self) -> impl Iterator<Item = (Option<&PeerId>, Usage)> + '_ {
        self.connections.iter().map(|(_, connection)| (connection.peer.as_ref(), connection.streams))
    }

    /// What each stream holds.
    pub fn streams(&self) -> impl Iterator<Item = Usage> + '_ {
        self.streams.iter().map(|(_, stream)| stream.usage())
    }

    /// Inbound connections from the place that limits those from `ip`: its address or /64, or a configured network.
    pub fn inbound_from(&self, ip: IpAddr) -> usize {
        self.places.count(ip)
    }

    /// How often what was asked for was refused: by which scope, for which resource.
    pub fn refusals(&self) -> impl Iterator<Item = (Scope, Resource, u64)> + '_ {
        self.refusals.iter().map(|((scope, resource), count)| (*scope, *resource, *count))
    }

    /// Whether nothing is held, by nobody. Rates are remembered for a while.
    pub fn is_empty(&self) -> bool {
        self.system.is_zero()
            && self.transient.is_zero()
            && self.services.is_empty()
            && self.protocols.is_empty()
            && self.peers.is_empty()
            && self.connections.is_empty()
            && self.streams.is_empty()
            && self.places.is_empty()
    }
}

/// The service that the embedder's own protocols belong to.
pub const EMBEDDER: &str = "embedder";

fn take_off<K: Ord>(usages: &mut BTreeMap<K, Usage>, key: &K, less: &Usage) {
    if let Some(usage) = usages.get_mut(key) {
        usage.sub(less);
    }
    forget_empty(usages, key);
}

fn forget_empty<K: Ord>(usages: &mut BTreeMap<K, Usage>, key: &K) {
    if usages.get(key).is_some_and(Usage::is_zero) {
        usages.remove(key);
    }
}

#[cfg(test)]
mod tests;
