//! Keeping connected: to a wanted number of peers, and to those that must not be lost.
//!
//! As py-libp2p's auto-connector has it, with these mended: peers are counted and not connections, what matters most is
//! dialled first, no more is dialled than is missing, and what was dialled counts when it is connected and not before. As
//! js-libp2p's reconnect queue has it: a peer to be kept is dialled again right after it is lost, a few times quickly;
//! then it is not given up but waits its turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{InvalidConfig, config::require};
use crate::{
    rng::Rng,
    time::{Deadline, Instant, Timers},
};

/// To how many peers, and how eagerly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoConnectConfig {
    /// Below so many connected peers, others that are known are dialled. 0, the default, dials nobody unasked but those
    /// that are to be kept.
    pub peers: usize,
    /// How often it is looked whether peers are missing (py-libp2p: 30 s); also whenever one is lost.
    pub interval: Duration,
    /// Most dials under way at a time (py-libp2p: 160).
    pub parallel: usize,
    /// How long a dial may take (py-libp2p: 10 s).
    pub dial_timeout: Duration,
    /// How long a peer is left alone after its n-th failure in a row: `cooldown * 2^(n-1)`, at most `max_cooldown`
    /// (py-libp2p: 300 s and 3600 s).
    pub cooldown: Duration,
    /// See [`AutoConnectConfig::cooldown`].
    pub max_cooldown: Duration,
    /// How often a peer to be kept is dialled after it was lost, before it is left alone like others (js-libp2p: 5).
    pub retries: u32,
    /// Before the first of these; twice as long before each that follows (js-libp2p: 1 s).
    pub retry_delay: Duration,
}

impl Default for AutoConnectConfig {
    fn default() -> Self {
        Self {
            peers: 0,
            interval: Duration::from_secs(30),
            parallel: 160,
            dial_timeout: Duration::from_secs(10),
            cooldown: Duration::from_secs(300),
            max_cooldown: Duration::from_secs(3600),
            retries: 5,
            retry_delay: Duration::from_secs(1),
        }
    }
}

impl AutoConnectConfig {
    /// Finds the first thing that makes no sense.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        require(self.parallel > 0, "auto_connect.parallel", "must be at least 1, or nobody is ever dialled")?;
        require(!self.interval.is_zero(), "auto_connect.interval", "must not be zero")?;
        require(!self.cooldown.is_zero(), "auto_connect.cooldown", "must not be zero")?;
        require(!self.retry_delay.is_zero(), "auto_connect.retry_delay", "must not be zero")
    }
}

/// Who is dialled unasked, and when.
#[derive(Debug)]
pub struct AutoConnect {
    config: AutoConnectConfig,
    rng: Rng,
    keep: BTreeSet<PeerId>,
    bootstrap: BTreeSet<PeerId>,
    /// Peers being dialled.
    dialling: BTreeSet<PeerId>,
    /// Failures in a row.
    failed: BTreeMap<PeerId, u32>,
    /// Peers that are not dialled before then.
    resting: BTreeMap<PeerId, Instant>,
    wake: Timers<PeerId>,
    next_look: Option<Instant>,
}

/// Most peers of which failures are remembered.
const MAX_FAILED: usize = 10_000;

impl AutoConnect {
    /// Nobody is to be kept yet. `rng` is used up by it alone.
    pub fn new(config: AutoConnectConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            keep: BTreeSet::new(),
            bootstrap: BTreeSet::new(),
            dialling: BTreeSet::new(),
            failed: BTreeMap::new(),
            resting: BTreeMap::new(),
            wake: Timers::default(),
            next_look: None,
        }
    }

    /// Its settings.
    pub fn config(&self) -> &AutoConnectConfig {
        &self.config
    }

    /// From now on this peer is dialled again whenever it is lost, or no longer.
    pub fn keep(&mut self, now: Instant, peer: PeerId, is_kept: bool) {
        match is_kept {
            true if self.keep.insert(peer) => self.look_at(now),
            true => {}
            false => _ = self.keep.remove(&peer),
        }
    }

    /// This peer is a way into the network: dialled before others while too few are connected.
    pub fn add_bootstrap(&mut self, now: Instant, peer: PeerId) {
        if self.bootstrap.insert(peer) {
            self.look_at(now);
        }
    }

    /// A peer is connected: it has not failed.
    pub fn connected(&mut self, peer: &PeerId) {
        self.dialling.remove(peer);
        self.failed.remove(peer);
        self.wake_up(peer);
    }

    /// The last connection to a peer has ended.
    pub fn disconnected(&mut self, now: Instant, peer: PeerId) {
        if self.keep.contains(&peer) {
            self.rest(peer, now + self.config.retry_delay);
        } else if self.is_on() {
            self.look_at(now);
        }
    }

    /// What an earlier node knew is known: there may be somebody to begin with.
    pub fn begin(&mut self, now: Instant) {
        self.look_at(now);
    }

    /// Somebody new is known while so many peers are connected.
    pub fn discovered(&mut self, now: Instant, connected: usize) {
        if connected < self.config.peers {
            self.look_at(now);
        }
    }

    /// A dial that was begun for us has failed.
    pub fn failed(&mut self, now: Instant, peer: PeerId) {
        if !self.dialling.remove(&peer) {
            return;
        }
        if !self.failed.contains_key(&peer)
            && self.failed.len() >= MAX_FAILED
            && let Some((forgotten, _)) = self.failed.pop_first()
        {
            self.wake_up(&forgotten);
        }
        let failures = self.failed.entry(peer).or_default();
        *failures = failures.saturating_add(1);
        let failures = *failures;
        let wait = if self.keep.contains(&peer) && failures < self.config.retries {
            doubled(self.config.retry_delay, failures)
        } else {
            let extra = if self.keep.contains(&peer) { self.config.retries.max(1) - 1 } else { 0 };
            doubled(self.config.cooldown, failures - 1 - extra.min(failures - 1))
                .min(self.config.max_cooldown)
        };
        self.rest(peer, now + wait);
        self.look_at(now);
    }

    /// Forgets all failures: everybody may be dialled again.
    pub fn clear_cooldowns(&mut self, now: Instant) {
        self.failed.clear();
        self.resting.clear();
        self.wake = Timers::default();
        self.look_at(now);
    }

    /// The same for one peer.
    pub fn clear_cooldown(&mut self, now: Instant, peer: &PeerId) {
        self.failed.remove(peer);
        self.wake_up(peer);
        self.look_at(now);
    }

    /// There is a network that was not there before: failures until now say nothing.
    pub fn network_is_back(&mut self, now: Instant) {
        if !self.failed.is_empty() || !self.resting.is_empty() {
            self.clear_cooldowns(now);
        }
    }

    /// Until when a peer is left alone, if it is.
    pub fn resting(&self, peer: &PeerId) -> Option<Instant> {
        self.resting.get(peer).copied()
    }

    /// Who is left alone, and until when.
    pub fn resting_peers(&self) -> impl Iterator<Item = (PeerId, Instant)> + '_ {
        self.resting.iter().map(|(peer, until)| (*peer, *until))
    }

    /// When to [`look`](Self::look).
    pub fn deadline(&self) -> Option<Deadline> {
        let at = self.next_look.into_iter().chain(self.wake.next()).min()?;
        Some(Deadline::new(at, "auto-connect"))
    }

    /// Whom to dial now, the weightiest first; [`connected`](Self::connected) or [`failed`](Self::failed) must follow for
    /// each. `connected` is the number of connected peers, `candidates` are peers that have an address and are not
    /// connected.
    pub fn look(
        &mut self,
        now: Instant,
        connected: usize,
        is_connected: impl Fn(&PeerId) -> bool,
        candidates: impl Iterator<Item = PeerId>,
    ) -> Vec<PeerId> {
        while let Some((_, peer)) = self.wake.pop_due(now) {
            self.resting.remove(&peer);
        }
        let room = self.config.parallel.saturating_sub(self.dialling.len());
        let may = |peer: &PeerId| {
            !is_connected(peer) && !self.dialling.contains(peer) && !self.resting.contains_key(peer)
        };
        let mut chosen: Vec<PeerId> = self.keep.iter().filter(|peer| may(peer)).take(room).copied().collect();
        let under_way = self.dialling.iter().filter(|peer| !is_connected(peer)).count();
        let missing = self.config.peers.saturating_sub(connected + under_way + chosen.len());
        if missing > 0 {
            let mut others: Vec<_> = self.bootstrap.iter().copied().chain(candidates).filter(may).collect();
            others.sort();
            others.dedup();
            others.retain(|peer| !self.keep.contains(peer));
            shuffle(&mut others, &mut self.rng);
            others.sort_by_key(|peer| !self.bootstrap.contains(peer));
            let room = room.saturating_sub(chosen.len());
            chosen.extend(others.into_iter().take(missing.min(room)));
        }
        self.dialling.extend(&chosen);
        // Nothing ticks while there are peers enough.
        self.next_look = (connected < self.config.peers).then(|| now + self.config.interval);
        chosen
    }

    /// Whether it is time to look.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline.is_due(now))
    }

    /// Peers being dialled, resting and to be looked at.
    pub fn len(&self) -> usize {
        self.dialling.len() + self.resting.len()
    }

    /// Whether nobody is dialled or rests.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Dials nobody any more.
    pub fn stop(&mut self) {
        self.config.peers = 0;
        self.keep.clear();
        self.resting.clear();
        self.wake = Timers::default();
        self.next_look = None;
    }

    fn is_on(&self) -> bool {
        self.config.peers > 0
    }

    fn look_at(&mut self, at: Instant) {
        if self.is_on() || !self.keep.is_empty() {
            self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
        }
    }

    fn rest(&mut self, peer: PeerId, until: Instant) {
        self.wake_up(&peer);
        self.resting.insert(peer, until);
        self.wake.set(until, peer);
    }

    fn wake_up(&mut self, peer: &PeerId) {
        if let Some(until) = self.resting.remove(peer) {
            self.wake.clear(until, *peer);
        }
    }
}

fn doubled(duration: Duration, times: u32) -> Duration {
    duration.saturating_mul(1_u32.checked_shl(times.min(31)).unwrap_or(u32::MAX))
}

fn shuffle(peers: &mut [PeerId], rng: &mut Rng) {
    for at in (1..peers.len()).rev() {
        peers.swap(at, rng.below(at as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        let key = libp2p_identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
        key.public().to_peer_id()
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn wanting(peers: usize) -> AutoConnect {
        AutoConnect::new(AutoConnectConfig { peers, ..AutoConnectConfig::default() }, Rng::new([3; 32]))
    }

    #[test]
    fn the_nth_failure_costs_three_hundred_seconds_doubled_up_to_an_hour() {
        let mut auto = wanting(1);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(auto.look(now, 0, |_| false, [peer(1)].into_iter()), [peer(1)]);
            auto.failed(now, peer(1));
            let until = auto.resting(&peer(1)).unwrap();
            waits.push(until.saturating_duration_since(now).as_secs());
            let almost = Instant::from_nanos(until.as_nanos() - 1);
            assert_eq!(auto.look(almost, 0, |_| false, [peer(1)].into_iter()), []);
            now = until;
        }
        assert_eq!(waits, [300, 600, 1200, 2400, 3600, 3600, 3600]);
        auto.look(now, 0, |_| false, [peer(1)].into_iter());
        auto.connected(&peer(1));
        assert!(auto.is_empty());
    }

    #[test]
    fn no_more_are_dialled_than_are_missing() {
        let mut auto = wanting(10);
        let all: Vec<_> = (0..50).map(peer).collect();
        let first = auto.look(at(0), 7, |_| false, all.iter().copied());
        assert_eq!(first.len(), 3);
        assert_eq!(auto.look(at(1), 7, |_| false, all.iter().copied()), [], "three are under way");
        auto.failed(at(2), first[0]);
        assert!(auto.is_due(at(2)), "another one is dialled at once");
        assert_eq!(auto.look(at(2), 7, |_| false, all.iter().copied()).len(), 1);
    }

    #[test]
    fn those_to_be_kept_come_first_then_the_ways_in_then_the_others() {
        let mut auto = wanting(4);
        auto.keep(at(0), peer(9), true);
        auto.add_bootstrap(at(0), peer(8));
        let order = auto.look(at(0), 0, |_| false, (0..10).map(peer));
        assert_eq!((order.len(), order[0], order[1]), (4, peer(9), peer(8)));
    }

    #[test]
    fn a_kept_peer_is_dialled_after_one_second_two_four_eight_and_sixteen_and_then_rests() {
        let mut auto = wanting(0);
        auto.keep(at(0), peer(1), true);
        assert_eq!(auto.look(at(0), 0, |_| false, [].into_iter()), [peer(1)]);
        auto.connected(&peer(1));
        auto.disconnected(at(100), peer(1));
        let mut now = at(100);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let until = auto.resting(&peer(1)).unwrap();
            waits.push(until.saturating_duration_since(now).as_secs());
            now = until;
            assert_eq!(auto.look(now, 0, |_| false, [].into_iter()), [peer(1)]);
            auto.failed(now, peer(1));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 300]);
        auto.keep(now, peer(1), false);
        let later = auto.resting(&peer(1)).unwrap();
        assert_eq!(auto.look(later, 0, |_| false, [].into_iter()), []);
    }

    #[test]
    fn of_those_that_failed_only_so_many_rest() {
        let mut auto = wanting(1);
        for n in 0..MAX_FAILED + 10 {
            let digest = [&[0x12, 32][..], &[0; 24], &n.to_be_bytes()].concat();
            let peer = PeerId::from_bytes(&digest).unwrap();
            assert_eq!(auto.look(at(0), 0, |_| false, [peer].into_iter()), [peer]);
            auto.failed(at(0), peer);
        }
        assert_eq!((auto.len(), auto.wake.len()), (MAX_FAILED, MAX_FAILED));
    }

    #[test]
    fn nothing_ticks_while_there_are_peers_enough() {
        let mut auto = wanting(3);
        auto.look(at(0), 3, |_| false, [].into_iter());
        assert_eq!(auto.deadline(), None);
        auto.disconnected(at(5), peer(1));
        assert!(auto.is_due(at(5)));
    }
}
