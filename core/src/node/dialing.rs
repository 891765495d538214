//! Dials: each address in turn, the next when one has failed or has not answered within a moment; the first that
//! succeeds wins and the others are given up.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_proto::address::{self, CircuitAddr};

use super::{Node, pump::Work, transport::QuicUse};
use crate::{
    behaviour::{Input, Reply},
    event::{AttemptError, CloseReason, DialError, Event, Family},
    ids::{Arena, ConnectionId, DialId, QueryId, QuicId, Token},
    protocols::relay::client::{any_relay, through_any_relay},
    time::{Instant, Timers},
};

/// How long an address is waited for before the next one is tried beside it (RFC 8305, connection attempt delay).
const STAGGER: Duration = Duration::from_millis(250);
/// How long a dial may take in all.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Most addresses of one dial; more are not tried.
const MAX_ADDRESSES: usize = 32;

/// Who wants to know how a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    Embedder,
    Behaviour(usize, Token),
}

#[derive(Debug)]
struct Dial {
    requester: Requester,
    peer: Option<PeerId>,
    waiting: VecDeque<Target>,
    running: Vec<(Multiaddr, Attempt)>,
    failed: Vec<(Multiaddr, AttemptError)>,
    stagger: Option<Instant>,
    timeout: Instant,
}

/// Where to try.
#[derive(Clone, Debug)]
enum Target {
    Direct { address: Multiaddr, remote: SocketAddr, peer: Option<PeerId> },
    Name { address: Multiaddr, name: String, family: Family, port: u16, peer: Option<PeerId> },
    Circuit { address: Multiaddr },
}

impl Target {
    /// Who must be there, if that is known.
    fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Direct { peer, .. } | Self::Name { peer, .. } => *peer,
            Self::Circuit { address } => address::split_peer(address).1,
        }
    }
}

/// An address being tried. Exits: success ends the dial, failure starts the next address.
#[derive(Debug)]
enum Attempt {
    Quic(QuicId),
    Circuit(Token),
    Resolving { query: QueryId, family: Family, port: u16, peer: Option<PeerId> },
}

/// Dials under way.
#[derive(Debug, Default)]
pub(super) struct Dialing {
    table: Arena<DialId, Dial>,
    by_token: BTreeMap<Token, DialId>,
    by_query: BTreeMap<QueryId, DialId>,
    timers: Timers<DialId>,
    next_query: u64,
}

impl Dialing {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether a dial waits for the circuit with this token.
    pub(super) fn has_token(&self, token: Token) -> bool {
        self.by_token.contains_key(&token)
    }

    /// The dial that waited for the circuit with this token.
    pub(super) fn take_token(&mut self, token: Token) -> Option<DialId> {
        self.by_token.remove(&token)
    }
}

impl Node {
    /// Starts to dial. The outcome comes as an event or a reply, never from here.
    pub(super) fn start_dial(
        &mut self,
        requester: Requester,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> DialId {
        let mut dial = Dial {
            requester,
            peer,
            waiting: VecDeque::new(),
            running: Vec::new(),
            failed: Vec::new(),
            stagger: None,
            timeout: self.now + TIMEOUT,
        };
        let any_relay = peer.filter(|_| addresses.is_empty()).map(through_any_relay);
        for address in addresses.iter().chain(&any_relay).take(MAX_ADDRESSES) {
            let judged = target(address, peer, self.local_peer()).and_then(|target| {
                self.judge_peer_dial(target.peer()).map(|()| target).map_err(AttemptError::Refused)
            });
            match judged {
                Ok(target) => dial.waiting.push_back(target),
                Err(error) => dial.failed.push((address.clone(), error)),
            }
        }
        let existing = self.existing(peer, &dial.waiting);
        let timeout = dial.timeout;
        let id = self.dialing.table.insert(dial);
        self.dialing.timers.set(timeout, id);
        match existing {
            Some(connection) => self.dial_succeeded(id, connection),
            None => self.next_attempt(id),
        }
        id
    }

    /// A connection that makes the dial needless: a direct one, or a relayed one if only circuits were to be dialled.
    fn existing(&self, peer: Option<PeerId>, targets: &VecDeque<Target>) -> Option<ConnectionId> {
        let peer = peer.or_else(|| targets.front().and_then(Target::peer))?;
        if !targets.iter().all(|target| target.peer().is_none_or(|p| p == peer)) {
            return None;
        }
        let best = self.connections.best(&peer)?;
        let relayed = self.connections.get(best)?.relayed.is_some();
        let only_circuits = targets.iter().all(|target| matches!(target, Target::Circuit { .. }));
        (!relayed || only_circuits).then_some(best)
    }

    /// Starts the next address, or ends the dial if there is none and nothing is under way.
    fn next_attempt(&mut self, id: DialId) {
        loop {
            let Some(dial) = self.dialing.table.get_mut(id) else { return };
            if let Some(at) = dial.stagger.take() {
                self.dialing.timers.clear(at, id);
            }
            let Some(target) = dial.waiting.pop_front() else {
                if dial.running.is_empty() {
                    self.dial_failed(id);
                }
                return;
            };
            match self.attempt(id, target) {
                Ok((address, attempt)) => {
                    let Some(dial) = self.dialing.table.get_mut(id) else { return };
                    dial.running.push((address, attempt));
                    if !dial.waiting.is_empty() {
                        let at = self.now + STAGGER;
                        dial.stagger = Some(at);
                        self.dialing.timers.set(at, id);
                    }
                    return;
                }
                Err((address, error)) => {
                    if let Some(dial) = self.dialing.table.get_mut(id) {
                        dial.failed.push((address, error));
                    }
                }
            }
        }
    }

    fn attempt(
        &mut self,
        id: DialId,
        target: Target,
    ) -> Result<(Multiaddr, Attempt), (Multiaddr, AttemptError)> {
        match target {
            Target::Direct { address, remote, peer } => match self.connect_quic(id, remote, peer) {
                Ok(quic) => Ok((address, Attempt::Quic(quic))),
                Err(error) => Err((address, error)),
            },
            Target::Circuit { address } => {
                let Some(dialer) = self.circuit_dialer else {
                    return Err((address, AttemptError::Unsupported("no relay client".into())));
                };
                let token = Token(self.next_token);
                self.next_token += 1;
                self.dialing.by_token.insert(token, id);
                self.work.push_back(Work::Input(dialer, Input::Dial(token, address.clone())));
                Ok((address, Attempt::Circuit(token)))
            }
            Target::Name { address, name, family, port, peer } => {
                let query = QueryId(self.dialing.next_query);
                self.dialing.next_query += 1;
                self.dialing.by_query.insert(query, id);
                self.emit(Event::Resolve { query, name, family });
                Ok((address, Attempt::Resolving { query, family, port, peer }))
            }
        }
    }

    pub(super) fn resolved(&mut self, query: QueryId, found: Result<Vec<IpAddr>, String>) {
        let Some(id) = self.dialing.by_query.remove(&query) else { return };
        let Some(dial) = self.dialing.table.get_mut(id) else { return };
        let is_it =
            |a: &(Multiaddr, Attempt)| matches!(a.1, Attempt::Resolving { query: q, .. } if q == query);
        let Some(at) = dial.running.iter().position(is_it) else { return };
        let (address, attempt) = dial.running.remove(at);
        let Attempt::Resolving { family, port, peer, .. } = attempt else { return };
        let outcome = found.map(|ips| ips.into_iter().filter(|ip| family.takes(ip)).collect::<Vec<_>>());
        match outcome {
            Ok(ips) if !ips.is_empty() => {
                for ip in ips.into_iter().take(MAX_ADDRESSES).rev() {
                    let remote = SocketAddr::new(ip, port);
                    let target = Target::Direct { address: address::quic_v1(remote), remote, peer };
                    dial.waiting.push_front(target);
                }
            }
            Ok(_) => {
                dial.failed.push((address, AttemptError::Unresolved("no address of that family".into())))
            }
            Err(error) => dial.failed.push((address, AttemptError::Unresolved(error))),
        }
        self.next_attempt(id);
    }

    /// A connection that we were dialling failed.
    pub(super) fn quic_attempt_failed(&mut self, id: DialId, quic: QuicId, reason: CloseReason) {
        let is_it = |attempt: &Attempt| matches!(attempt, Attempt::Quic(q) if *q == quic);
        self.attempt_failed(id, is_it, AttemptError::Failed(reason));
    }

    /// The relay client could not make a connection through a circuit.
    pub(super) fn circuit_attempt_failed(&mut self, token: Token, error: DialError) {
        let Some(id) = self.dialing.take_token(token) else { return };
        let Some(dial) = self.dialing.table.get_mut(id) else { return };
        dial.running.retain(|(_, attempt)| !matches!(attempt, Attempt::Circuit(t) if *t == token));
        dial.failed.extend(error.attempts);
        self.next_attempt(id);
    }

    fn attempt_failed(&mut self, id: DialId, is_it: impl Fn(&Attempt) -> bool, error: AttemptError) {
        let Some(dial) = self.dialing.table.get_mut(id) else { return };
        let Some(at) = dial.running.iter().position(|(_, attempt)| is_it(attempt)) else { return };
        let (address, _) = dial.running.remove(at);
        dial.failed.push((address, error));
        self.next_attempt(id);
    }

    /// A dial has its connection: the other attempts are given up.
    pub(super) fn dial_succeeded(&mut self, id: DialId, connection: ConnectionId) {
        let Some(dial) = self.end_dial(id) else { return };
        match (dial.requester, self.connections.get(connection).map(|info| info.peer)) {
            (Requester::Behaviour(index, token), _) => self.reply(index, token, Reply::Dial(Ok(connection))),
            (Requester::Embedder, Some(peer)) => self.emit(Event::Dialed { dial: id, connection, peer }),
            (Requester::Embedder, None) => {}
        }
    }

    /// Nobody waits for a dial any more.
    pub(super) fn forget_dial(&mut self, id: DialId) {
        self.end_dial(id);
    }

    fn dial_failed(&mut self, id: DialId) {
        let Some(dial) = self.end_dial(id) else { return };
        let error = DialError { attempts: dial.failed };
        match dial.requester {
            Requester::Behaviour(index, token) => self.reply(index, token, Reply::Dial(Err(error))),
            Requester::Embedder => self.emit(Event::DialFailed { dial: id, peer: dial.peer, error }),
        }
    }

    /// Removes a dial from all tables and gives up what is under way for it.
    fn end_dial(&mut self, id: DialId) -> Option<Dial> {
        let dial = self.dialing.table.remove(id)?;
        self.dialing.timers.clear(dial.timeout, id);
        if let Some(at) = dial.stagger {
            self.dialing.timers.clear(at, id);
        }
        for (_, attempt) in &dial.running {
            match attempt {
                Attempt::Quic(quic) => {
                    let found = self.transport.by_quic.get_mut(quic);
                    if let Some(state) = found.filter(|state| **state == QuicUse::Dialing(id)) {
                        *state = QuicUse::Abandoned;
                        self.transport.quic.close(self.now, *quic, 0, b"");
                    }
                }
                Attempt::Circuit(token) => {
                    self.dialing.by_token.remove(token);
                }
                Attempt::Resolving { query, .. } => {
                    self.dialing.by_query.remove(query);
                }
            }
        }
        Some(dial)
    }

    pub(super) fn expire_dials(&mut self) {
        while let Some((at, id)) = self.dialing.timers.pop_due(self.now) {
            let Some(dial) = self.dialing.table.get_mut(id) else { continue };
            if at < dial.timeout {
                dial.stagger = None;
                self.next_attempt(id);
                continue;
            }
            let running = dial.running.iter().map(|(address, _)| address.clone());
            let late: Vec<_> = running.map(|address| (address, AttemptError::TimedOut)).collect();
            dial.failed.extend(late);
            self.dial_failed(id);
        }
    }
}

/// What an address says to do, for a dial to `expected`.
fn target(address: &Multiaddr, expected: Option<PeerId>, own: PeerId) -> Result<Target, AttemptError> {
    let unsupported = |error: &dyn std::fmt::Display| AttemptError::Unsupported(error.to_string());
    let check = |named: Option<PeerId>| match (expected, named) {
        (Some(expected), Some(found)) if expected != found => {
            Err(AttemptError::OtherPeer { expected, found })
        }
        (expected, named) if expected.or(named) == Some(own) => Err(AttemptError::Own),
        (expected, named) => Ok(expected.or(named)),
    };
    if let Some(named) = any_relay(address) {
        check(Some(named))?;
        return Ok(Target::Circuit { address: address.clone() });
    }
    if address::is_circuit(address) {
        let circuit = CircuitAddr::parse(address).map_err(|error| unsupported(&error))?;
        let peer = check(circuit.target)?.ok_or(unsupported(&"the circuit address names no target"))?;
        let address = circuit.relay_with_peer().with(Protocol::P2pCircuit).with(Protocol::P2p(peer));
        return Ok(Target::Circuit { address });
    }
    if let Some((name, family, port, peer)) = named_host(address) {
        return Ok(Target::Name { address: address.clone(), name, family, port, peer: check(peer)? });
    }
    let (remote, peer) = address::parse_quic_v1(address).map_err(|error| unsupported(&error))?;
    Ok(Target::Direct { address: address.clone(), remote, peer: check(peer)? })
}

/// `/dns|dns4|dns6/NAME/udp/PORT/quic-v1[/p2p/PEER]`.
fn named_host(address: &Multiaddr) -> Option<(String, Family, u16, Option<PeerId>)> {
    let (address, peer) = address::split_peer(address);
    let mut parts = address.iter();
    let (name, family) = match parts.next()? {
        Protocol::Dns(name) => (name, Family::Any),
        Protocol::Dns4(name) => (name, Family::V4),
        Protocol::Dns6(name) => (name, Family::V6),
        _ => return None,
    };
    match (parts.next()?, parts.next()?, parts.next()) {
        (Protocol::Udp(port), Protocol::QuicV1, None) => Some((name.into_owned(), family, port, peer)),
        _ => None,
    }
}
