//! Reservations that nobody has to ask for: relays that are known are asked, until as many as wanted forward to us.

use std::{collections::BTreeSet, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

use super::{
    super::direct_connection,
    Client, ReserveError, Timer,
    grant::{MAX_BACK_OFF, back_off},
    known::MAX_CANDIDATES,
};
use crate::{
    behaviour::Context,
    errors::{AttemptError, DialError},
    swarm::addresses,
    time::Instant,
};

/// How long until the peerstore is looked at again while relays are missing.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// When to look for relays, and how many reservations to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoRelay {
    /// When reservations are kept. Never.
    pub when: When,
    /// As many are kept, whatever must be dialled for it. 2.
    pub desired: usize,
    /// As many are taken, as long as relays to which we are connected give them; at least `desired`. Reservations that
    /// the embedder asks for count as well. 2.
    pub max: usize,
    /// Relays to begin with, each with its `/p2p`; at most 256. None.
    pub bootstrap: Vec<Multiaddr>,
    /// How long relays are looked for before the first are chosen. 1 s.
    pub boot_delay: Duration,
}

impl Default for AutoRelay {
    fn default() -> Self {
        Self {
            when: When::Never,
            desired: 2,
            max: 2,
            bootstrap: Vec::new(),
            boot_delay: Duration::from_secs(1),
        }
    }
}

/// When reservations are kept without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// They are not.
    #[default]
    Never,
    /// From the start.
    Always,
    /// While [`Client::set_reachability`] says [`Reachability::Private`].
    WhenPrivate,
}

/// Whether others can connect to us directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reachability {
    /// Nobody knows.
    #[default]
    Unknown,
    /// They cannot.
    Private,
    /// They can.
    Public,
}

/// The state of looking for relays.
#[derive(Debug, Default)]
pub(super) struct Auto {
    reachability: Reachability,
    /// Relays chosen here, where a reservation is held or being asked for.
    chosen: BTreeSet<PeerId>,
    /// Set while reservations are wanted: when the first may be chosen.
    ready: Option<Instant>,
    /// When [`Timer::Auto`] is due.
    step: Option<Instant>,
}

impl Client {
    /// Says whether others can connect to us directly.
    pub fn set_reachability(&mut self, cx: &mut Context<'_>, reachability: Reachability) {
        self.auto.reachability = reachability;
        self.auto_review(cx);
    }

    /// What was last said about that.
    pub fn reachability(&self) -> Reachability {
        self.auto.reachability
    }

    /// Names a relay that may be chosen, at an address that ends in its `/p2p`, as [`AutoRelay::bootstrap`] does; it is chosen
    /// like others, and not forgotten. Further addresses of it are taken as well, up to eight.
    pub fn add_candidate(&mut self, cx: &mut Context<'_>, address: &Multiaddr) -> Result<(), ReserveError> {
        let (_, peer) = address::split_peer(address);
        let relay = peer.ok_or(ReserveError::NoPeer)?;
        let wrong = if address::is_circuit(address) {
            Some(AttemptError::Unsupported("a relay behind a relay".into()))
        } else {
            (relay == cx.view().local_peer()).then_some(AttemptError::Own)
        };
        if let Some(wrong) = wrong {
            return Err(ReserveError::Unreachable(DialError::one(address.clone(), wrong)));
        }
        self.known.configure(cx.view(), relay, address, cx.now());
        if self.auto_is_short() {
            self.auto_review(cx);
        }
        Ok(())
    }

    /// Gives up all reservations, and looks for no more relays.
    pub fn stop(&mut self, cx: &mut Context<'_>) {
        self.config.auto.when = When::Never;
        self.auto_review(cx);
        self.set_auto_step(None);
        for relay in self.relays().collect::<Vec<_>>() {
            self.cancel(cx, relay);
        }
    }

    /// Relays that were chosen by themselves, where a reservation is held or being asked for.
    pub fn chosen(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.auto.chosen.iter().copied()
    }

    /// Relays that are known, whether in use or not.
    pub fn candidates(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.known.relays().map(|(relay, _)| relay)
    }

    /// Arms the timer that starts it all.
    pub(super) fn auto_boot(&mut self) {
        self.config.auto.max = self.config.auto.max.max(self.config.auto.desired);
        if self.config.auto.when == When::Always {
            self.set_auto_step(Some(Instant::ZERO));
        }
    }

    pub(super) fn on_auto_timer(&mut self, cx: &mut Context<'_>) {
        self.auto.step = None;
        self.auto_review(cx);
    }

    /// Compares what there is to what is wanted, and does something about it.
    pub(super) fn auto_review(&mut self, cx: &mut Context<'_>) {
        if !self.auto_wanted() {
            return self.auto_stop(cx);
        }
        let now = cx.now();
        let ready = match self.auto.ready {
            Some(ready) => ready,
            None => self.auto_start(cx),
        };
        if now < ready {
            return self.set_auto_step(Some(ready));
        }
        let (desired, max) = (self.config.auto.desired, self.config.auto.max);
        while self.in_use() < max {
            let is_needed = self.in_use() < desired;
            let Some((relay, addresses)) = self.next_relay(cx, is_needed) else { break };
            let failures = self.known.get(&relay).map_or(0, |candidate| candidate.failures);
            self.auto.chosen.insert(relay);
            if self.want(cx, addresses, failures).is_err() {
                self.auto.chosen.remove(&relay);
                self.postpone(relay, failures, now + MAX_BACK_OFF);
            }
        }
        let waiting = self.known.relays().filter(|(relay, _)| !self.relays.contains_key(relay));
        let next = waiting.map(|(_, candidate)| candidate.not_before).filter(|at| *at > now).min();
        // Meanwhile the peerstore may hear of relays.
        let next = next.unwrap_or(now + LOOK_AGAIN).min(now + LOOK_AGAIN);
        self.set_auto_step((self.in_use() < desired).then_some(next));
    }

    /// A relay does not forward to us any more, or would not: if we chose it, another one is chosen.
    pub(super) fn auto_setback(&mut self, cx: &mut Context<'_>, relay: PeerId, retry: Instant) {
        if !self.auto.chosen.remove(&relay) {
            return;
        }
        self.set_step(relay, None);
        let failures = self.relays.remove(&relay).map_or(0, |wanted| wanted.failures);
        self.postpone(relay, failures, retry);
        self.auto_review(cx);
    }

    /// A relay that was connected to for its acquaintance alone could not be reached.
    pub(super) fn auto_unreachable(&mut self, cx: &mut Context<'_>, relay: PeerId, since: Instant) {
        let now = cx.now();
        self.scores.record_attempt(relay, now.saturating_duration_since(since), false, now);
        let failures = self.known.get(&relay).map_or(0, |candidate| candidate.failures).saturating_add(1);
        self.postpone(relay, failures, now + back_off(failures, cx.rng()));
        if self.auto_is_short() {
            self.auto_review(cx);
        }
    }

    pub(super) fn is_chosen(&self, relay: &PeerId) -> bool {
        self.auto.chosen.contains(relay)
    }

    /// The embedder takes a relay into its own hands. Returns whether we had chosen it.
    pub(super) fn auto_release(&mut self, relay: &PeerId) -> bool {
        self.auto.chosen.remove(relay)
    }

    /// Whether there is something to be gained from a relay just heard of.
    pub(super) fn auto_is_short(&self) -> bool {
        self.auto.ready.is_some() && self.in_use() < self.config.auto.max
    }

    pub(super) fn postpone(&mut self, relay: PeerId, failures: u32, until: Instant) {
        if let Some(candidate) = self.known.get_mut(&relay) {
            candidate.failures = failures;
            candidate.not_before = until;
        }
    }

    fn auto_wanted(&self) -> bool {
        match self.config.auto.when {
            When::Never => false,
            When::Always => true,
            When::WhenPrivate => self.auto.reachability == Reachability::Private,
        }
    }

    /// Connects to the relays that the embedder named. Returns when the first relay may be chosen.
    fn auto_start(&mut self, cx: &mut Context<'_>) -> Instant {
        let ready = cx.now() + self.config.auto.boot_delay;
        self.auto.ready = Some(ready);
        let mut relays = Vec::new();
        let bootstrap: Vec<_> = self.config.auto.bootstrap.iter().take(MAX_CANDIDATES).cloned().collect();
        for address in bootstrap {
            let (_, peer) = address::split_peer(&address);
            let own = cx.view().local_peer();
            let Some(relay) = peer.filter(|peer| *peer != own && !address::is_circuit(&address)) else {
                cx.count("relay.auto.bad_bootstrap");
                continue;
            };
            self.known.configure(cx.view(), relay, &address, cx.now());
            if !relays.contains(&relay) {
                relays.push(relay);
            }
        }
        for relay in relays {
            if direct_connection(cx.view(), &relay).is_none() {
                let places = self.places_of(cx, &relay, None);
                self.link(cx, relay, places);
            }
        }
        ready
    }

    fn auto_stop(&mut self, cx: &mut Context<'_>) {
        if self.auto.ready.take().is_none() {
            return;
        }
        self.set_auto_step(None);
        for relay in std::mem::take(&mut self.auto.chosen) {
            self.cancel(cx, relay);
        }
    }

    /// The relay to ask next: the best that is fit, elsewhere than those in use if possible. If we need one, one that is
    /// not fit is better than none, as soon as its pause is over; and if we do not, only one that is connected will do.
    fn next_relay(&mut self, cx: &mut Context<'_>, is_needed: bool) -> Option<(PeerId, Vec<Multiaddr>)> {
        let (now, view) = (cx.now(), cx.view());
        self.known.refresh(view, &mut self.scores, now);
        let used: BTreeSet<_> =
            self.relays.values().filter_map(|wanted| addresses::site(wanted.address())).collect();
        let free = self.known.relays().filter(|(relay, candidate)| {
            candidate.not_before <= now
                && !self.relays.contains_key(relay)
                && (is_needed || direct_connection(view, relay).is_some())
        });
        let (near, far): (Vec<_>, Vec<_>) = free.partition(|(_, candidate)| {
            addresses::site(&candidate.address).is_some_and(|s| used.contains(&s))
        });
        for group in [&far, &near] {
            let relays: Vec<_> = group.iter().map(|(relay, _)| *relay).collect();
            if let Some(best) = self.scores.best(&relays, cx.rng(), now) {
                return self
                    .known
                    .get(&best)
                    .map(|candidate| (best, candidate.addresses().cloned().collect()));
            }
        }
        let unfit = far.iter().chain(&near).filter(|_| is_needed);
        let (relay, candidate) = unfit.min_by_key(|(_, candidate)| candidate.not_before)?;
        Some((*relay, candidate.addresses().cloned().collect()))
    }

    /// Relays where a reservation is held or being asked for.
    fn in_use(&self) -> usize {
        self.relays.values().filter(|wanted| !wanted.is_backing_off()).count()
    }

    fn set_auto_step(&mut self, step: Option<Instant>) {
        if let Some(old) = std::mem::replace(&mut self.auto.step, step) {
            self.timers.clear(old, Timer::Auto);
        }
        if let Some(step) = step {
            self.timers.set(step, Timer::Auto);
        }
    }

    /// Gives up a reservation that we chose to make ourselves, for a while, and looks for another.
    pub(super) fn auto_cancelled(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        self.postpone(relay, 0, cx.now() + MAX_BACK_OFF);
        self.auto_review(cx);
    }
}
