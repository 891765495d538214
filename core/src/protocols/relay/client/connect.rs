//! Dialling through circuits: connect to the relay, ask it, and hand the stream over. If any relay will do, the best
//! one is asked first, and then the next.

use std::time::Duration;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_proto::{
    address::{self, CircuitAddr},
    pb::{
        self,
        relay::{HopMessage, HopType},
    },
};

use super::{
    super::{direct_connection, wire},
    Client, Purpose, Request, Timer,
};
use crate::{
    behaviour::{Action, Context},
    errors::{AttemptError, CloseReason, DialError, OpenError, RelayStatus, UpgradeError},
    ids::{ConnectionId, StreamId, Token},
    names::{CircuitLimit, UpgradeRole},
    time::Instant,
};

/// Most relays tried for one dial, if any will do.
const MAX_TRIES: u32 = 3;

/// Fewer bytes than this are not enough to become a connection.
const HANDSHAKES: u64 = 8 << 10;

/// A dial through a relay. Its timeout ends each stage but the last.
#[derive(Debug)]
pub(super) struct Circuit {
    address: Multiaddr,
    relay: PeerId,
    target: PeerId,
    since: Instant,
    until: Instant,
    stage: Stage,
    /// Set if any relay will do.
    search: Option<Search>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No connection to the relay yet; until the dial has an outcome.
    Connecting,
    /// CONNECT; until an answer, a fault, or the end of the connection.
    Requesting(Request),
    /// The relay opened the circuit, within `took`; until it is a connection, or will not be one.
    Upgrading { took: Duration, opened: Instant, limit: CircuitLimit },
}

/// The relays that were tried in vain.
#[derive(Debug, Default)]
struct Search {
    tried: Vec<PeerId>,
    failed: Vec<(Multiaddr, AttemptError)>,
}

impl Client {
    /// The relay to dial `target` through: where `target` says it is reached, or else of all relays that are known, the
    /// best that is fit. `None` if none is.
    pub fn best(&mut self, cx: &mut Context<'_>, target: &PeerId) -> Option<CircuitAddr> {
        self.relay_for(cx, target, &[])
    }

    pub(super) fn on_dial(&mut self, cx: &mut Context<'_>, token: Token, address: Multiaddr) {
        let us = cx.view().local_peer();
        if let Some(target) = any_relay(&address) {
            return match target == us {
                true => refuse(cx, token, DialError::one(address, AttemptError::Own)),
                false => self.try_next(cx, token, target, Search::default()),
            };
        }
        match parse(&address, us) {
            Ok((circuit, target)) => self.try_circuit(cx, token, &circuit, target, None),
            Err(error) => refuse(cx, token, DialError::one(address, error)),
        }
    }

    /// Tries the best relay that was not tried yet.
    fn try_next(&mut self, cx: &mut Context<'_>, token: Token, target: PeerId, mut search: Search) {
        let may_go_on = search.tried.len() < MAX_TRIES as usize;
        match self.relay_for(cx, &target, &search.tried).filter(|_| may_go_on) {
            Some(circuit) => {
                search.tried.push(circuit.relay);
                self.try_circuit(cx, token, &circuit, target, Some(search));
            }
            None if search.failed.is_empty() => {
                let address = through_any_relay(target);
                refuse(cx, token, DialError::one(address, AttemptError::NoRelay));
            }
            None => refuse(cx, token, DialError { attempts: search.failed }),
        }
    }

    fn try_circuit(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        circuit: &CircuitAddr,
        target: PeerId,
        search: Option<Search>,
    ) {
        let connection = direct_connection(cx.view(), &circuit.relay);
        let address = circuit.relay_with_peer().with(Protocol::P2pCircuit).with(Protocol::P2p(target));
        let named = Some(circuit.relay_with_peer()).filter(|_| !circuit.relay_addr.is_empty());
        let places = self.places_of(cx, &circuit.relay, named);
        if connection.is_none() && places.is_empty() {
            let error = AttemptError::RelayUnreachable("the address does not say where it is".into());
            return refuse(cx, token, DialError::one(address, error));
        }
        let since = cx.now();
        let patience = if search.is_some() { self.config.timeout / MAX_TRIES } else { self.config.timeout };
        let until = since + patience;
        let (relay, stage) = (circuit.relay, Stage::Connecting);
        self.timers.set(until, Timer::Circuit(token));
        self.circuits.insert(token, Circuit { address, relay, target, since, until, stage, search });
        match connection {
            Some(connection) => self.ask(cx, token, connection),
            None => {
                let link = self.link(cx, relay, places);
                if let Some(link) = self.links.get_mut(&link) {
                    link.circuits.push(token);
                }
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, token: Token, connection: ConnectionId) {
        let request = Request::Opening(self.open(cx, connection, Purpose::Connect(token)));
        if let Some(circuit) = self.circuits.get_mut(&token) {
            circuit.since = cx.now();
            circuit.stage = Stage::Requesting(request);
        }
    }

    pub(super) fn circuit_linked(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        relay: PeerId,
        result: &Result<ConnectionId, DialError>,
    ) {
        let waits = |circuit: &Circuit| circuit.relay == relay && matches!(circuit.stage, Stage::Connecting);
        if !self.circuits.get(&token).is_some_and(waits) {
            return;
        }
        match result {
            Ok(connection) => self.ask(cx, token, *connection),
            Err(error) => {
                self.circuit_failed(cx, token, AttemptError::RelayUnreachable(error.to_string()));
            }
        }
    }

    pub(super) fn circuit_opened(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: Result<StreamId, OpenError>,
    ) {
        let Some(circuit) = self.circuits.get_mut(&token) else { return };
        match result {
            Ok(stream) => {
                circuit.stage = Stage::Requesting(Request::Asked(stream));
                cx.send(stream, wire::encode(&HopMessage::connect(circuit.target.to_bytes())));
            }
            Err(error) => {
                self.circuit_failed(cx, token, AttemptError::RelayUnreachable(error.to_string()));
            }
        }
    }

    pub(super) fn circuit_answered(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        stream: StreamId,
        frame: &[u8],
    ) {
        let answer = pb::decode::<HopMessage>(frame).ok();
        let Some(answer) = answer.filter(|answer| answer.kind() == Some(HopType::Status)) else {
            return self.circuit_failed(cx, token, AttemptError::RelayFault("not an answer".into()));
        };
        let status = RelayStatus::from(answer.status);
        if status != RelayStatus::Ok {
            if let Some((connection, _)) = self.take(stream) {
                self.close(cx, stream, connection);
            }
            return self.circuit_failed(cx, token, refusal(status));
        }
        let Some(circuit) = self.circuits.get_mut(&token) else { return };
        let (opened, limit) = (cx.now(), wire::limit_from_wire(answer.limit.as_ref()));
        let took = opened.saturating_duration_since(circuit.since);
        circuit.stage = Stage::Upgrading { took, opened, limit };
        self.timers.clear(circuit.until, Timer::Circuit(token));
        self.streams.remove(stream);
        let (peer, role) = (circuit.target, UpgradeRole::Initiator);
        cx.push(Action::Upgrade { token, dial: Some(token), stream, peer, role, limit, address: None });
    }

    /// A circuit that the relay opened has become a connection, or will not be one.
    pub(super) fn circuit_upgraded(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: Result<ConnectionId, UpgradeError>,
    ) {
        let now = cx.now();
        let Some(Circuit { stage: Stage::Upgrading { took, opened, limit }, relay, .. }) =
            self.circuits.get_mut(&token)
        else {
            return;
        };
        let error = match result {
            Ok(_) => {
                self.scores.record_attempt(*relay, *took, true, now);
                self.remove_circuit(token);
                return;
            }
            Err(error) => error,
        };
        let age = now.saturating_duration_since(*opened);
        let is_over = limit.duration.is_some_and(|duration| age >= duration)
            || limit.data.is_some_and(|data| data < HANDSHAKES);
        let error = match error {
            UpgradeError::Carrier(_) if is_over => AttemptError::CircuitLimit,
            UpgradeError::WrongPeer { expected, found } => {
                AttemptError::Failed(CloseReason::WrongPeer { expected, found })
            }
            error => AttemptError::Failed(CloseReason::Upgrade(error)),
        };
        self.circuit_failed(cx, token, error);
    }

    pub(super) fn circuit_failed(&mut self, cx: &mut Context<'_>, token: Token, error: AttemptError) {
        let Some(circuit) = self.remove_circuit(token) else { return };
        if let Stage::Requesting(request) = circuit.stage {
            self.drop_request(cx, request);
        }
        let now = cx.now();
        let took = now.saturating_duration_since(circuit.since);
        match blame(&error) {
            Blame::Relay => self.scores.record_attempt(circuit.relay, took, false, now),
            Blame::Target => self.scores.record_latency(circuit.relay, took, now),
            Blame::Nobody => {}
        }
        match circuit.search {
            // Nobody waits for it any more, or the stream is not ours.
            Some(mut search)
                if error != AttemptError::Failed(CloseReason::Upgrade(UpgradeError::NoStream)) =>
            {
                search.failed.push((circuit.address, error));
                self.try_next(cx, token, circuit.target, search);
            }
            _ => refuse(cx, token, DialError::one(circuit.address, error)),
        }
    }

    fn remove_circuit(&mut self, token: Token) -> Option<Circuit> {
        let circuit = self.circuits.remove(&token)?;
        self.timers.clear(circuit.until, Timer::Circuit(token));
        Some(circuit)
    }

    fn relay_for(&mut self, cx: &mut Context<'_>, target: &PeerId, tried: &[PeerId]) -> Option<CircuitAddr> {
        let (now, view) = (cx.now(), cx.view());
        let us = view.local_peer();
        self.known.refresh(view, &mut self.scores, now);
        let is_new = |c: &CircuitAddr| c.relay != us && c.relay != *target && !tried.contains(&c.relay);
        let home: Vec<_> = self.known.circuits_to(view, target, now).into_iter().filter(is_new).collect();
        let known = self.known.relays().map(|(_, candidate)| &candidate.address);
        let used = self.relays.values().filter(|wanted| !wanted.is_backing_off()).map(|w| w.address());
        let all = known.chain(used).filter_map(|address| match address::split_peer(address) {
            (relay_addr, Some(relay)) => Some(CircuitAddr { relay_addr, relay, target: None }),
            _ => None,
        });
        // Ties are won by relays to which we are connected.
        let (mut all, far): (Vec<_>, Vec<_>) =
            all.filter(is_new).partition(|c| direct_connection(view, &c.relay).is_some());
        all.extend(far);
        for circuits in [home, all] {
            let relays: Vec<_> = circuits.iter().map(|circuit| circuit.relay).collect();
            if let Some(best) = self.scores.best(&relays, cx.rng(), now) {
                return circuits.into_iter().find(|circuit| circuit.relay == best);
            }
        }
        None
    }
}

/// Who is the reason of a failure.
enum Blame {
    Relay,
    /// The relay did what it could.
    Target,
    Nobody,
}

fn blame(error: &AttemptError) -> Blame {
    match error {
        AttemptError::TargetUnknown
        | AttemptError::RelayRefused(RelayStatus::PermissionDenied | RelayStatus::ConnectionFailed) => {
            Blame::Target
        }
        AttemptError::Failed(CloseReason::Upgrade(UpgradeError::Carrier(_) | UpgradeError::TimedOut(_))) => {
            Blame::Relay
        }
        AttemptError::Failed(_) => Blame::Nobody,
        _ => Blame::Relay,
    }
}

fn refusal(status: RelayStatus) -> AttemptError {
    match status {
        RelayStatus::NoReservation => AttemptError::TargetUnknown,
        RelayStatus::ResourceLimitExceeded => AttemptError::RelayLimit,
        status => AttemptError::RelayRefused(status),
    }
}

fn refuse(cx: &mut Context<'_>, token: Token, error: DialError) {
    cx.count("relay.client.dial_failed");
    cx.push(Action::DialFailed { token, error });
}

/// `/p2p-circuit/p2p/TARGET`: to a peer through whichever relay is best.
pub(crate) fn through_any_relay(target: PeerId) -> Multiaddr {
    Multiaddr::empty().with(Protocol::P2pCircuit).with(Protocol::P2p(target))
}

/// Whom an address leads to that names no relay.
pub(crate) fn any_relay(address: &Multiaddr) -> Option<PeerId> {
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?, parts.next()) {
        (Protocol::P2pCircuit, Protocol::P2p(target), None) => Some(target),
        _ => None,
    }
}

fn parse(address: &Multiaddr, us: PeerId) -> Result<(CircuitAddr, PeerId), AttemptError> {
    let unsupported = |why: &dyn ToString| AttemptError::Unsupported(why.to_string());
    let circuit = CircuitAddr::parse(address).map_err(|error| unsupported(&error))?;
    let target = circuit.target.ok_or_else(|| unsupported(&"circuit address does not name its target"))?;
    if target == us || circuit.relay == us {
        return Err(AttemptError::Own);
    }
    Ok((circuit, target))
}
