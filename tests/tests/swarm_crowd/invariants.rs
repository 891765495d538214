//! What holds of every node of a crowd after each of its steps, whatever has happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use peerless_core::{
    PeerId,
    errors::CloseReason,
    ids::ConnectionId,
    names::Direction,
    network::Network,
    node::{Event, Node},
    swarm::{
        resources::{CONNECTION_MEMORY, Limits, ScopeLimit, Usage},
        table::ConnectionInfo,
    },
    time::Instant,
};
use peerless_proto::address;
use peerless_tests::{
    host::HostId,
    world::{World, secs},
};

use super::{DIALS, GRACE, HIGH_WATER, LOW_WATER, SILENCE, WAITING_DIALS};

/// How close together two connections are made that were meant to be one.
const SAME_MOMENT: Duration = secs(10);
/// How long the superfluous one is kept: the least, and the most after a stream has ended on it.
const LINGER: (Duration, Duration) = (secs(1), secs(64));
/// How long one end may hold a connection that the other does not: while that takes its handshake for under way, until the
/// first asks for a sign of life, the idle timeout after that, and some round trips.
const LOST: Duration = secs(10 + 15 + 30 + 2);

/// The invariants, and what must be remembered to check them.
pub(crate) struct Invariants {
    limits: Limits,
    hosts: BTreeMap<PeerId, HostId>,
    /// Everybody denies these: one that never says anything, and one that calls everybody.
    mute: HostId,
    outcast: HostId,
    nodes: BTreeMap<HostId, Known>,
    /// Whom nodes have denied since they started.
    pub(crate) denials: BTreeMap<HostId, BTreeSet<PeerId>>,
    /// Nodes are shutting down, and prune no more.
    pub(crate) is_over: bool,
    pub(crate) tally: Tally,
}

/// How much has been checked, and how near to the bounds it came.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) events: u64,
    pub(crate) pruned: u64,
    pub(crate) duplicates: u64,
    /// Longest that two nodes both had two connections between them.
    pub(crate) longest_pair: Duration,
    /// Longest that a node had two connections to one peer.
    pub(crate) longest_double: Duration,
    /// Longest that one end held a connection that the other did not.
    pub(crate) longest_lost: Duration,
}

/// What is remembered of one run of a node.
#[derive(Default)]
struct Known {
    starts: u32,
    /// Events of its log that have been looked at.
    read: usize,
    connections: BTreeMap<ConnectionId, Connection>,
    pruned: Option<Instant>,
    /// Since when it has had several connections to a peer.
    doubles: BTreeMap<PeerId, Instant>,
    /// The same, of those that the other end holds as well.
    pairs: BTreeMap<PeerId, Instant>,
}

struct Connection {
    peer: PeerId,
    direction: Direction,
    since: Instant,
    superseded: Option<Instant>,
    /// Since when it has carried no stream.
    unused: Option<Instant>,
    /// Since when the other end has not had it.
    lost: Option<Instant>,
}

impl Invariants {
    pub(crate) fn new(limits: Limits, w: &World, crowd: &[HostId], mute: HostId, outcast: HostId) -> Self {
        Self {
            limits,
            hosts: crowd.iter().map(|host| (w[*host].peer(), *host)).collect(),
            mute,
            outcast,
            nodes: BTreeMap::new(),
            denials: BTreeMap::new(),
            is_over: false,
            tally: Tally::default(),
        }
    }

    /// Checks all of them after a step of a host.
    pub(crate) fn check(&mut self, w: &World, host: HostId) {
        assert_ne!(host, self.mute, "somebody has sent to an address that is denied");
        // Refusals are small, and none is without its dial.
        let outcast = w.node(self.outcast);
        let told = outcast.stats().quic;
        assert!(outcast.connections().is_empty(), "somebody has let in an address that is denied");
        let is_small = told.datagrams_in <= told.datagrams_out && told.bytes_in * 4 <= told.bytes_out;
        assert!(is_small, "an address that is denied is told too much: {told:?}");
        if host == self.outcast {
            return;
        }
        self.tally.steps += 1;
        let known = self.nodes.entry(host).or_default();
        if known.starts != w[host].starts() {
            *known = Known { starts: w[host].starts(), ..Known::default() };
        }
        let mut step = Step { w, host, node: w.node(host), known, tally: &mut self.tally };
        let has_pruned = step.take_events();
        step.within_limits(&self.limits);
        step.adds_up();
        step.few_from_one_place(&self.limits);
        step.few_dials();
        step.twins_are_settled();
        step.one_per_peer();
        step.both_ends_agree(&self.hosts);
        if !self.is_over {
            step.below_high_water(has_pruned);
        }
        for peer in self.denials.get(&host).into_iter().flatten() {
            assert!(w.node(host).connections().of(peer).is_empty(), "{} denies {peer}", w[host].name());
        }
    }
}

/// A node after a step.
struct Step<'a> {
    w: &'a World,
    host: HostId,
    node: &'a Node,
    known: &'a mut Known,
    tally: &'a mut Tally,
}

impl Step<'_> {
    fn name(&self) -> &str {
        self.w[self.host].name()
    }

    /// What it has told: who came, and why whoever went had to go. Returns whether it has pruned.
    fn take_events(&mut self) -> bool {
        let now = self.w.now();
        let w = self.w;
        let before = self.known.pruned;
        // A peer is pruned as a whole: what counts is its oldest connection, even when that is gone already.
        let mut firsts = BTreeMap::new();
        for (_, event) in &w[self.host].log()[self.known.read..] {
            self.tally.events += 1;
            match event {
                Event::Connected { connection, peer, direction, .. } => {
                    let (peer, direction) = (*peer, *direction);
                    let known = Connection {
                        peer,
                        direction,
                        since: now,
                        superseded: None,
                        unused: None,
                        lost: None,
                    };
                    self.known.connections.insert(*connection, known);
                }
                Event::Disconnected { connection, peer, reason } => {
                    let first = self.known.first(peer).expect("it was connected");
                    let since = *firsts.entry(*peer).or_insert(first);
                    let gone = self.known.connections.remove(connection).expect("it was connected");
                    match reason {
                        CloseReason::Pruned => self.may_prune(before, peer, since),
                        CloseReason::Duplicate => self.may_give_up(&gone),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.known.read = w[self.host].log().len();
        let table = self.node.connections();
        assert_eq!(self.known.connections.len(), table.len(), "{} tells who is connected", self.name());
        for info in table.iter() {
            let known = self.known.connections.get_mut(&info.id).expect("whoever is connected was told of");
            known.superseded = info.is_superseded.then(|| known.superseded.unwrap_or(now));
            let is_unused = self.node.streams_on(info.id) == 0;
            known.unused = is_unused.then(|| known.unused.unwrap_or(now));
        }
        self.known.pruned == Some(now) && before != Some(now)
    }

    /// Nobody is pruned who is protected, or new, or right after others were.
    fn may_prune(&mut self, last: Option<Instant>, peer: &PeerId, since: Instant) {
        let (name, now) = (self.name(), self.w.now());
        assert!(!self.node.swarm().tags().is_protected(peer), "{name} has pruned a protected peer");
        assert!(now >= since + GRACE, "{name} has pruned a peer that came at {since}");
        assert!(last.is_none_or(|last| now >= last + SILENCE || now == last), "{name} has no rest");
        self.known.pruned = Some(now);
        self.tally.pruned += 1;
    }

    /// A superfluous connection is closed by whoever dialled it, and that is not the smaller PeerId; the other is there.
    fn may_give_up(&mut self, gone: &Connection) {
        let name = self.name();
        assert_eq!(gone.direction, Direction::Outbound, "{name} has closed what the other end dialled");
        assert!(self.node.local_peer() > gone.peer, "{name} dialled the one to be kept");
        let others = self.known.connections.values();
        let mut kept = others.filter(|c| c.peer == gone.peer && c.direction == Direction::Inbound);
        assert!(kept.any(|c| c.superseded.is_none()), "{name} has closed the only one");
        self.tally.duplicates += 1;
    }

    /// No scope holds more than it may.
    fn within_limits(&self, limits: &Limits) {
        let held = self.node.swarm().resources();
        self.within("system", &limits.system, &held.system());
        self.within("transient", &limits.transient, &held.transient());
        held.services().for_each(|(_, held)| self.within("service", &limits.service, &held));
        held.protocols().for_each(|(_, held)| self.within("protocol", &limits.protocol, &held));
        held.peers().for_each(|(_, held)| self.within("peer", &limits.peer, &held));
        held.connections().for_each(|(_, held)| self.within("connection", &limits.connection, &held));
        held.streams().for_each(|held| self.within("stream", &limits.stream, &held));
    }

    fn within(&self, scope: &str, limit: &ScopeLimit, held: &Usage) {
        let is_within = connections(held) <= limit.connections
            && held.inbound_connections <= limit.inbound_connections
            && held.outbound_connections <= limit.outbound_connections
            && streams(held) <= limit.streams
            && held.inbound_streams <= limit.inbound_streams
            && held.outbound_streams <= limit.outbound_streams
            && held.memory <= limit.memory;
        assert!(is_within, "{}: the {scope} holds {held:?}", self.name());
    }

    /// What the scopes hold is what the node has, and the same whichever way it is divided.
    fn adds_up(&self) {
        let (name, node, held) = (self.name(), self.node, self.node.swarm().resources());
        let (system, transient) = (held.system(), held.transient());
        let (mut of_streams, mut of_services, mut of_protocols) = <(Usage, Usage, Usage)>::default();
        held.streams().for_each(|more| add(&mut of_streams, &more));
        held.services().for_each(|(_, more)| add(&mut of_services, &more));
        held.protocols().for_each(|(_, more)| add(&mut of_protocols, &more));
        let without_connections = |usage: &Usage| Usage {
            inbound_connections: 0,
            outbound_connections: 0,
            memory: usage.memory - connections(usage) * CONNECTION_MEMORY,
            ..*usage
        };
        assert_eq!(of_streams, without_connections(&system), "{name}: the streams are those of the system");
        assert_eq!(of_services, of_protocols, "{name}: each stream has a service and a protocol, or neither");
        add(&mut of_services, &without_connections(&transient));
        assert_eq!(of_services, of_streams, "{name}: the others are transient");
        let stats = node.stats();
        assert_eq!(streams(&system), stats.streams, "{name}: every stream has a share");
        let opening = (transient.inbound_connections, transient.outbound_connections);
        assert_eq!(opening, (stats.quic.half_open, stats.quic.dialing), "{name}: handshakes");
        assert_eq!(connections(&system), stats.connections + opening.0 + opening.1, "{name}: connections");
        assert_eq!(held.peers().count(), node.connections().peers(), "{name}: peers");
        for (peer, usage) in held.peers() {
            let infos = || self.to(peer);
            let inbound = infos().filter(|info| info.direction == Direction::Inbound).count();
            let carried: usize = infos().map(|info| node.streams_on(info.id)).sum();
            assert_eq!(usage.inbound_connections, inbound, "{name}: connections from {peer}");
            assert_eq!(usage.outbound_connections, infos().count() - inbound, "{name}: those to {peer}");
            assert_eq!(streams(&usage), carried, "{name}: streams with {peer}");
        }
    }

    /// Not too many have come from one address, household or site.
    fn few_from_one_place(&self, limits: &Limits) {
        let mut counts: BTreeMap<(u8, Network), usize> = BTreeMap::new();
        let inbound = self.node.connections().iter().filter(|info| info.direction == Direction::Inbound);
        for ip in inbound.filter_map(|info| address::ip_of(&info.remote)) {
            let lengths: &[u8] = if ip.is_ipv4() { &[32] } else { &[64, 56, 48] };
            for length in lengths {
                let network = Network::new(ip, *length).expect("not longer than an address");
                *counts.entry((*length, network)).or_default() += 1;
            }
        }
        for ((length, network), count) in counts {
            let most = match length {
                48 => limits.per_v6_48,
                56 => limits.per_v6_56,
                _ => limits.per_ip,
            };
            assert!(count <= most, "{}: {count} connections from {network}", self.name());
        }
    }

    fn few_dials(&self) {
        let stats = self.node.stats();
        let is_few = stats.dials_running <= DIALS && stats.dials_waiting <= WAITING_DIALS;
        assert!(is_few, "{} dials too much: {stats:?}", self.name());
    }

    /// Of two connections that were meant to be one, the same is kept on both sides, by a rule that needs no word; the
    /// other is given up by whoever dialled it soon after its last stream has ended.
    fn twins_are_settled(&self) {
        let (name, now) = (self.name(), self.w.now());
        for (id, known) in self.known.connections.iter() {
            let is_kept = (known.direction == Direction::Outbound) == (self.node.local_peer() < known.peer);
            let has_twin = self.doubled().any(|other| {
                let apart =
                    known.since.max(other.since).saturating_duration_since(known.since.min(other.since));
                other.peer == known.peer && other.direction != known.direction && apart <= SAME_MOMENT
            });
            assert!(known.superseded.is_none() || !is_kept, "{name} gives up the wrong one, {id}");
            let is_last = !self.to(&known.peer).any(|info| !info.is_superseded);
            assert!(known.superseded.is_none() || !is_last, "{name} gives up the last one, {id}");
            assert!(known.superseded.is_some() || is_kept || !has_twin, "{name} keeps two, {id}");
            let (Some(superseded), Some(unused)) = (known.superseded, known.unused) else { continue };
            let (least, most) = LINGER;
            let age = unused.saturating_duration_since(known.since);
            let end = (superseded + least).max(unused + age.clamp(least, most));
            let is_ours = known.direction == Direction::Outbound;
            assert!(!is_ours || now <= end, "{name} should have closed {id} at {end}");
        }
    }

    /// The connections to peers that there are several of.
    fn doubled(&self) -> impl Iterator<Item = &Connection> {
        let all = self.known.connections.values();
        all.filter(|known| self.node.connections().of(&known.peer).len() > 1)
    }

    /// One peer is dialled once, and several connections with it are not there for long.
    fn one_per_peer(&mut self) {
        let now = self.w.now();
        let node = self.node;
        self.known.doubles.retain(|peer, _| node.connections().of(peer).len() > 1);
        let doubled: BTreeSet<_> = self.doubled().map(|known| known.peer).collect();
        for peer in doubled {
            let dialled = self.to(&peer).filter(|info| info.direction == Direction::Outbound).count();
            assert!(dialled <= 1, "{} has dialled {peer} twice", self.name());
            let since = *self.known.doubles.entry(peer).or_insert(now);
            let long = now.saturating_duration_since(since);
            self.tally.longest_double = self.tally.longest_double.max(long);
            assert!(long <= LOST + LINGER.1, "{} has had two to {peer} since {since}", self.name());
        }
    }

    /// What one end holds the other holds too, or it is lost and soon forgotten; and of two that both hold, one is
    /// closed.
    fn both_ends_agree(&mut self, hosts: &BTreeMap<PeerId, HostId>) {
        let now = self.w.now();
        let own = self.node.local_peer();
        let mut peers: BTreeMap<PeerId, [Vec<ConnectionId>; 2]> = BTreeMap::new();
        for (id, known) in &self.known.connections {
            let [inbound, outbound] = peers.entry(known.peer).or_default();
            let list = if known.direction == Direction::Inbound { inbound } else { outbound };
            list.push(*id);
        }
        self.known.pairs.retain(|peer, _| peers.contains_key(peer));
        for (peer, [inbound, outbound]) in peers {
            let other = self.w.node(hosts[&peer]).connections();
            let theirs = |direction| {
                let infos = other.of(&own).iter().filter_map(|id| other.get(*id));
                infos.filter(|info| info.direction == direction).count()
            };
            let mut on_both = 0;
            for (mut ours, theirs) in
                [(inbound, theirs(Direction::Outbound)), (outbound, theirs(Direction::Inbound))]
            {
                ours.sort_by_key(|id| self.known.connections[id].since);
                let lost = ours.len().saturating_sub(theirs);
                on_both += ours.len() - lost;
                for (n, id) in ours.into_iter().enumerate() {
                    let known = self.known.connections.get_mut(&id).expect("it is one of them");
                    known.lost = (n < lost).then(|| known.lost.unwrap_or(now));
                    let long = known.lost.map_or(Duration::ZERO, |lost| now.saturating_duration_since(lost));
                    self.tally.longest_lost = self.tally.longest_lost.max(long);
                    assert!(long <= LOST, "{} holds {id}, which {peer} lost {long:?} ago", self.name());
                }
            }
            if on_both < 2 {
                self.known.pairs.remove(&peer);
                continue;
            }
            let long = now.saturating_duration_since(*self.known.pairs.entry(peer).or_insert(now));
            self.tally.longest_pair = self.tally.longest_pair.max(long);
            assert!(long <= LINGER.1, "{} and {peer} have had two for {long:?}", self.name());
        }
    }

    /// Above the high water mark there is nobody who may go, unless others went a moment ago; and whoever prunes does
    /// so down to the low one.
    fn below_high_water(&self, has_pruned: bool) {
        let (name, now) = (self.name(), self.w.now());
        let is_silent = self.known.pruned.is_some_and(|at| now < at + SILENCE);
        let most = if has_pruned {
            LOW_WATER
        } else if is_silent {
            return;
        } else {
            HIGH_WATER
        };
        let count = self.node.connections().len();
        if count <= most {
            return;
        }
        let tags = self.node.swarm().tags();
        for known in self.known.connections.values().filter(|known| !tags.is_protected(&known.peer)) {
            let since = self.known.first(&known.peer).expect("there is one");
            assert!(now < since + GRACE, "{name} has {count}, among them one of {since}");
        }
    }

    fn to(&self, peer: &PeerId) -> impl Iterator<Item = &ConnectionInfo> {
        let table = self.node.connections();
        table.of(peer).iter().filter_map(|id| table.get(*id))
    }
}

impl Known {
    /// When the oldest connection to a peer was made.
    fn first(&self, peer: &PeerId) -> Option<Instant> {
        self.connections.values().filter(|known| known.peer == *peer).map(|known| known.since).min()
    }
}

fn connections(usage: &Usage) -> usize {
    usage.inbound_connections + usage.outbound_connections
}

fn streams(usage: &Usage) -> usize {
    usage.inbound_streams + usage.outbound_streams
}

fn add(sum: &mut Usage, more: &Usage) {
    sum.inbound_connections += more.inbound_connections;
    sum.outbound_connections += more.outbound_connections;
    sum.inbound_streams += more.inbound_streams;
    sum.outbound_streams += more.outbound_streams;
    sum.memory += more.memory;
}
