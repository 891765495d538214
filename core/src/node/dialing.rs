//! Dials: who asked for them and how they end. Dials to one peer are one [`Job`], whose addresses are tried in the order
//! and at the pace that `swarm/dial` decides; the first that succeeds wins and the others are given up.
//!
//! A job waits in the queue, runs, and ends: with a connection, with its last address, or with its last request.

mod attempt;
mod carried;
mod route;
mod target;
mod unplanned;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_proto::address;

use self::{attempt::Attempt, target::Target};
use super::{Node, leaving::too_late, transport::QuicUse};
use crate::{
    behaviour::Reply,
    errors::{AttemptError, DialError},
    ids::{Arena, ConnectionId, DialId, JobId, QueryId, SocketId, Token},
    node::Event,
    protocols::relay::client::through_any_relay,
    rng::Rng,
    swarm::{
        dial::{
            DialConfig, DialOptions,
            backoff::Backoff,
            black_hole::BlackHole,
            queue::DialQueue,
            rank::{self, Candidate, Place, Reach, Worth},
        },
        peerstore::Source,
    },
    time::{Instant, Timers},
};

/// Who wants to know how a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    Embedder,
    Behaviour(usize, Token),
    /// Nobody but ourselves.
    AutoConnect(PeerId),
    /// The same, in place of a connection that is not healthy.
    Replacement(ConnectionId),
}

/// One wish to be connected.
#[derive(Clone, Copy, Debug)]
struct Request {
    requester: Requester,
    peer: Option<PeerId>,
    /// `None` until it is known where the peer may be.
    job: Option<JobId>,
    timeout: Instant,
}

/// What serves all requests for the same connection.
#[derive(Debug)]
struct Job {
    /// Who must be there, and by what kind of way; requests for the same join. `None` if others may not.
    key: Option<(PeerId, Ways)>,
    peer: Option<PeerId>,
    requests: Vec<DialId>,
    state: State,
    waiting: VecDeque<(Target, Duration)>,
    running: Vec<(Multiaddr, Attempt)>,
    failed: Vec<(Multiaddr, AttemptError)>,
    /// When the next address is tried.
    stagger: Option<Instant>,
    /// Nothing that leads through somebody else will do.
    is_direct: bool,
    /// The socket from which to dial, if that is said.
    socket: Option<SocketId>,
    /// How many addresses came from published lists, and how many texts were looked at for that.
    listed: usize,
    texts: usize,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the queue. Exits: [`State::Running`] when there is room, the end with its last request.
    Queued,
    /// It holds one of the places. Exit: the end.
    Running,
    /// A step of a dial that holds a place. Exit: the end.
    Exempt,
}

/// By what kinds of addresses a peer may be reached. A request for one kind is not served by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ways {
    /// Whatever a name may turn out to stand for.
    DirectOnly,
    Direct,
    Circuits,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Request(DialId),
    Stagger(JobId),
}

/// Dials under way, and what was learnt from those before.
#[derive(Debug)]
pub(super) struct Dialing {
    config: DialConfig,
    requests: Arena<DialId, Request>,
    jobs: Arena<JobId, Job>,
    by_key: BTreeMap<(PeerId, Ways), JobId>,
    /// Dials that were given to a behaviour, with its index.
    by_token: BTreeMap<Token, (JobId, usize)>,
    by_query: BTreeMap<QueryId, JobId>,
    queue: DialQueue<JobId>,
    timers: Timers<Due>,
    next_query: u64,
    /// Requests that wait for what an earlier node knew.
    unplanned: Vec<(DialId, DialOptions)>,
    pub(super) backoff: Backoff,
    udp: BlackHole,
    ipv6: BlackHole,
}

impl Dialing {
    pub(super) fn new(config: DialConfig, rng: Rng) -> Self {
        Self {
            requests: Arena::default(),
            jobs: Arena::default(),
            by_key: BTreeMap::new(),
            by_token: BTreeMap::new(),
            by_query: BTreeMap::new(),
            queue: DialQueue::new(config.parallel, config.queue),
            timers: Timers::default(),
            next_query: 0,
            unplanned: Vec::new(),
            backoff: Backoff::new(config.backoff, rng),
            udp: BlackHole::new(config.black_hole),
            ipv6: BlackHole::new(config.black_hole),
            config,
        }
    }

    /// Requests that have no answer yet.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Dials that hold a place.
    pub(super) fn running(&self) -> usize {
        self.queue.running()
    }

    /// Dials in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }
}

impl Node {
    /// Starts to dial. The outcome comes as an event or a reply, never from here.
    pub(super) fn start_dial(
        &mut self,
        requester: Requester,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        options: &DialOptions,
    ) -> DialId {
        let timeout = self.now + options.timeout.unwrap_or(self.dialing.config.timeout);
        let id = self.dialing.requests.insert_with(|_| Request { requester, peer, job: None, timeout });
        self.dialing.timers.set(timeout, Due::Request(id));
        if !self.waits_for_store(id, peer, addresses, options) {
            self.begin_dial(id, addresses, options);
        }
        id
    }

    /// Looks at what a request is about, and finds or makes the job that serves it.
    fn begin_dial(&mut self, id: DialId, addresses: &[Multiaddr], options: &DialOptions) {
        let Some(Request { requester, peer, .. }) = self.dialing.requests.get(id).copied() else { return };
        if self.is_ending() {
            return self.answer(id, Err(too_late(peer, addresses)));
        }
        let mut job = self.plan(peer, addresses, options);
        let existing = (!options.wants_own()).then(|| self.existing(&job, addresses)).flatten();
        if let Some(connection) = existing {
            return self.answer(id, Ok(connection));
        }
        let is_step = matches!(requester, Requester::Behaviour(index, _) if self.dialing.serves(index));
        if let Some(into) = job.key.and_then(|key| self.dialing.by_key.get(&key).copied()) {
            self.assign(id, into);
            self.join(into, id, job, options.priority);
            if is_step {
                self.exempt(into);
            }
            return;
        }
        if job.waiting.is_empty() {
            return self.answer(id, Err(DialError { attempts: job.failed }));
        }
        job.requests.push(id);
        job.state = if is_step { State::Exempt } else { State::Queued };
        let key = job.key;
        let job = self.dialing.jobs.insert(job);
        if !is_step && self.dialing.queue.push(job, options.priority).is_err() {
            self.counters.add("dial.refused.queue_full", 1);
            let Some(job) = self.dialing.jobs.remove(job) else { return };
            let refused =
                job.waiting.iter().map(|(target, _)| (target.address().clone(), AttemptError::QueueFull));
            let attempts = job.failed.iter().cloned().chain(refused).collect();
            return self.answer(id, Err(DialError { attempts }));
        }
        self.assign(id, job);
        if let Some(key) = key {
            self.dialing.by_key.insert(key, job);
        }
        if is_step {
            self.next_attempt(job);
        }
    }

    fn assign(&mut self, id: DialId, job: JobId) {
        if let Some(request) = self.dialing.requests.get_mut(id) {
            request.job = Some(job);
        }
    }

    /// Starts the next dial of the queue. Returns whether there was one and room for it.
    pub(super) fn start_queued_dial(&mut self) -> bool {
        let Some(id) = self.dialing.queue.start() else { return false };
        if let Some(job) = self.dialing.jobs.get_mut(id) {
            job.state = State::Running;
        }
        self.next_attempt(id);
        true
    }

    /// What there is to try, in order.
    fn plan(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr], options: &DialOptions) -> Job {
        let is_named = !addresses.is_empty();
        let respect = options.respect_backoff.unwrap_or(!is_named);
        let mut job = Job {
            key: None,
            peer,
            requests: Vec::new(),
            state: State::Queued,
            waiting: VecDeque::new(),
            running: Vec::new(),
            failed: Vec::new(),
            stagger: None,
            is_direct: options.wants_direct(),
            socket: options.socket,
            listed: 0,
            texts: 0,
        };
        let mut candidates: Vec<Candidate> = match peer {
            Some(peer) if !is_named => self.look_up(peer),
            _ => self.named(addresses),
        };
        if respect && let Some(peer) = peer {
            self.leave_out(peer, &mut candidates, &mut job.failed);
        }
        job.waiting = self.in_order(candidates, peer, job.is_direct, &mut job.failed);
        let first = job.waiting.front().and_then(|(target, _)| target.peer());
        let has_one_peer = job.waiting.iter().all(|(target, _)| target.peer() == first);
        job.peer = peer.or(first.filter(|_| has_one_peer));
        let circuits = job.waiting.iter().filter(|(target, _)| target.is_carried()).count();
        let ways = match circuits {
            _ if job.is_direct => Ways::DirectOnly,
            _ if !is_named => Ways::Any,
            0 => Ways::Direct,
            n if n == job.waiting.len() => Ways::Circuits,
            _ => Ways::Any,
        };
        job.key = job.peer.filter(|_| !options.wants_own()).map(|peer| (peer, ways));
        job
    }

    /// Where `peer` is reached, as far as is known: its own addresses, and any relay.
    fn look_up(&self, peer: PeerId) -> Vec<Candidate> {
        let known = self.peerstore.addresses(self.now, &peer);
        let any_relay = through_any_relay(peer);
        let has_dialer = self.dialer_of(&any_relay).is_some();
        let mut candidates: Vec<_> = known
            .into_iter()
            // The relay client knows these circuits, and which of their relays is best.
            .filter(|known| !has_dialer || !address::is_circuit(&known.address))
            .map(|known| {
                let worth = match known.source {
                    _ if known.reached.is_some() => Worth::Reached,
                    Source::Certified | Source::Embedder => Worth::Vouched,
                    _ => Worth::Heard,
                };
                self.candidate(known.address.clone(), worth, false)
            })
            .collect();
        if has_dialer {
            candidates.push(self.candidate(any_relay, Worth::Heard, false));
        }
        candidates
    }

    /// Takes out what failed a moment ago, and what seems to lead into a black hole; IPv6 only if there is IPv4.
    fn leave_out(
        &mut self,
        peer: PeerId,
        candidates: &mut Vec<Candidate>,
        failed: &mut Vec<(Multiaddr, AttemptError)>,
    ) {
        let (now, dialing) = (self.now, &mut self.dialing);
        if let Some(until) = dialing.backoff.peer(&peer, now) {
            candidates.clear();
            let whole = Multiaddr::empty().with(Protocol::P2p(peer));
            failed.push((whole, AttemptError::BackedOff { until }));
            return self.counters.add("dial.refused.peer_backed_off", 1);
        }
        candidates.retain(|candidate| {
            let Some(until) = dialing.backoff.address(peer, &candidate.address, now) else { return true };
            self.counters.add("dial.refused.address_backed_off", 1);
            failed.push((candidate.address.clone(), AttemptError::BackedOff { until }));
            false
        });
        let is_v6 = |c: &Candidate| matches!(c.address.iter().next(), Some(Protocol::Ip6(_)));
        let is_public = |c: &Candidate| c.reach() == Reach::Public;
        // A network over which we are connected is no black hole.
        let (udp_works, ipv6_works) =
            (self.connections.cross_internet(false), self.connections.cross_internet(true));
        let has_other = candidates.iter().any(|c| is_public(c) && !is_v6(c));
        candidates.retain(|candidate| {
            let is_in = !is_public(candidate)
                || ((udp_works || dialing.udp.admits())
                    && (ipv6_works || !is_v6(candidate) || !has_other || dialing.ipv6.admits()));
            if !is_in {
                self.counters.add("dial.refused.black_hole", 1);
                failed.push((candidate.address.clone(), AttemptError::BlackHole));
            }
            is_in
        });
    }

    /// Ranks candidates, and takes out those that cannot be dialled.
    fn in_order(
        &mut self,
        candidates: Vec<Candidate>,
        peer: Option<PeerId>,
        is_direct: bool,
        failed: &mut Vec<(Multiaddr, AttemptError)>,
    ) -> VecDeque<(Target, Duration)> {
        let parsed = |c: Candidate| {
            let target = self.parse_target(&c.address, peer);
            match target.and_then(|target| self.judge_target(&target, is_direct)) {
                Ok(()) => Some(c),
                Err(error) => {
                    self.counters.add(target::counter_of(&error), 1);
                    failed.push((c.address, error));
                    None
                }
            }
        };
        let candidates: Vec<_> = candidates.into_iter().filter_map(parsed).collect();
        let place = self.place(&candidates);
        let ranked = rank::rank(candidates, place, &self.dialing.config);
        let target = |(c, gap): (Candidate, Duration)| Some((self.parse_target(&c.address, peer).ok()?, gap));
        ranked.into_iter().filter_map(target).take(self.dialing.config.addresses).collect()
    }

    fn place(&self, candidates: &[Candidate]) -> Place {
        let bound = self.sockets.values();
        let own: Vec<IpAddr> =
            bound.flat_map(|bound| bound.reachable.iter().copied().chain([bound.local.ip()])).collect();
        let is_ours = |c: &Candidate| {
            address::ip_of(&c.address).is_some_and(|ip| !ip.is_loopback() && own.contains(&ip))
        };
        Place {
            has_private: own.iter().any(|ip| rank::ip_reach(*ip) == Reach::Private),
            is_same_machine: candidates.iter().any(is_ours),
        }
    }

    /// A connection that makes the dial needless: a direct one, or a relayed one if nothing else was asked for.
    fn existing(&self, job: &Job, addresses: &[Multiaddr]) -> Option<ConnectionId> {
        let best = self.connections.best(&job.peer?)?;
        let relayed = self.connections.get(best)?.relayed.is_some();
        let only_circuits = job.waiting.iter().all(|(target, _)| target.is_carried());
        (!relayed || !job.is_direct && (only_circuits || addresses.is_empty())).then_some(best)
    }

    /// A request for what another dial is about already: its addresses are tried too.
    fn join(&mut self, into: JobId, id: DialId, other: Job, priority: u8) {
        self.counters.add("dial.joined", 1);
        self.dialing.queue.raise(into, priority);
        let most = self.dialing.config.addresses;
        let Some(job) = self.dialing.jobs.get_mut(into) else { return };
        job.requests.push(id);
        for (target, gap) in other.waiting {
            let address = target.address();
            let is_known = job.waiting.iter().any(|(waiting, _)| waiting.address() == address)
                || job.running.iter().any(|(running, _)| running == address)
                || job.failed.iter().any(|(failed, _)| failed == address);
            if !is_known && job.waiting.len() < most {
                job.waiting.push_back((target, gap));
            }
        }
        self.arm(into);
    }

    /// A dial has its connection: the other attempts are given up.
    pub(super) fn dial_succeeded(&mut self, id: JobId, connection: ConnectionId) {
        let Some(job) = self.end_job(id) else { return };
        for request in job.requests {
            self.answer(request, Ok(connection));
        }
    }

    /// A connection is there: all dials that it serves are done, whoever dialled it.
    pub(super) fn serve_dials(&mut self, peer: PeerId, connection: ConnectionId, relayed: bool) {
        let served: &[Ways] = if relayed {
            &[Ways::Circuits]
        } else {
            &[Ways::DirectOnly, Ways::Direct, Ways::Circuits, Ways::Any]
        };
        for ways in served {
            if let Some(job) = self.dialing.by_key.get(&(peer, *ways)).copied() {
                self.dial_succeeded(job, connection);
            }
        }
    }

    /// Nobody waits for a dial any more.
    pub(super) fn forget_dial(&mut self, id: DialId) {
        self.take_request(id);
    }

    /// There is nothing left to try.
    fn dial_failed(&mut self, id: JobId) {
        let Some(job) = self.end_job(id) else { return };
        self.note_failure(&job);
        for request in &job.requests {
            self.answer(*request, Err(DialError { attempts: job.failed.clone() }));
        }
    }

    fn note_failure(&mut self, job: &Job) {
        let was_tried = job.failed.iter().any(|(_, error)| error.was_tried());
        if let Some(peer) = job.peer.filter(|_| was_tried) {
            self.dialing.backoff.peer_failed(peer, self.now);
        }
    }

    fn answer(&mut self, id: DialId, outcome: Result<ConnectionId, DialError>) {
        let Some(request) = self.take_request(id) else { return };
        match (request.requester, outcome) {
            (Requester::Behaviour(index, token), outcome) => {
                self.reply(index, token, Reply::Dial(outcome));
            }
            (Requester::AutoConnect(peer), Ok(_)) => self.auto_connect.connected(&peer),
            (Requester::AutoConnect(peer), Err(_)) => self.auto_connect.failed(self.now, peer),
            (Requester::Replacement(old), Ok(new)) => self.replace(old, new),
            (Requester::Replacement(_), Err(_)) => self.counters.add("swarm.health.replacement_failed", 1),
            (Requester::Embedder, Ok(connection)) => {
                if let Some(peer) = self.connections.get(connection).map(|info| info.peer) {
                    self.emit(Event::Dialed { dial: id, connection, peer });
                }
            }
            (Requester::Embedder, Err(error)) => {
                self.emit(Event::DialFailed { dial: id, peer: request.peer, error });
            }
        }
    }

    /// Removes a request, and its job if that was the last one.
    fn take_request(&mut self, id: DialId) -> Option<Request> {
        let request = self.dialing.requests.remove(id)?;
        self.dialing.timers.clear(request.timeout, Due::Request(id));
        if let Some((of, job)) = request.job.and_then(|of| Some((of, self.dialing.jobs.get_mut(of)?))) {
            job.requests.retain(|other| *other != id);
            if job.requests.is_empty() {
                self.end_job(of);
            }
        }
        Some(request)
    }

    /// Removes a job from all tables and gives up what is under way for it.
    fn end_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.dialing.jobs.remove(id)?;
        match job.state {
            State::Queued => _ = self.dialing.queue.remove(id),
            State::Running => self.dialing.queue.finish(),
            State::Exempt => {}
        }
        if let Some(at) = job.stagger {
            self.dialing.timers.clear(at, Due::Stagger(id));
        }
        if let Some(key) = job.key.filter(|key| self.dialing.by_key.get(key) == Some(&id)) {
            self.dialing.by_key.remove(&key);
        }
        for (address, attempt) in &job.running {
            match attempt {
                Attempt::Quic(quic) => {
                    let found = self.transport.by_quic.get_mut(quic);
                    if let Some(state) = found.filter(|state| **state == QuicUse::Dialing(id)) {
                        *state = QuicUse::Abandoned;
                        self.transport.quic.close(self.now, *quic, 0, b"");
                        // As it counts for the faster address, it counts against the slower one.
                        self.dialing.record(address, false);
                    }
                }
                Attempt::Carried(token) => {
                    self.dialing.by_token.remove(token);
                }
                Attempt::Resolving { query, .. }
                | Attempt::Listing { query, .. }
                | Attempt::Routing { query, .. } => {
                    self.dialing.by_query.remove(query);
                }
            }
        }
        Some(job)
    }

    pub(super) fn expire_dials(&mut self) {
        while let Some((_, due)) = self.dialing.timers.pop_due(self.now) {
            match due {
                Due::Stagger(id) => {
                    if let Some(job) = self.dialing.jobs.get_mut(id) {
                        job.stagger = None;
                        self.next_attempt(id);
                    }
                }
                Due::Request(id) => self.time_out(id),
            }
        }
    }

    /// A request has waited long enough.
    fn time_out(&mut self, id: DialId) {
        let Some(request) = self.dialing.requests.get(id) else { return };
        let Some(of) = request.job else { return self.answer(id, Err(DialError { attempts: Vec::new() })) };
        let Some(job) = self.dialing.jobs.get_mut(of) else { return };
        let mut attempts = job.failed.clone();
        let late = job.running.iter().map(|(address, _)| address);
        for address in late {
            if !attempts.iter().any(|(failed, _)| failed == address) {
                attempts.push((address.clone(), AttemptError::TimedOut));
            }
        }
        if job.state == State::Queued {
            let unheard = job.waiting.iter().map(|(target, _)| target.address().clone());
            attempts.extend(unheard.map(|address| (address, AttemptError::TimedOut)));
            self.counters.add("dial.failed.in_queue", 1);
        } else if job.requests.len() == 1 {
            job.failed.clone_from(&attempts);
            if let Some(job) = self.end_job(of) {
                self.note_failure(&job);
            }
        }
        self.answer(id, Err(DialError { attempts }));
    }

    /// The node shuts down; whoever dials is told.
    pub(super) fn give_up_dials(&mut self) {
        self.begin_unplanned();
        for id in self.dialing.jobs.ids().collect::<Vec<_>>() {
            let Some(mut job) = self.end_job(id) else { continue };
            let running = job.running.drain(..).map(|(address, _)| address);
            let waiting = job.waiting.drain(..).map(|(target, _)| target.address().clone());
            job.failed.extend(running.chain(waiting).map(|address| (address, AttemptError::ShuttingDown)));
            for request in job.requests {
                self.answer(request, Err(DialError { attempts: job.failed.clone() }));
            }
        }
    }
}
