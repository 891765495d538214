//! The addresses of a dial, tried one beside the other; names on the way.

use std::net::{IpAddr, SocketAddr};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address::{self, parse_multiaddr};

use super::{Dialing, Due, State, Target};
use crate::{
    behaviour::Input,
    errors::{AttemptError, CloseReason},
    ids::{JobId, QueryId, QuicId, Token},
    names::Family,
    node::{Event, Node, pump::Work},
    swarm::{
        dial::rank::{self, Reach, Worth},
        gate,
    },
};

/// Most levels of published lists that lead to each other (go-libp2p: 32).
const MAX_DEPTH: usize = 32;
/// Most addresses that one dial takes from published lists (go-libp2p: 100).
const MAX_LISTED: usize = 100;
/// Most published texts that one dial looks at to find them.
const MAX_TEXTS: usize = 2000;
/// Of the published addresses that cannot be dialled, the error says what is wrong with so many.
const MAX_HOPELESS: usize = 8;
/// Most names of one dial that are looked up at a time.
const MAX_LOOKUPS: usize = 32;

/// An address being tried. Exits: success ends the dial, failure starts the next address.
#[derive(Debug)]
pub(super) enum Attempt {
    Quic(QuicId),
    /// A behaviour's business.
    Carried(Token),
    Resolving {
        query: QueryId,
        family: Family,
        port: u16,
        peer: Option<PeerId>,
    },
    Listing {
        query: QueryId,
        peer: Option<PeerId>,
        depth: usize,
    },
    /// It is not known yet from which socket. Exit: [`Attempt::Quic`].
    Routing {
        query: QueryId,
        remote: SocketAddr,
        peer: Option<PeerId>,
    },
}

impl Attempt {
    /// Whether it is a question for what a name stands for. Such go to others than those that are dialled, so they count
    /// for themselves.
    fn is_lookup(&self) -> bool {
        matches!(self, Self::Resolving { .. } | Self::Listing { .. })
    }
}

impl Dialing {
    /// How an attempt at an address on the Internet went.
    pub(in crate::node) fn record(&mut self, address: &Multiaddr, answered: bool) {
        if rank::reach(address) == Reach::Public {
            self.udp.record(answered);
            if address::ip_of(address).is_some_and(|ip| ip.is_ipv6()) {
                self.ipv6.record(answered);
            }
        }
    }

    pub(super) fn next_query(&mut self, job: JobId) -> QueryId {
        let query = QueryId(self.next_query);
        self.next_query += 1;
        self.by_query.insert(query, job);
        query
    }
}

impl Node {
    /// Asks for all names at once (RFC 8305 section 3), as far as there is room, so that one that is dead delays no other.
    fn look_names_up(&mut self, id: JobId) {
        loop {
            let Some(job) = self.dialing.jobs.get_mut(id) else { return };
            let asked = job.running.iter().filter(|(_, attempt)| attempt.is_lookup()).count();
            let next = job.waiting.iter().position(|(target, _)| target.is_name());
            let Some((target, _)) =
                next.filter(|_| asked < MAX_LOOKUPS).and_then(|at| job.waiting.remove(at))
            else {
                return;
            };
            let outcome = self.attempt(id, target);
            let Some(job) = self.dialing.jobs.get_mut(id) else { return };
            match outcome {
                Ok(attempt) => job.running.push(attempt),
                Err(failed) => job.failed.push(failed),
            }
        }
    }

    /// Starts the next address, or ends the dial if there is none and nothing is under way.
    pub(super) fn next_attempt(&mut self, id: JobId) {
        self.look_names_up(id);
        let most = self.dialing.config.attempts;
        loop {
            let Some(job) = self.dialing.jobs.get_mut(id) else { return };
            if let Some(at) = job.stagger.take() {
                self.dialing.timers.clear(at, Due::Stagger(id));
            }
            if job.running.iter().filter(|(_, attempt)| !attempt.is_lookup()).count() >= most {
                return;
            }
            let next = job.waiting.iter().position(|(target, _)| !target.is_name());
            let Some((target, _)) = next.and_then(|at| job.waiting.remove(at)) else {
                if job.running.is_empty() {
                    self.dial_failed(id);
                }
                return;
            };
            match self.attempt(id, target) {
                Ok(attempt) => {
                    let Some(job) = self.dialing.jobs.get_mut(id) else { return };
                    job.running.push(attempt);
                    return self.arm(id);
                }
                Err(failed) => {
                    if let Some(job) = self.dialing.jobs.get_mut(id) {
                        job.failed.push(failed);
                    }
                }
            }
        }
    }

    /// Sets the timer for the next address, if there is one and no timer.
    pub(super) fn arm(&mut self, id: JobId) {
        let Some(job) = self.dialing.jobs.get_mut(id) else { return };
        if job.state != State::Queued
            && job.stagger.is_none()
            && let Some((_, gap)) = job.waiting.iter().find(|(target, _)| !target.is_name())
        {
            let at = self.now + *gap;
            job.stagger = Some(at);
            self.dialing.timers.set(at, Due::Stagger(id));
        }
    }

    fn attempt(
        &mut self,
        id: JobId,
        target: Target,
    ) -> Result<(Multiaddr, Attempt), (Multiaddr, AttemptError)> {
        match target {
            Target::Direct { address, remote, peer, from } => {
                self.attempt_direct(id, address, remote, peer, from)
            }
            Target::Carried { address, dialer, .. } => {
                let token = Token(self.next_token);
                self.next_token += 1;
                self.dialing.by_token.insert(token, (id, dialer));
                self.exempt_all_of(dialer);
                self.work.push_back(Work::Input(dialer, Input::Dial(token, address.clone())));
                Ok((address, Attempt::Carried(token)))
            }
            Target::Name { address, name, family, port, peer } => {
                let query = self.dialing.next_query(id);
                self.emit(Event::Resolve { query, name, family });
                Ok((address, Attempt::Resolving { query, family, port, peer }))
            }
            Target::List { address, .. } if !self.resolves_text => {
                let error = AttemptError::Unsupported("TXT records cannot be looked up here".into());
                Err((address, error))
            }
            Target::List { address, name, peer, depth } => {
                let query = self.dialing.next_query(id);
                self.emit(Event::ResolveText { query, name: format!("_dnsaddr.{name}") });
                Ok((address, Attempt::Listing { query, peer, depth }))
            }
        }
    }

    /// The addresses of a host name.
    pub(in crate::node) fn resolved(&mut self, query: QueryId, found: Result<Vec<IpAddr>, String>) {
        let Some((id, address, attempt)) = self.take_query(query) else { return };
        let Attempt::Resolving { family, port, peer, .. } = attempt else { return };
        let most = self.dialing.config.addresses;
        let fit =
            found.map(|ips| ips.into_iter().filter(|ip| family.takes(ip)).take(most).collect::<Vec<_>>());
        let places: Vec<_> = match fit {
            Ok(ips) if ips.is_empty() => {
                return self.unresolved(id, address, "no address of that family".into());
            }
            Ok(ips) => ips.into_iter().map(|ip| address::quic_v1(SocketAddr::new(ip, port))).collect(),
            Err(error) => return self.unresolved(id, address, error),
        };
        self.go_on_with(id, places, peer, 0);
    }

    /// The texts published under a name, some of which are addresses (`dnsaddr=...`).
    pub(in crate::node) fn resolved_text(&mut self, query: QueryId, found: Result<Vec<String>, String>) {
        let Some((id, address, attempt)) = self.take_query(query) else { return };
        let Attempt::Listing { peer, depth, .. } = attempt else { return };
        let texts = match found {
            Ok(texts) => texts,
            Err(error) => return self.unresolved(id, address, error),
        };
        if depth + 1 >= MAX_DEPTH {
            self.counters.add("dial.refused.dnsaddr_depth", 1);
            return self.unresolved(id, address, format!("more than {MAX_DEPTH} lists lead to each other"));
        }
        let Some(job) = self.dialing.jobs.get(id) else { return };
        let (looked_at, room) = (job.texts.min(MAX_TEXTS), MAX_LISTED - job.listed.min(MAX_LISTED));
        let texts = texts.iter().take(MAX_TEXTS - looked_at);
        let listed = texts.clone().filter_map(|text| parse_multiaddr(text.strip_prefix("dnsaddr=")?).ok());
        // What the dialled address ends in is a filter: all others belong to somebody else.
        let ours = listed.filter(|found| peer.is_none() || address::split_peer(found).1 == peer);
        // What cannot be dialled takes no place from what can.
        let (mut places, hopeless): (Vec<_>, Vec<_>) = ours.partition(|found| self.may_lead(found, peer));
        places.truncate(room);
        let count = places.len();
        places.extend(hopeless.into_iter().take((room - count).min(MAX_HOPELESS)));
        if let Some(job) = self.dialing.jobs.get_mut(id) {
            job.texts += texts.len();
            job.listed += count;
        }
        if places.is_empty() {
            return self.unresolved(id, address, "no address of that peer is published".into());
        }
        self.go_on_with(id, places, peer, depth + 1);
    }

    /// Whether a published address is one that this node can send a packet to, or ask a resolver or a relay about.
    fn may_lead(&self, address: &Multiaddr, peer: Option<PeerId>) -> bool {
        match self.parse_target(address, peer) {
            Ok(Target::Direct { remote, peer, .. }) => {
                let candidate = gate::Candidate::AddressDial { ip: remote.ip(), peer };
                self.transport.quic.reaches(&remote) && self.swarm.gate.judge(&candidate).is_ok()
            }
            Ok(Target::List { .. }) => self.resolves_text,
            Ok(Target::Name { .. } | Target::Carried { .. }) => true,
            Err(_) => false,
        }
    }

    /// What a name led to is tried next.
    fn go_on_with(&mut self, id: JobId, places: Vec<Multiaddr>, peer: Option<PeerId>, depth: usize) {
        let candidate = |address| self.candidate(address, Worth::Vouched, true);
        let Some(job) = self.dialing.jobs.get(id) else { return };
        let is_direct = job.is_direct;
        let mut failed = Vec::new();
        let candidates = places.into_iter().map(candidate).collect();
        let targets = self.in_order(candidates, peer, is_direct, &mut failed);
        let Some(job) = self.dialing.jobs.get_mut(id) else { return };
        job.failed.append(&mut failed);
        for (mut target, gap) in targets.into_iter().rev() {
            if let Target::List { depth: level, .. } = &mut target {
                *level = depth;
            }
            job.waiting.push_front((target, gap));
        }
        self.go_on(id);
    }

    /// There is more to try: at once if nothing is being tried, else at its time.
    fn go_on(&mut self, id: JobId) {
        let Some(job) = self.dialing.jobs.get(id) else { return };
        let is_busy = job.running.iter().any(|(_, attempt)| !attempt.is_lookup());
        let has_next = job.waiting.iter().any(|(target, _)| !target.is_name());
        if is_busy && has_next {
            self.look_names_up(id);
            return self.arm(id);
        }
        self.next_attempt(id);
    }

    fn unresolved(&mut self, id: JobId, address: Multiaddr, why: String) {
        if let Some(job) = self.dialing.jobs.get_mut(id) {
            job.failed.push((address, AttemptError::Unresolved(why)));
        }
        self.go_on(id);
    }

    pub(super) fn take_query(&mut self, query: QueryId) -> Option<(JobId, Multiaddr, Attempt)> {
        let id = self.dialing.by_query.remove(&query)?;
        let job = self.dialing.jobs.get_mut(id)?;
        let at = job.running.iter().position(|(_, attempt)| match attempt {
            Attempt::Resolving { query: asked, .. }
            | Attempt::Listing { query: asked, .. }
            | Attempt::Routing { query: asked, .. } => *asked == query,
            _ => false,
        })?;
        let (address, attempt) = job.running.remove(at);
        Some((id, address, attempt))
    }

    /// A connection that we were dialling failed.
    pub(in crate::node) fn quic_attempt_failed(&mut self, id: JobId, quic: QuicId, reason: CloseReason) {
        let Some(job) = self.dialing.jobs.get_mut(id) else { return };
        let is_it = |(_, attempt): &(_, Attempt)| matches!(attempt, Attempt::Quic(q) if *q == quic);
        let Some(at) = job.running.iter().position(is_it) else { return };
        let (address, _) = job.running.remove(at);
        let (place, named) = address::split_peer(&address);
        let peer = named.or(job.peer);
        if job.is_tried_elsewhere(&address) {
            return self.after_failure(id);
        }
        job.failed.push((address, AttemptError::Failed(reason.clone())));
        self.dialing.record(&place, reason != CloseReason::TimedOut);
        if let Some(peer) = peer {
            if matches!(reason, CloseReason::WrongPeer { .. }) {
                self.peerstore.remove_address(self.now, peer, &place);
            }
            self.peerstore.unreachable(self.now, &peer, &place);
            self.dialing.backoff.address_failed(peer, place, self.now);
        }
        self.after_failure(id);
    }

    /// The next address is tried at once, but for a circuit while there is hope to do without.
    pub(super) fn after_failure(&mut self, id: JobId) {
        let Some(job) = self.dialing.jobs.get(id) else { return };
        let has_hope = job.running.iter().any(|(_, attempt)| !matches!(attempt, Attempt::Carried(_)));
        if has_hope && job.waiting.front().is_some_and(|(target, _)| target.is_carried()) {
            return self.arm(id);
        }
        self.next_attempt(id);
    }
}
