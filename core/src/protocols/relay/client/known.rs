//! What is known of relays, and of who is reached through which: learnt from identify, named by the embedder, or in the
//! peerstore.

use std::{collections::BTreeMap, iter, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address::{self, CircuitAddr};

use super::super::{direct_connection, score::Scores};
use crate::{behaviour::View, info::Info, names::Direction, swarm::table::ConnectionInfo, time::Instant};

/// Most relays remembered, and for how long after they were last connected.
pub(super) const MAX_CANDIDATES: usize = 256;
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// Most relays known when more of the peerstore's are taken in.
const MAX_RECALLED: usize = 32;

/// Most further addresses of a relay that the embedder named.
const MAX_OTHERS: usize = 7;

/// Most peers of which circuit addresses are remembered, and most such addresses of one peer.
const MAX_TARGETS: usize = 256;
const MAX_CIRCUITS: usize = 8;

/// How often a round-trip time that has not changed counts as measured again.
const RTT_INTERVAL: Duration = Duration::from_secs(15);

/// A relay that may be used.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// With its `/p2p`.
    pub(super) address: Multiaddr,
    /// Where else the embedder says that it is.
    others: Vec<Multiaddr>,
    /// The embedder named it; it is never forgotten.
    pub(super) is_configured: bool,
    /// Not asked for a reservation by ourselves before.
    pub(super) not_before: Instant,
    /// Reservations in a row that failed.
    pub(super) failures: u32,
    last_seen: Instant,
    /// The latest round-trip time taken over into the scores, and when.
    rtt: Option<(Duration, Instant)>,
}

impl Candidate {
    /// All its addresses, the best first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Multiaddr> {
        iter::once(&self.address).chain(&self.others)
    }
}

/// Relays, and targets behind relays.
#[derive(Debug, Default)]
pub(super) struct Known {
    relays: BTreeMap<PeerId, Candidate>,
    targets: BTreeMap<PeerId, (Instant, Vec<CircuitAddr>)>,
}

impl Known {
    pub(super) fn relays(&self) -> impl Iterator<Item = (PeerId, &Candidate)> {
        self.relays.iter().map(|(relay, candidate)| (*relay, candidate))
    }

    pub(super) fn get(&self, relay: &PeerId) -> Option<&Candidate> {
        self.relays.get(relay)
    }

    pub(super) fn get_mut(&mut self, relay: &PeerId) -> Option<&mut Candidate> {
        self.relays.get_mut(relay)
    }

    /// The circuits that lead to `target`, as it told us last, or else as the peerstore has heard.
    pub(super) fn circuits_to(&self, view: View<'_>, target: &PeerId, now: Instant) -> Vec<CircuitAddr> {
        match self.targets.get(target) {
            Some((_, circuits)) => circuits.clone(),
            None => {
                let known = view.peerstore.addresses(now, target);
                good_circuits(*target, known.iter().map(|known| &known.address))
            }
        }
    }

    /// The embedder names a relay, perhaps by one address of several.
    pub(super) fn configure(&mut self, view: View<'_>, relay: PeerId, address: &Multiaddr, now: Instant) {
        let Some(candidate) = self.add(view, relay, address.clone(), now) else { return };
        if !std::mem::replace(&mut candidate.is_configured, true) {
            candidate.address = address.clone();
        } else if candidate.others.len() < MAX_OTHERS && !candidate.addresses().any(|known| known == address)
        {
            candidate.others.push(address.clone());
        }
    }

    /// Relays that the peerstore knows, if few others are known.
    fn recall(&mut self, view: View<'_>, now: Instant) {
        let (us, free) = (view.local_peer(), MAX_RECALLED.saturating_sub(self.relays.len()));
        let new = view.peerstore.relays().filter(|relay| *relay != us && !self.relays.contains_key(relay));
        let found = new.take(MAX_CANDIDATES).filter_map(|relay| {
            let known = view.peerstore.addresses(now, &relay);
            let place = known.into_iter().find(|known| !address::is_circuit(&known.address))?;
            Some((relay, address::with_peer(place.address.clone(), relay).ok()?))
        });
        for (relay, address) in found.take(free).collect::<Vec<_>>() {
            self.add(view, relay, address, now);
        }
    }

    /// A peer told what it is. A relay is remembered if the connection is direct, and forgotten if it is none any more.
    pub(super) fn identified(
        &mut self,
        view: View<'_>,
        connection: &ConnectionInfo,
        info: &Info,
        now: Instant,
    ) {
        let relay = connection.peer;
        self.learn_circuits(relay, &info.listen_addresses, now);
        if connection.relayed.is_some() {
            return;
        }
        if !info.protocols.contains(&super::HOP) {
            if self.relays.get(&relay).is_some_and(|candidate| !candidate.is_configured) {
                self.relays.remove(&relay);
            }
            return;
        }
        let Some(candidate) = self.add(view, relay, Multiaddr::empty(), now) else { return };
        if !candidate.is_configured
            && let Ok(address) = address::with_peer(place_of(connection, &info.listen_addresses), relay)
        {
            candidate.address = address;
        }
        candidate.last_seen = now;
    }

    /// Pauses after failures are over.
    pub(super) fn network_is_back(&mut self, now: Instant) {
        for candidate in self.relays.values_mut().filter(|candidate| candidate.failures > 0) {
            candidate.failures = 0;
            candidate.not_before = candidate.not_before.min(now);
        }
    }

    /// A direct connection has ended.
    pub(super) fn disconnected(&mut self, relay: &PeerId, now: Instant) {
        if let Some(candidate) = self.relays.get_mut(relay) {
            candidate.last_seen = now;
        }
    }

    /// Takes the round-trip times of connected relays over into `scores`, takes in relays of the peerstore, and forgets those
    /// not seen for long.
    pub(super) fn refresh(&mut self, view: View<'_>, scores: &mut Scores, now: Instant) {
        self.recall(view, now);
        for (relay, candidate) in &mut self.relays {
            let Some(info) = direct_connection(view, relay).and_then(|id| view.connections.get(id)) else {
                continue;
            };
            candidate.last_seen = now;
            let Some(rtt) = info.rtt else { continue };
            let is_old = candidate
                .rtt
                .is_some_and(|(last, at)| last == rtt && now.saturating_duration_since(at) < RTT_INTERVAL);
            if !is_old {
                candidate.rtt = Some((rtt, now));
                scores.record_latency(*relay, rtt, now);
            }
        }
        self.relays.retain(|_, candidate| {
            candidate.is_configured || now.saturating_duration_since(candidate.last_seen) < MAX_AGE
        });
    }

    /// The entry of a relay; `None` if there is no room. Relays that are configured or connected make none.
    fn add(
        &mut self,
        view: View<'_>,
        relay: PeerId,
        address: Multiaddr,
        now: Instant,
    ) -> Option<&mut Candidate> {
        if !self.relays.contains_key(&relay) && self.relays.len() >= MAX_CANDIDATES {
            let found = self.relays.iter().filter(|(relay, candidate)| {
                !candidate.is_configured && direct_connection(view, relay).is_none()
            });
            let oldest = found.min_by_key(|(_, candidate)| candidate.last_seen).map(|(relay, _)| *relay)?;
            self.relays.remove(&oldest);
        }
        Some(self.relays.entry(relay).or_insert_with(|| Candidate {
            address,
            others: Vec::new(),
            is_configured: false,
            not_before: now,
            failures: 0,
            last_seen: now,
            rtt: None,
        }))
    }

    fn learn_circuits(&mut self, target: PeerId, addresses: &[Multiaddr], now: Instant) {
        let circuits = good_circuits(target, addresses.iter());
        if circuits.is_empty() {
            self.targets.remove(&target);
            return;
        }
        if !self.targets.contains_key(&target) && self.targets.len() >= MAX_TARGETS {
            let oldest = self.targets.iter().min_by_key(|(_, (at, _))| *at).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.targets.remove(&oldest));
        }
        self.targets.insert(target, (now, circuits));
    }
}

/// Those of the addresses that are circuits to `target` through relays that say where they are.
fn good_circuits<'a>(target: PeerId, addresses: impl Iterator<Item = &'a Multiaddr>) -> Vec<CircuitAddr> {
    let circuits = addresses.filter_map(|address| CircuitAddr::parse(address).ok());
    let good = circuits.filter(|c| !c.relay_addr.is_empty() && c.target.is_none_or(|t| t == target));
    good.take(MAX_CIRCUITS).collect()
}

/// Where a relay that is connected can be dialled: where we reached it, or where it says that it listens on that host.
fn place_of(connection: &ConnectionInfo, listening: &[Multiaddr]) -> Multiaddr {
    if connection.direction == Direction::Outbound {
        return connection.remote.clone();
    }
    let host = address::ip_of(&connection.remote);
    let same_host =
        |place: &&Multiaddr| address::parse_quic_v1(place).is_ok_and(|(at, _)| Some(at.ip()) == host);
    listening.iter().find(same_host).unwrap_or(&connection.remote).clone()
}
