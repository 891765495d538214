//! Asking a relay whether it holds our reservation still, by asking it for a circuit to ourselves; `term.rs` says when.

use std::{mem, time::Duration};

use libp2p_identity::PeerId;
use peerless_proto::pb::{
    self,
    relay::{HopMessage, HopType},
};

use super::{
    super::{direct_connection, wire},
    Client, Event, Purpose, Request, ReserveError, Timer,
    reserve::State,
    term::Seen,
};
use crate::{
    behaviour::Context,
    errors::{OpenError, RelayStatus},
    ids::{ConnectionId, StreamId},
    time::Instant,
};

/// A reservation that is over by our clock, but not by the relay's, is held to last for so long at first.
const BEYOND: Duration = Duration::from_secs(5);

impl Client {
    pub(super) fn check(&mut self, cx: &mut Context<'_>, relay: PeerId, connection: ConnectionId) {
        let request = Request::Opening(self.open(cx, connection, Purpose::Check(relay)));
        self.set_step(relay, Some(cx.now() + self.config.timeout));
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        wanted.state = match mem::replace(&mut wanted.state, State::BackingOff) {
            State::Active(held) => State::Checking(held, request),
            other => other,
        };
        cx.count("relay.client.checked");
    }

    pub(super) fn check_opened(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        result: Result<StreamId, OpenError>,
    ) {
        let us = cx.view().local_peer();
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        match (&mut wanted.state, result) {
            (State::Checking(_, request), Ok(stream)) => {
                *request = Request::Asked(stream);
                cx.send(stream, wire::encode(&HopMessage::connect(us.to_bytes())));
            }
            (State::Checking(..), Err(_)) => self.check_over(cx, relay),
            _ => {}
        }
    }

    /// The reservation is renewed now, unless it is still held and can be checked again before.
    pub(super) fn check_answered(
        &mut self,
        cx: &mut Context<'_>,
        relay: PeerId,
        stream: StreamId,
        frame: &[u8],
    ) {
        let Some((connection, _)) = self.take(stream) else { return };
        let answer = pb::decode::<HopMessage>(frame).ok();
        let answer = answer.filter(|answer| answer.kind() == Some(HopType::Status));
        let status = answer.map(|answer| RelayStatus::from(answer.status));
        match status {
            // It would let us talk to ourselves, which we do not want to.
            Some(RelayStatus::Ok) => cx.reset(stream),
            _ => self.close(cx, stream, connection),
        }
        let now = cx.now();
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        let State::Checking(held, _) = &mut wanted.state else { return };
        let after = now.saturating_duration_since(held.granted);
        if held.is_last_check {
            use RelayStatus::{ConnectionFailed, Ok, PermissionDenied};
            return match status {
                Some(Ok | ConnectionFailed | PermissionDenied) => self.outlived(cx, relay),
                _ => self.check_over(cx, relay),
            };
        }
        if let Some(status) = status {
            wanted.seen.checked(after, status != RelayStatus::NoReservation);
            // Relays that do not look for circuits to the asker ask us, and we refuse.
            let is_held = matches!(status, RelayStatus::PermissionDenied | RelayStatus::ConnectionFailed);
            if let Some(next) = Seen::next_check(after, held.stated).filter(|_| is_held) {
                return self.check_again(relay, now + (next - after), next);
            }
        }
        if status == Some(RelayStatus::NoReservation) {
            let stated = held.stated;
            // Until the answer to the renewal, which is on its way.
            let until = held.until.min(now + self.config.timeout);
            self.timers.clear(held.until, Timer::Expiry(relay));
            self.timers.set(until, Timer::Expiry(relay));
            held.until = until;
            cx.count("relay.client.gone");
            cx.emit(Event::Gone { relay, after, stated });
        }
        self.check_over(cx, relay);
    }

    /// The reservation is held as before, and checked `at`, which is `next` after it was granted.
    fn check_again(&mut self, relay: PeerId, at: Instant, next: Duration) {
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        wanted.state = match mem::replace(&mut wanted.state, State::BackingOff) {
            State::Checking(mut held, _) => {
                let until = held.until.max(held.granted + next * 2);
                self.timers.clear(held.until, Timer::Expiry(relay));
                self.timers.set(until, Timer::Expiry(relay));
                held.until = until;
                State::Active(held)
            }
            other => other,
        };
        self.set_step(relay, Some(at));
    }

    /// The check is over: the reservation is renewed.
    pub(super) fn check_over(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        let connection = direct_connection(cx.view(), &relay);
        let Some(wanted) = self.relays.get(&relay) else { return };
        let State::Checking(held, request) = &wanted.state else { return };
        if held.is_last_check {
            return self.setback(cx, relay, ReserveError::Expired);
        }
        let (connection, request) = (connection.unwrap_or(held.connection()), *request);
        self.drop_request(cx, request);
        self.request(cx, relay, connection);
    }

    /// A reservation is over by our clock. A relay that refused to renew it may hold it all the same, if its clock does not
    /// agree with ours; then it is asked.
    pub(super) fn reserve_over(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        let until = cx.now() + self.config.timeout;
        let connection = direct_connection(cx.view(), &relay);
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        let asks = matches!(wanted.state, State::Active(_) | State::Refreshing(..));
        let refused = wanted.state.held().is_some_and(|held| held.refused);
        let Some(connection) = connection.filter(|_| asks && refused) else {
            return self.setback(cx, relay, ReserveError::Expired);
        };
        let request = match wanted.state {
            State::Refreshing(_, request) => Some(request),
            _ => None,
        };
        if let Some(mut held) = wanted.state.take_held() {
            (held.is_last_check, held.until) = (true, until);
            wanted.state = State::Active(held);
        }
        if let Some(request) = request {
            self.drop_request(cx, request);
        }
        self.timers.set(until, Timer::Expiry(relay));
        self.check(cx, relay, connection);
    }

    /// What is over by our clock was found to be there.
    pub(super) fn outlived(&mut self, cx: &mut Context<'_>, relay: PeerId) {
        let now = cx.now();
        let Some(wanted) = self.relays.get_mut(&relay) else { return };
        let Some(mut held) = wanted.state.take_held() else { return };
        // Whole seconds and the way account for less.
        if !held.beyond.is_zero() {
            wanted.seen.outlived(now.saturating_duration_since(held.granted));
        }
        self.timers.clear(held.until, Timer::Expiry(relay));
        held.is_last_check = false;
        held.beyond = (held.beyond * 2).max(BEYOND);
        held.until = now + held.beyond;
        let renew = now + held.beyond / 2;
        self.timers.set(held.until, Timer::Expiry(relay));
        wanted.state = State::Active(held);
        self.set_step(relay, Some(renew));
        cx.count("relay.client.outlived");
    }
}
