//! Keeping reservations: one state machine per relay, from the wish to the word that it is no longer wanted.

use std::{collections::BTreeSet, mem, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::{
    address::{self, CircuitAddr},
    pb::relay::HopMessage,
};

use super::{
    super::{direct_connection, wire},
    Client, Event, HeldReservation, Purpose, Request, ReservationState, ReserveError, Timer,
    grant::{Asked, Grant, MAX_BACK_OFF, back_off, retry_within},
    term::{Plan, Seen},
};
use crate::{
    behaviour::{Action, Context},
    errors::{AttemptError, CloseReason, DialError, OpenError},
    ids::{ConnectionId, StreamId, Token},
    names::CircuitLimit,
    swarm::{addresses::AddressSource, tags},
    time::Instant,
};

/// Most addresses of a relay that are asked for; the latest are kept.
const MAX_ADDRESSES: usize = 8;

/// A relay that says that it is elsewhere is asked for where that is so long after it granted, at the soonest; relays let
/// nobody renew early all the time.
const MOVED_PAUSE: Duration = Duration::from_secs(60);

/// A relay where a reservation is wanted.
#[derive(Debug)]
pub(super) struct Relay {
    /// As asked for, each with its `/p2p`; never empty.
    pub(super) addresses: Vec<Multiaddr>,
    /// How long it holds reservations.
    pub(super) seen: Seen,
    /// Where it said that it is when it granted a reservation, each with its `/p2p`.
    pub(super) told: Vec<Multiaddr>,
    /// Where it listens, as it told us last.
    listens: Option<BTreeSet<Multiaddr>>,
    pub(super) state: State,
    /// Failures in a row.
    pub(super) failures: u32,
    /// When the latest try began; when RESERVE was sent, once it was.
    asked: Instant,
    /// When [`Timer::Relay`] is due.
    step: Option<Instant>,
}

/// Besides what is listed, [`Client::cancel`] ends each state.
#[derive(Debug)]
pub(super) enum State {
    /// No connection to the relay yet; until the dial has an outcome.
    Connecting(Token),
    /// RESERVE for the first time; until an answer, a fault, the end of the connection, or the timeout.
    Requesting(Request),
    /// Until it is time to renew, the connection ends, or the reservation does.
    Active(Held),
    /// RESERVE again while the old reservation lasts; until an answer, a fault, the end of the connection, the
    /// timeout, or the end of the reservation.
    Refreshing(Held, Request),
    /// CONNECT to ourselves while the reservation lasts, to see whether it does for the relay; until an answer, a fault, the
    /// end of the connection, the timeout, or the end of the reservation.
    Checking(Held, Request),
    /// Until it is time to try again, or it is asked for anew.
    BackingOff,
}

/// A reservation that is alive. It belongs to the peer: it lasts as long as any direct connection to the relay, and until
/// its end.
#[derive(Debug)]
pub(super) struct Held {
    /// Over which it was granted last. Some relays keep their books by connection, so it is renewed when this one ends.
    connection: ConnectionId,
    since: Instant,
    /// When it was granted last.
    pub(super) granted: Instant,
    pub(super) until: Instant,
    /// How long it should last after that, by our clock.
    pub(super) stated: Duration,
    /// Whether it is checked before it is renewed.
    check: bool,
    /// What each circuit is granted.
    limit: CircuitLimit,
    /// Whether the relay has refused to renew it.
    pub(super) refused: bool,
    /// By our clock its end is past, and the relay is asked whether by its own as well.
    pub(super) is_last_check: bool,
    /// For how long after that end it is still held to be there.
    pub(super) beyond: Duration,
    /// Circuit addresses, as added to our own.
    addresses: Vec<Multiaddr>,
}

impl Client {
    /// Wants a reservation with the relay at `address`, which ends in its `/p2p`, until [`Client::cancel`]. What comes
    /// of it are [`Event`]s. If it is wanted already, the address is tried as well from now on, and a pause between tries
    /// ends.
    pub fn reserve(&mut self, cx: &mut Context<'_>, address: Multiaddr) -> Result<(), ReserveError> {
        if let (_, Some(relay)) = address::split_peer(&address) {
            self.auto_release(&relay);
        }
        self.want(cx, vec![address], 0)
    }

    /// The same for a relay at any of several addresses that has failed so many times in a row.
    pub(super) fn want(
        &mut self,
        cx: &mut Context<'_>,
        addresses: Vec<Multiaddr>,
        failures: u32,
    ) -> Result<(), ReserveError> {
        let Some((Some(relay), address)) =
            addresses.first().map(|address| (address::split_peer(address).1, address.clone()))
        else {
            return Err(ReserveError::NoPeer);
        };
        let wrong = if addresses.iter().any(address::is_circuit) {
            Some(AttemptError::Unsupported("a relay behind a relay".into()))
        } else {
            (relay == cx.view().local_peer()).then_some(AttemptError::Own)
        };
        if let Some(wrong) = wrong {
            return Err(ReserveError::Unreachable(DialError::one(address, wrong)));
        }
        let asked = cx.now();
        let wanted = self.relays.entry(relay).or_insert_with(|| Relay {
            addresses: Vec::new(),
            seen: Seen::default(),
            told: Vec::new(),
            listens: None,
            state: State::BackingOff,
            failures,
            asked,
            step: None,
        });
        let is_new = |address: &Multiaddr| !wanted.addresses.contains(address);
        let new: Vec<_> = addresses.into_iter().filter(is_new).collect();
        wanted.addresses.extend(new.iter().cloned());
        let excess = wanted.addresses.len().saturating_sub(MAX_ADDRESSES);
        wanted.addresses.drain(..excess);
        match wanted.state {
            State::BackingOff => self.start(cx, relay),
            // It joins the dial that is under way.
            State::Connecting(_) if !new.is_empty() => _ = self.link(cx, relay, new),
            _ => {}
        }
        Ok(())
    }

    /// Wants no reservation with `relay` any more. The protocol has no word for it: the relay finds out when the
    /// reservation is not renewed.
    pub fn cancel(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        self.set_step(relay, None);
        let Some(wanted) = self.relays.remove(&relay) else { return };
        match wanted.state {
            State::Connecting(_) | State::BackingOff => {}
            State::Requesting(request) => self.drop_request(cx, request),
            State::Active(held) => self.lose(cx, relay, &held, ReserveError::Cancelled, None),
            State::Refreshing(held, request) | State::Checking(held, request) => {
                self.drop_request(cx, request);
                self.lose(cx, relay, &held, ReserveError::Cancelled, None);
            }
        }
        if self.auto_release(&relay) {
            self.auto_cancelled(cx, relay);
        }
    }

    /// How far we are with `relay`; `None` if no reservation with it is wanted.
    pub fn reservation(&self, relay: &PeerId) -> Option<ReservationState> {
        Some(match self.relays.get(relay)?.state {
            State::Connecting(_) => ReservationState::Connecting,
            State::Requesting(_) => ReservationState::Requesting,
            State::Active(_) | State::Checking(..) => ReservationState::Active,
            State::Refreshing(..) => ReservationState::Refreshing,
            State::BackingOff => ReservationState::BackingOff,
        })
    }

    /// The reservations that are wanted, by relay.
    pub fn reservations(&self) -> impl Iterator<Item = HeldReservation> + '_ {
        self.relays.iter().filter_map(|(relay, wanted)| {
            let held = wanted.state.held();
            Some(HeldReservation {
                relay: *relay,
                state: self.reservation(relay)?,
                addresses: held.map(|held| held.addresses.clone()).unwrap_or_default(),
                expires: held.map(|held| held.until),
                limit: held.map(|held| held.limit),
                failures: wanted.failures,
                next_step: wanted.step,
                is_auto: self.is_chosen(relay),
            })
        })
    }

    /// There is a network that was not there before: every relay that is waited with is tried now.
    pub(super) fn network_is_back(&mut self, cx: &mut Context<'_>) {
        let missing = self.relays.iter_mut().filter(|(_, wanted)| wanted.state.held().is_none());
        let missing: Vec<_> = missing
            .map(|(relay, wanted)| {
                wanted.failures = 0;
                (*relay, wanted.is_backing_off())
            })
            .collect();
        for (relay, _) in missing.into_iter().filter(|(_, is_backing_off)| *is_backing_off) {
            self.start(cx, relay);
        }
        self.known.network_is_back(cx.now());
        if self.auto_is_short() {
            self.auto_review(cx);
        }
    }

    /// A relay tells where it listens. If that is not where it was, our circuit addresses may lead nowhere, and the next
    /// renewal, which would bring those that do, comes soon.
    pub(super) fn relay_moved(&mut self, now: Instant, relay: PeerId, listens: &[Multiaddr]) {
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        let listens: BTreeSet<_> = listens.iter().cloned().collect();
        let has_moved = wanted.listens.as_ref().is_some_and(|before| *before != listens);
        wanted.listens = Some(listens);
        let State::Active(held) = &wanted.state else { return };
        let soon = now.max(held.granted + MOVED_PAUSE);
        if has_moved && wanted.step.is_some_and(|step| soon < step) {
            self.set_step(relay, Some(soon));
        }
    }

    /// Whether a reservation with `relay` is alive.
    pub(super) fn holds(&self, relay: &PeerId) -> bool {
        self.relays.get(relay).is_some_and(|relay| relay.state.held().is_some())
    }

    fn start(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        self.set_step(relay, None);
        if let Some(connection) = direct_connection(cx.view(), &relay) {
            return self.request(cx, relay, connection);
        }
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        wanted.asked = cx.now();
        let address = wanted.address().clone();
        cx.emit(Event::Connecting { relay, address });
        let places = self.places_of(cx, &relay, None);
        let token = self.link(cx, relay, places);
        if let Some(wanted) = self.relays.get_mut(&relay) {
            wanted.state = State::Connecting(token);
        }
    }

    pub(super) fn reserve_linked(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        token: Token,
        result: &Result<ConnectionId, DialError>,
    ) {
        let waits = |wanted: &Relay| matches!(wanted.state, State::Connecting(waits) if waits == token);
        if !self.relays.get(&relay).is_some_and(waits) {
            return;
        }
        match result {
            Ok(connection) => {
                let best = direct_connection(cx.view(), &relay);
                self.request(cx, relay, best.unwrap_or(*connection));
            }
            Err(error) => self.setback(cx, relay, ReserveError::Unreachable(error.clone())),
        }
    }

    pub(super) fn request(&mut self, cx: &mut Context<'_>, relay: PeerId, connection: ConnectionId) {
        let request = Request::Opening(self.open(cx, connection, Purpose::Reserve(relay)));
        self.set_step(relay, Some(cx.now() + self.config.timeout));
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        wanted.asked = cx.now();
        wanted.state = match mem::replace(&mut wanted.state, State::BackingOff) {
            State::Active(held) | State::Refreshing(held, _) | State::Checking(held, _) => {
                cx.emit(Event::Refreshing { relay });
                State::Refreshing(held, request)
            }
            _ => {
                cx.emit(Event::Requesting { relay, failures: wanted.failures });
                State::Requesting(request)
            }
        };
    }

    pub(super) fn reserve_opened(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        result: Result<StreamId, OpenError>,
    ) {
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        match (&mut wanted.state, result) {
            (State::Requesting(request) | State::Refreshing(_, request), Ok(stream)) => {
                *request = Request::Asked(stream);
                wanted.asked = cx.now();
                cx.send(stream, wire::encode(&HopMessage::reserve()));
            }
            (_, Ok(_)) => {}
            (_, Err(error)) => self.setback(cx, relay, ReserveError::Open(error)),
        }
    }

    pub(super) fn reserve_answered(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        stream: StreamId,
        frame: &[u8],
    ) {
        let Some((connection, _)) = self.take(stream) else { return };
        self.close(cx, stream, connection);
        let view = cx.view();
        let (Some(info), Some(wanted)) = (view.connections.get(connection), self.relays.get(&relay)) else {
            return;
        };
        let (us, unix) = (view.local_peer(), cx.unix());
        let is_used = |address: &&Multiaddr| address::split_peer(address).0 == info.remote;
        let address = wanted.addresses.iter().find(is_used).unwrap_or(wanted.address());
        let asked = Asked { relay, us, unix, address, remote: &info.remote };
        match Grant::read(frame, asked) {
            Ok(grant) => self.granted(cx, relay, connection, grant),
            Err(reason) => self.setback(cx, relay, reason),
        }
    }

    fn granted(&mut self, cx: &mut Context<'_>, relay: PeerId, connection: ConnectionId, grant: Grant) {
        let (now, us) = (cx.now(), cx.view().local_peer());
        let Grant { expires, left, addresses, limit } = grant;
        let told = addresses.iter().filter_map(|address| CircuitAddr::parse(address).ok());
        let told = told.map(|circuit| circuit.relay_with_peer()).collect();
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        let Some(Plan { term, renew, check }) = wanted.seen.granted(left, cx.rng()) else {
            return self.setback(cx, relay, ReserveError::Expired);
        };
        self.set_step(relay, Some(now + renew));
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        wanted.told = told;
        let took = now.saturating_duration_since(wanted.asked);
        self.scores.record_attempt(relay, took, true, now);
        let old = wanted.state.take_held();
        let renewed = old.is_some();
        let until = now + term;
        let mut since = now;
        if let Some(old) = &old {
            since = old.since;
            wanted.failures = 0;
            self.timers.clear(old.until, Timer::Expiry(relay));
        }
        self.timers.set(until, Timer::Expiry(relay));
        wanted.state = State::Active(Held {
            connection,
            since,
            granted: now,
            until,
            stated: left,
            check,
            limit,
            refused: false,
            is_last_check: false,
            beyond: Duration::ZERO,
            addresses: addresses.clone(),
        });
        let before = old.map(|old| old.addresses).unwrap_or_default();
        for address in addresses.iter().filter(|address| !before.contains(address)) {
            cx.push(Action::AddAddress { address: address.clone(), source: AddressSource::Relay });
        }
        for address in before.into_iter().filter(|address| !addresses.contains(address)) {
            cx.push(Action::RemoveAddress { address, source: AddressSource::Relay });
        }
        if !renewed {
            cx.protect(relay, tags::RELAY);
        }
        cx.count(if renewed { "relay.client.renewed" } else { "relay.client.reserved" });
        let whole = |address: Multiaddr| address.with(multiaddr::Protocol::P2p(us));
        let addresses = addresses.into_iter().map(whole).collect();
        cx.emit(Event::Reserved { relay, expires, addresses, limit, renewed });
    }

    /// Something went wrong. What is held lasts until its end, whatever a renewal was answered, and as long as there is a
    /// connection to the relay; else the next try comes after a pause.
    pub(super) fn setback(&mut self, cx: &mut Context<'_>, relay: PeerId, reason: ReserveError) {
        let now = cx.now();
        let is_connected = direct_connection(cx.view(), &relay).is_some();
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        let is_asking = matches!(wanted.state, State::Refreshing(..) | State::Checking(..));
        let lasts = wanted.state.held().is_some_and(|held| is_connected && now < held.until);
        let survives = reason != ReserveError::Expired && is_asking && lasts;
        // A relay that grants and drops in turn is not tried at once every time.
        let long_held = |held: &Held| !survives && now.saturating_duration_since(held.since) >= MAX_BACK_OFF;
        if wanted.state.held().is_some_and(long_held) {
            wanted.failures = 0;
        }
        let state = mem::replace(&mut wanted.state, State::BackingOff);
        match &state {
            State::BackingOff => return,
            State::Active(_) => self.scores.record_loss(relay, now),
            State::Connecting(_) | State::Requesting(_) | State::Refreshing(..) | State::Checking(..) => {
                let took = now.saturating_duration_since(wanted.asked);
                self.scores.record_attempt(relay, took, false, now);
            }
        }
        wanted.failures = wanted.failures.saturating_add(1);
        let mut retry = back_off(wanted.failures, cx.rng());
        if let Some(held) = state.held()
            && survives
        {
            retry = retry.min(retry_within(held.until.saturating_duration_since(now)));
        }
        self.set_step(relay, Some(now + retry));
        match state {
            State::BackingOff => {}
            State::Connecting(_) => self.failed(cx, relay, reason, retry),
            State::Requesting(request) => {
                self.drop_request(cx, request);
                self.failed(cx, relay, reason, retry);
            }
            State::Refreshing(held, request) | State::Checking(held, request) => {
                self.drop_request(cx, request);
                if survives {
                    return self.keep(cx, relay, held, reason, retry);
                }
                self.lose(cx, relay, &held, reason, Some(retry));
            }
            State::Active(held) => self.lose(cx, relay, &held, reason, Some(retry)),
        }
        self.auto_setback(cx, relay, now + retry);
    }

    fn failed(&mut self, cx: &mut Context<'_>, relay: PeerId, reason: ReserveError, retry: Duration) {
        cx.count("relay.client.failed");
        let Some(wanted) = self.relays.get(&relay) else { return };
        cx.emit(Event::Failed { relay, address: wanted.address().clone(), reason, retry });
    }

    /// A reservation could not be renewed, but lasts.
    fn keep(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        held: Held,
        reason: ReserveError,
        retry: Duration,
    ) {
        cx.count("relay.client.refresh_failed");
        let left = held.until.saturating_duration_since(cx.now());
        let refused = held.refused || matches!(reason, ReserveError::Refused(_));
        let held = Held { refused, ..held };
        if let Some(wanted) = self.relays.get_mut(&relay) {
            wanted.state = State::Active(held);
        }
        cx.emit(Event::RefreshFailed { relay, reason, left, retry });
    }

    fn lose(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        held: &Held,
        reason: ReserveError,
        retry: Option<Duration>,
    ) {
        self.timers.clear(held.until, Timer::Expiry(relay));
        for address in held.addresses.iter().cloned() {
            cx.push(Action::RemoveAddress { address, source: AddressSource::Relay });
        }
        cx.unprotect(relay, tags::RELAY);
        cx.count("relay.client.lost");
        cx.emit(Event::Lost { relay, reason, retry });
    }

    /// The stream on which a relay was asked went with its connection. If there is another, the relay is asked there.
    pub(super) fn reserve_cut(&mut self, cx: &mut Context<'_>, relay: PeerId, reason: &CloseReason) {
        match direct_connection(cx.view(), &relay) {
            Some(other) if self.relays.contains_key(&relay) => self.request(cx, relay, other),
            _ => self.setback(cx, relay, ReserveError::Disconnected(reason.clone())),
        }
    }

    pub(super) fn reserve_disconnected(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        peer: PeerId,
        reason: &CloseReason,
    ) {
        let Some(wanted) = self.relays.get(&peer) else { return };
        let Some(held) = wanted.state.held() else { return };
        let (carried, is_idle) = (held.connection == connection, matches!(wanted.state, State::Active(_)));
        match direct_connection(cx.view(), &peer) {
            None => self.setback(cx, peer, ReserveError::Disconnected(reason.clone())),
            Some(other) if carried && is_idle => self.request(cx, peer, other),
            Some(_) => {}
        }
    }

    /// The timer of a relay's state is due.
    pub(super) fn reserve_step(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        wanted.step = None;
        match &wanted.state {
            State::Active(held) => {
                let connection = direct_connection(cx.view(), &relay).unwrap_or(held.connection);
                match held.check {
                    true => self.check(cx, relay, connection),
                    false => self.request(cx, relay, connection),
                }
            }
            State::Checking(..) => self.check_over(cx, relay),
            State::Requesting(_) | State::Refreshing(..) => self.setback(cx, relay, ReserveError::TimedOut),
            State::BackingOff => self.start(cx, relay),
            State::Connecting(_) => {}
        }
    }

    pub(super) fn set_step(&mut self, relay: PeerId, step: Option<Instant>) {
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        if let Some(old) = mem::replace(&mut wanted.step, step) {
            self.timers.clear(old, Timer::Relay(relay));
        }
        if let Some(step) = step {
            self.timers.set(step, Timer::Relay(relay));
        }
    }
}

impl Relay {
    /// The first of those that were asked for.
    pub(super) fn address(&self) -> &Multiaddr {
        self.addresses.first().expect("there is always one")
    }

    pub(super) fn is_backing_off(&self) -> bool {
        matches!(self.state, State::BackingOff)
    }
}

impl Held {
    pub(super) fn connection(&self) -> ConnectionId {
        self.connection
    }
}

impl State {
    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Self::Active(held) | Self::Refreshing(held, _) | Self::Checking(held, _) => Some(held),
            Self::Connecting(_) | Self::Requesting(_) | Self::BackingOff => None,
        }
    }

    pub(super) fn take_held(&mut self) -> Option<Held> {
        match mem::replace(self, Self::BackingOff) {
            Self::Active(held) | Self::Refreshing(held, _) | Self::Checking(held, _) => Some(held),
            Self::Connecting(_) | Self::Requesting(_) | Self::BackingOff => None,
        }
    }
}
