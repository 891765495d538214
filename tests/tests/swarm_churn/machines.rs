//! The machines of connection management, driven as a node drives them, but with connections that are only said to be there.

use std::{collections::VecDeque, net::Ipv4Addr, time::Duration};

use peerless_core::{
    Multiaddr, PeerId,
    ids::{ConnectionId, ConnectionShare},
    names::{Direction, ProtocolName},
    network::Network,
    rng::{HashKeys, Rng},
    swarm::{
        autoconnect::{AutoConnect, AutoConnectConfig},
        dial::{
            DialConfig,
            backoff::{Backoff, BackoffConfig},
            black_hole::{BlackHole, BlackHoleConfig},
            queue::DialQueue,
            rank::{self, Place, Worth},
        },
        gate::{self, Entry, Gate, GateConfig},
        health::{Health, HealthConfig, Situation},
        peerstore::{Peerstore, PeerstoreConfig, Source},
        pruner::{self, Pruner, PrunerConfig},
        resources::{Limits, Resources},
        select::{self, Choice, Strategy},
        table::{ConnectionInfo, Connections},
        tags::Tags,
    },
    time::Instant,
};

pub(crate) const SEED: u64 = 0x5eed_0004;
const HIGH_WATER: usize = 40;
const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// The most that is remembered of peers that are gone.
const MEMORY: usize = 2_000;

pub(crate) struct Machines {
    rng: Rng,
    now: Instant,
    gate: Gate,
    resources: Resources,
    tags: Tags,
    pruner: Pruner,
    peerstore: Peerstore,
    dial: DialConfig,
    queue: DialQueue<u64>,
    backoff: Backoff,
    udp: BlackHole,
    auto: AutoConnect,
    health: Health,
    table: Connections,
    shares: VecDeque<(ConnectionId, ConnectionShare)>,
    /// Cycles, and how many of them ended how.
    count: [u64; 4],
}

const ALL: usize = 0;
const REFUSED: usize = 1;
const FAILED: usize = 2;
const PRUNED: usize = 3;

impl Machines {
    pub(crate) fn new() -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&SEED.to_le_bytes());
        let rng = Rng::new(key);
        let pruner = PrunerConfig {
            low_water: 20,
            high_water: HIGH_WATER,
            grace: Duration::ZERO,
            ..PrunerConfig::default()
        };
        let backoff = BackoffConfig { capacity: MEMORY, ..BackoffConfig::default() };
        let auto = AutoConnectConfig { peers: 10, ..AutoConnectConfig::default() };
        let dial = DialConfig::default();
        Self {
            now: Instant::ZERO,
            gate: Gate::new(GateConfig::default()),
            resources: Resources::new(Limits::default()),
            tags: Tags::new(Duration::from_secs(20)),
            pruner: Pruner::new(pruner),
            peerstore: Peerstore::new(PeerstoreConfig { peers: MEMORY, ..PeerstoreConfig::default() }),
            queue: DialQueue::new(dial.parallel, dial.queue),
            dial,
            backoff: Backoff::new(backoff, rng.fork("backoff")),
            udp: BlackHole::new(BlackHoleConfig::default()),
            auto: AutoConnect::new(auto, rng.fork("auto-connect")),
            health: Health::new(HealthConfig { enabled: true, ..HealthConfig::default() }),
            table: Connections::new(HashKeys::new(&mut rng.fork("table"))),
            shares: VecDeque::new(),
            count: [0; 4],
            rng,
        }
    }

    /// A stranger comes, or is found and dialled; somebody goes, now and then many.
    pub(crate) fn cycle(&mut self) {
        self.count[ALL] += 1;
        self.now = self.now + Duration::from_millis(self.rng.below(200));
        let mut multihash = vec![0x12, 32]; // SHA-256
        multihash.extend(self.rng.bytes::<32>());
        let peer = PeerId::from_bytes(&multihash).expect("a SHA-256 digest is a peer id");
        // From 1.0.0.0 to 223.255.255.255, where hosts are.
        let ip = Ipv4Addr::from_bits((self.rng.below(223 << 24) + (1 << 24)) as u32);
        let address: Multiaddr = format!("/ip4/{ip}/udp/4001/quic-v1").parse().expect("a multiaddr");
        let banned = Entry::Network(Network::single(ip.into()));
        if self.rng.below(8) == 0 {
            self.gate.deny(banned);
        }
        let connected = if self.rng.below(2) == 0 {
            self.accept(peer, ip).map(|share| (share, Direction::Inbound))
        } else {
            self.dial(peer, ip, &address).map(|share| (share, Direction::Outbound))
        };
        self.gate.undeny(banned);
        if let Some((share, direction)) = connected {
            self.connect(peer, address, direction, share);
        }
        if self.shares.len() > HIGH_WATER / 2 && self.rng.below(2) == 0 {
            self.disconnect(0);
        }
        self.prune();
        self.look();
    }

    fn accept(&mut self, peer: PeerId, ip: Ipv4Addr) -> Option<ConnectionShare> {
        let is_welcome = self.gate.judge(&gate::Candidate::Accept { ip: ip.into() }).is_ok();
        let share = is_welcome
            .then(|| self.resources.open_connection(self.now, Direction::Inbound, Some(ip.into())).ok())
            .flatten();
        let Some(share) = share else {
            self.count[REFUSED] += 1;
            return None;
        };
        if self.rng.below(8) == 0 {
            // Its handshake is never completed; somebody thinks highly of it all the same.
            self.tags.tag(self.now, peer, "dht", 1);
            self.resources.close_connection(share);
            self.count[FAILED] += 1;
            return None;
        }
        Some(share)
    }

    fn dial(&mut self, peer: PeerId, ip: Ipv4Addr, address: &Multiaddr) -> Option<ConnectionShare> {
        let now = self.now;
        let ttl = Some(Duration::from_secs(600));
        self.peerstore.add(now, peer, std::slice::from_ref(address), Source::Heard, ttl);
        self.auto.discovered(now, 0);
        let chosen = self.auto.look(now, 0, |_| false, std::iter::once(peer));
        assert_eq!((chosen, self.backoff.peer(&peer, now)), (vec![peer], None), "nothing is known of it");
        let known = self.peerstore.addresses(now, &peer);
        let candidates = known.iter().map(|known| rank::Candidate {
            address: known.address.clone(),
            worth: Worth::Heard,
            is_named: false,
            is_carried: false,
        });
        assert_eq!(rank::rank(candidates.collect(), Place::default(), &self.dial).len(), 1);
        let key = self.count[ALL];
        self.queue.push(key, 50).expect("nobody else waits");
        assert_eq!(self.queue.start(), Some(key));
        let is_allowed = self.udp.admits()
            && self.gate.judge(&gate::Candidate::PeerDial { peer }).is_ok()
            && self.gate.judge(&gate::Candidate::AddressDial { ip: ip.into(), peer: Some(peer) }).is_ok();
        let share =
            is_allowed.then(|| self.resources.open_connection(now, Direction::Outbound, None).ok()).flatten();
        let answers = self.rng.below(4) > 0;
        self.queue.finish();
        if let Some(share) = share.filter(|_| answers) {
            self.udp.record(true);
            return Some(share);
        }
        if let Some(share) = share {
            self.resources.close_connection(share);
            self.udp.record(false);
            self.peerstore.unreachable(now, &peer, address);
            self.backoff.address_failed(peer, address.clone(), now);
            assert!(self.backoff.address(peer, address, now).is_some());
            self.count[FAILED] += 1;
        } else {
            self.count[REFUSED] += 1;
        }
        self.backoff.peer_failed(peer, now);
        self.auto.failed(now, peer);
        None
    }

    fn connect(&mut self, peer: PeerId, remote: Multiaddr, direction: Direction, share: ConnectionShare) {
        let now = self.now;
        self.resources.set_peer(share, peer).expect("it has no other connection");
        let dialled = (direction == Direction::Outbound).then(|| remote.clone());
        let id = self.table.insert_with(|id| ConnectionInfo {
            id,
            peer,
            direction,
            remote,
            socket: None,
            relayed: None,
            established: now,
            rtt: None,
            is_superseded: false,
        });
        self.shares.push_back((id, share));
        self.tags.connected(now, peer);
        if !self.tags.is_protected(&peer) {
            self.pruner.inserted(now);
        }
        self.peerstore.connected(now, peer, dialled.as_ref());
        self.backoff.succeeded(peer, dialled);
        self.auto.connected(&peer);
        self.health.connected(now, id);
        self.tags.bump(now, peer, "application", 1, (0, 10));
        self.peerstore.set_protocols(now, peer, &[ECHO]);
        self.talk(id, share, direction);
    }

    fn talk(&mut self, id: ConnectionId, share: ConnectionShare, direction: Direction) {
        let stream = self.resources.open_stream(share, direction).expect("it has no other stream");
        self.resources.set_protocol(stream, "echo", &ECHO).expect("few are there");
        self.resources.set_queued(stream, self.rng.below(100_000) as usize).expect("that is little");
        let answered = self.rng.below(16) > 0;
        self.health.pinged(self.now, id, answered.then_some(Duration::from_millis(20)));
        if !answered {
            self.health.stream_failed(self.now, id);
        }
        let mut choices = [Choice {
            connection: id,
            is_relayed: false,
            is_superseded: false,
            streams: 1,
            health: self.health.score(self.now, id),
            rtt: None,
            last_chosen: self.health.last_chosen(id),
        }];
        select::order(Strategy::HealthBased, &mut choices);
        self.health.chose(choices[0].connection);
        if self.rng.below(2) == 0 {
            self.resources.close_stream(stream);
        } else {
            // The stream ends after its connection, as may happen.
            let at = self.shares.len() - 1;
            if self.rng.below(4) == 0 {
                self.disconnect(at);
            }
            self.resources.close_stream(stream);
        }
    }

    fn disconnect(&mut self, at: usize) {
        let Some((id, share)) = self.shares.remove(at) else { return };
        self.resources.close_connection(share);
        let info = self.table.remove(id).expect("it is there");
        self.peerstore.disconnected(self.now, info.peer, Some(&info.remote));
        self.health.disconnected(id);
        self.auto.disconnected(self.now, info.peer);
        self.tags.disconnected(&info.peer);
    }

    fn prune(&mut self) {
        let count = self.table.len();
        self.pruner.observe(count);
        if !self.pruner.is_due(self.now, count) {
            return;
        }
        let candidates = self.table.iter().map(|info| pruner::Candidate {
            value: self.tags.value(self.now, &info.peer),
            streams: 0,
            outbound: info.direction == Direction::Outbound,
            since: info.established,
            peer: info.peer,
            connections: 1,
            spared: self.tags.is_protected(&info.peer),
        });
        let candidates = candidates.collect();
        for peer in self.pruner.prune(self.now, count, candidates) {
            let gone = self.table.of(&peer)[0];
            let at = self.shares.iter().position(|(id, _)| *id == gone).expect("it has a share");
            self.disconnect(at);
            self.count[PRUNED] += 1;
        }
    }

    fn look(&mut self) {
        while let Some(connection) = self.health.pop_due(self.now) {
            let situation = Situation { connection, is_used: false, is_protected: false, siblings: 1 };
            self.health.look(self.now, &situation);
        }
    }

    /// Everybody goes. What is remembered of them is bounded, and forgotten when its time has come.
    pub(crate) fn end(mut self) {
        while !self.shares.is_empty() {
            self.disconnect(0);
        }
        let [all, refused, failed, pruned] = self.count;
        println!("{all} cycles: {refused} refused, {failed} failed, {pruned} pruned");
        assert!(
            [refused, failed, pruned].iter().all(|count| *count > all / 50),
            "hardly anything has happened"
        );
        let system = self.resources.system();
        assert_eq!((system.inbound_connections, system.outbound_connections, system.memory), (0, 0, 0));
        assert!(self.resources.is_empty() && self.table.is_empty() && self.health.is_empty());
        assert_eq!((self.queue.running(), self.queue.waiting()), (0, 0));
        assert_eq!((self.health.deadline(), self.pruner.deadline()), (None, None));
        let remembered = [self.peerstore.len(), self.peerstore.address_count(), self.backoff.len() / 2];
        assert!(remembered.iter().all(|count| (1..=MEMORY).contains(count)), "{remembered:?}");
        // Who failed rests five minutes; who never came is forgotten when somebody else does.
        assert!(!self.auto.is_empty());
        self.now = self.now + Duration::from_secs(2 * 3600);
        self.auto.look(self.now, 10, |_| true, std::iter::empty());
        let peer = self.peerstore.peers(Instant::ZERO).next().expect("some are remembered");
        self.tags.tag(self.now, peer, "dht", 1);
        self.backoff.peer_failed(peer, self.now);
        assert_eq!((self.auto.len(), self.tags.len()), (0, 1));
        assert_eq!(self.peerstore.peers(self.now).count(), 0, "nothing is believed any more");
        assert!(self.backoff.len() <= MEMORY + 1);
    }
}
