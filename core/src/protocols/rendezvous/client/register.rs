//! Keeping registrations alive: one machine per point and namespace.

use std::{mem, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::pb::{
    Message as _,
    rendezvous::{Message, MessageType, Register, RegisterResponse, Unregister},
};

use super::{
    super::{MAX_TTL, Status},
    Client, Dialect, Error, Event, Job, Registration, Timer, check_namespace, check_ttl,
    record::own_addresses,
};
use crate::{
    behaviour::Context,
    errors::CloseReason,
    ids::{StreamId, Token},
    rng::Rng,
    swarm::tags,
    time::Instant,
};

/// How long our addresses must have been changing before they are sent anew, so that a relay that is lost and found
/// again leads to no traffic.
const SETTLE: Duration = Duration::from_secs(3);
const MIN_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(300);
/// The shortest pause when a registration is about to end.
const LAST_RETRY: Duration = Duration::from_millis(100);
/// When to ask anew after a connection was lost in a way in which the point may have lost its registrations too.
const AFTER_LOSS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// The same after a point has ended the connection in order, which most do only to save it.
const AFTER_CLOSE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(600));
/// The longest words of a point that are passed on, in characters.
const MAX_TEXT: usize = 128;

/// A registration that is wanted.
#[derive(Debug)]
pub(super) struct Registrar {
    point: PeerId,
    namespace: String,
    /// What is asked for.
    ttl: Duration,
    dialect: Dialect,
    /// Whether the point is being asked now. If not, [`Registrar::step`] is when it is next.
    asking: Option<Attempt>,
    /// The registration, as long as it lasts.
    held: Option<Held>,
    /// When [`Timer::Register`] is due.
    step: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// One try, in one dialect after the other.
#[derive(Debug)]
struct Attempt {
    dialects: Vec<Dialect>,
    /// The one that is being tried, of `dialects`.
    current: usize,
    addresses: Vec<Multiaddr>,
    /// What the point said to the first.
    first_refusal: Option<Error>,
}

/// A registration that is alive.
#[derive(Debug)]
struct Held {
    until: Instant,
    addresses: Vec<Multiaddr>,
}

/// How far we are with a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// The point is asked, and we are not registered.
    Requesting,
    /// We are registered.
    Active,
    /// We are registered, and the point is asked to go on.
    Refreshing,
    /// We are not registered; the point is asked again after a pause.
    BackingOff,
}

impl Client {
    /// Wants to be found in a namespace of a point until [`Client::unregister`]. What comes of it are [`Event`]s. If it is
    /// wanted already, it is asked for anew.
    pub fn register(&mut self, cx: &mut Context<'_>, wanted: Registration) -> Result<(), Error> {
        let Registration { point: address, namespace, ttl, dialect } = wanted;
        let point = self.point_of(cx, &address)?;
        check_namespace(&namespace)?;
        check_ttl(ttl)?;
        if own_addresses(cx, &point, Some(&address), self.config.max_addresses).is_empty() {
            return Err(Error::NoAddress);
        }
        let id = match self.registration_id(&point, &namespace) {
            Some(id) => {
                self.move_point(point, &address);
                self.drop_request(cx, Job::Register(id));
                id
            }
            None if self.registrations.len() >= self.config.max_registrations => {
                return Err(Error::TooMany("registrations"));
            }
            None => {
                self.use_point(point, &address);
                let (id, failures) = (cx.token(), 0);
                let (asking, held, step) = (None, None, None);
                let registrar = Registrar { point, namespace, ttl, dialect, asking, held, step, failures };
                self.registrations.insert(id, registrar);
                self.stay(cx, id);
                id
            }
        };
        let Some(registrar) = self.registrations.get_mut(&id) else { return Ok(()) };
        (registrar.ttl, registrar.dialect, registrar.failures) = (ttl, dialect, 0);
        self.start(cx, id);
        Ok(())
    }

    /// Wants to be found there no more, and tells the point.
    pub fn unregister(&mut self, cx: &mut Context<'_>, point: PeerId, namespace: &str) {
        if let Some(id) = self.registration_id(&point, namespace) {
            self.leave(cx, id);
        }
    }

    /// Renews a registration no more and leaves it to its end, which the point is not told before.
    pub fn abandon(&mut self, cx: &mut Context<'_>, point: PeerId, namespace: &str) {
        if let Some(id) = self.registration_id(&point, namespace) {
            self.drop_request(cx, Job::Register(id));
            self.forget(cx, id);
        }
    }

    /// How far we are with a registration; `None` if it is not wanted.
    pub fn registration(&self, point: &PeerId, namespace: &str) -> Option<RegistrationState> {
        let registrar = self.registrations.get(&self.registration_id(point, namespace)?)?;
        Some(match (&registrar.held, &registrar.asking) {
            (None, Some(_)) => RegistrationState::Requesting,
            (Some(_), None) => RegistrationState::Active,
            (Some(_), Some(_)) => RegistrationState::Refreshing,
            (None, None) => RegistrationState::BackingOff,
        })
    }

    /// The registrations that are wanted, held or not: points and namespaces.
    pub fn registrations(&self) -> impl Iterator<Item = (PeerId, &str)> + '_ {
        self.registrations.values().map(|registrar| (registrar.point, registrar.namespace.as_str()))
    }

    fn registration_id(&self, point: &PeerId, namespace: &str) -> Option<Token> {
        let is_it = |registrar: &Registrar| registrar.point == *point && registrar.namespace == namespace;
        self.registrations.iter().find(|(_, registrar)| is_it(registrar)).map(|(id, _)| *id)
    }

    /// A goodbye that has not been said yet is not said.
    fn stay(&mut self, cx: &mut Context<'_>, id: Token) {
        let Some(Registrar { point, namespace, .. }) = self.registrations.get(&id) else { return };
        let same = |(_, left): &(&Token, &(PeerId, String))| left.0 == *point && left.1 == *namespace;
        let leaving = self.leaving.iter().find(same).map(|(leaving, _)| Job::Leave(*leaving));
        if let Some(job) = leaving {
            self.drop_job(cx, job);
        }
    }

    fn start(&mut self, cx: &mut Context<'_>, id: Token) {
        self.set_step(id, None);
        let Some(point) = self.registrations.get(&id).map(|registrar| registrar.point) else { return };
        let addresses = self.own_addresses(cx, &point);
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        let likely = self.points.get(&point).map_or([None; 2], |known| [known.dialect, known.hint]);
        let dialects = registrar.dialect.candidates(likely);
        let is_nowhere = addresses.is_empty();
        registrar.asking = Some(Attempt { dialects, current: 0, addresses, first_refusal: None });
        if is_nowhere {
            return self.setback(cx, id, Error::NoAddress);
        }
        let (namespace, failures) = (registrar.namespace.clone(), registrar.failures);
        cx.emit(Event::Registering { point, namespace, failures });
        self.ask(cx, point, Job::Register(id));
    }

    pub(super) fn send_register(&mut self, cx: &mut Context<'_>, id: Token, stream: StreamId) {
        let Some(point) = self.registrations.get(&id).map(|registrar| registrar.point) else { return };
        // Now it is known for sure where the point is.
        let addresses = self.own_addresses(cx, &point);
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        let Some(attempt) = &mut registrar.asking else { return };
        attempt.addresses = addresses;
        let dialect = attempt.dialects[attempt.current];
        // A point that serves readers of both tells each of us.
        let other = (dialect == Dialect::Standard).then_some(Dialect::RustLegacy);
        let mut make = |dialect| self.records.make(cx, dialect, &attempt.addresses);
        let (record, other) = match (make(dialect), other.map(make).transpose()) {
            (Ok(record), Ok(other)) => (record, other),
            (Err(error), _) | (_, Err(error)) => return self.fail(cx, Job::Register(id), error),
        };
        let register = Register {
            ns: Some(registrar.namespace.clone()),
            signed_peer_record: Some(record),
            ttl: Some(registrar.ttl.as_secs()),
            other_record: other,
        };
        let kind = Some(MessageType::Register as i32);
        let message = Message { r#type: kind, register: Some(register), ..Message::default() };
        cx.send(stream, message.encode_to_vec());
    }

    pub(super) fn registered(&mut self, cx: &mut Context<'_>, id: Token, answer: &RegisterResponse) {
        if let Some(refusal) = refusal(answer.status, answer.status_text.as_deref()) {
            return self.register_failed(cx, id, refusal);
        }
        let Some(point) = self.registrations.get(&id).map(|registrar| registrar.point) else { return };
        let current_addresses = self.own_addresses(cx, &point);
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        // A point need not repeat what it grants.
        let ttl = answer.ttl.map_or(registrar.ttl, Duration::from_secs).min(MAX_TTL);
        if ttl.is_zero() {
            return self.register_failed(cx, id, Error::Malformed("a registration for no time"));
        }
        let Some(Attempt { dialects, current, addresses, .. }) = registrar.asking.take() else { return };
        let now = cx.now();
        let until = now + ttl;
        let changed = addresses != current_addresses;
        let old = registrar.held.replace(Held { until, addresses });
        registrar.failures = 0;
        let (point, namespace) = (registrar.point, registrar.namespace.clone());
        if let Some(known) = self.points.get_mut(&point) {
            known.dialect = Some(dialects[current]);
        }
        let renewed = old.is_some();
        if let Some(old) = old {
            self.timers.clear(old.until, Timer::Lapse(id));
        }
        self.timers.set(until, Timer::Lapse(id));
        self.set_step(id, Some(now + refresh_after(ttl, cx.rng())));
        self.spare(cx, point);
        cx.count(if renewed { "rendezvous.client.renewed" } else { "rendezvous.client.registered" });
        cx.emit(Event::Registered { point, namespace, ttl, renewed });
        if changed {
            self.on_addresses(cx);
        }
    }

    pub(super) fn register_failed(&mut self, cx: &mut Context<'_>, id: Token, error: Error) {
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        let Some(attempt) = &mut registrar.asking else { return };
        let accepted = self.points.get(&registrar.point).and_then(|known| known.dialect);
        let is_old_friend = accepted == Some(attempt.dialects[attempt.current]);
        let next = attempt.dialects.get(attempt.current + 1).copied();
        if let Some(dialect) = next.filter(|_| error.is_about_record(is_old_friend)) {
            attempt.current += 1;
            attempt.first_refusal.get_or_insert(error.clone());
            let (point, namespace) = (registrar.point, registrar.namespace.clone());
            cx.count("rendezvous.client.other_dialect");
            cx.emit(Event::OtherDialect { point, namespace, dialect, reason: error });
            return self.ask(cx, point, Job::Register(id));
        }
        let error = match attempt.first_refusal.take() {
            Some(first) if error.is_about_record(false) => first,
            _ => error,
        };
        self.setback(cx, id, error);
    }

    /// Something went wrong. A registration lasts until its end, and is tried to be renewed before it; else the next try
    /// comes after a pause.
    fn setback(&mut self, cx: &mut Context<'_>, id: Token, reason: Error) {
        let now = cx.now();
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        registrar.asking = None;
        registrar.failures = registrar.failures.saturating_add(1);
        let (point, namespace) = (registrar.point, registrar.namespace.clone());
        if reason.is_final() {
            let held = registrar.held.is_some();
            self.forget(cx, id);
            return if held {
                cx.count("rendezvous.client.lost");
                cx.emit(Event::RegistrationLost { point, namespace, reason, wanted: false });
            } else {
                cx.count("rendezvous.client.failed");
                cx.emit(Event::RegistrationFailed { point, namespace, reason, retry: None });
            };
        }
        let pause = back_off(registrar.failures, cx.rng());
        let left = registrar.held.as_ref().map(|held| held.until.saturating_duration_since(now));
        let retry = left.map_or(pause, |left| retry_within(pause, left));
        self.set_step(id, Some(now + retry));
        if left.is_some() {
            cx.count("rendezvous.client.refresh_failed");
            cx.emit(Event::RefreshFailed { point, namespace, reason, retry });
        } else {
            cx.count("rendezvous.client.failed");
            cx.emit(Event::RegistrationFailed { point, namespace, reason, retry: Some(retry) });
        }
    }

    /// A registration has come to its end. Whatever is under way to have it again goes on.
    pub(super) fn lapse(&mut self, cx: &mut Context<'_>, id: Token) {
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        registrar.held = None;
        let (point, namespace) = (registrar.point, registrar.namespace.clone());
        self.spare(cx, point);
        cx.count("rendezvous.client.lost");
        cx.emit(Event::RegistrationLost { point, namespace, reason: Error::Expired, wanted: true });
    }

    /// The timer of a registration is due.
    pub(super) fn register_step(&mut self, cx: &mut Context<'_>, id: Token) {
        if let Some(registrar) = self.registrations.get_mut(&id) {
            registrar.step = None;
            self.start(cx, id);
        }
    }

    /// The point may have lost its registrations with the connection.
    pub(super) fn register_disconnected(
        &mut self,
        cx: &mut Context<'_>,
        point: PeerId,
        reason: &CloseReason,
    ) {
        let (low, high) = match reason {
            CloseReason::Local => return,
            CloseReason::Remote { .. } => AFTER_CLOSE,
            _ => AFTER_LOSS,
        };
        let now = cx.now();
        let at = |registrar: &Registrar| registrar.point == point && registrar.held.is_some();
        let held: Vec<_> = self.registrations.iter().filter(|(_, r)| at(r)).map(|(id, _)| *id).collect();
        for id in held {
            let soon = now + cx.rng().between(low, high);
            let next = self.registrations.get(&id).and_then(|registrar| registrar.step);
            if next.is_some_and(|next| soon < next) {
                self.set_step(id, Some(soon));
            }
        }
    }

    /// There is a network that was not there before: what failed is tried now.
    pub(super) fn register_network_is_back(&mut self, cx: &mut Context<'_>) {
        let mut again = Vec::new();
        for (id, registrar) in self.registrations.iter_mut().filter(|(_, registrar)| registrar.failures > 0) {
            registrar.failures = 0;
            again.extend(registrar.asking.is_none().then_some(*id));
        }
        again.into_iter().for_each(|id| self.start(cx, id));
    }

    /// Our addresses have changed.
    pub(super) fn on_addresses(&mut self, cx: &mut Context<'_>) {
        if !self.registrations.is_empty() && self.settles.is_none() {
            let at = cx.now() + SETTLE;
            self.settles = Some(at);
            self.timers.set(at, Timer::Addresses);
        }
    }

    fn own_addresses(&self, cx: &Context<'_>, point: &PeerId) -> Vec<Multiaddr> {
        let address = self.points.get(point).and_then(|known| known.addresses.first());
        own_addresses(cx, point, address, self.config.max_addresses)
    }

    /// Our addresses have changed and have had time to change back.
    pub(super) fn addresses_settled(&mut self, cx: &mut Context<'_>) {
        self.settles = None;
        let is_stale = |registrar: &Registrar| {
            let is_other = |held: &Held| held.addresses != self.own_addresses(cx, &registrar.point);
            registrar.asking.is_none() && registrar.held.as_ref().is_none_or(is_other)
        };
        let stale = self.registrations.iter().filter(|(_, registrar)| is_stale(registrar));
        for id in stale.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.start(cx, id);
        }
    }

    /// Wants a registration no more, and tells the point if it may know of it.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>, id: Token) {
        let sent = self.requests.get(&Job::Register(id)).is_some_and(|request| request.is_sent());
        let Some(registrar) = self.registrations.get(&id) else { return };
        let (point, namespace, held) =
            (registrar.point, registrar.namespace.clone(), registrar.held.is_some());
        if held || sent {
            let leaving = cx.token();
            self.leaving.insert(leaving, (point, namespace.clone()));
            self.use_point(point, &Multiaddr::empty());
            self.drop_request(cx, Job::Register(id));
            self.ask(cx, point, Job::Leave(leaving));
        }
        self.drop_request(cx, Job::Register(id));
        self.forget(cx, id);
        if held {
            cx.count("rendezvous.client.lost");
            let reason = Error::Cancelled;
            cx.emit(Event::RegistrationLost { point, namespace, reason, wanted: false });
        }
    }

    pub(super) fn send_leave(&mut self, cx: &mut Context<'_>, id: Token, stream: StreamId) {
        let Some((_, namespace)) = self.leaving.get(&id) else { return };
        // The peer id is what old points go by; the others go by who we are.
        let id = Some(cx.view().local_peer().to_bytes());
        let unregister = Unregister { ns: Some(namespace.clone()), id };
        let kind = Some(MessageType::Unregister as i32);
        let message = Message { r#type: kind, unregister: Some(unregister), ..Message::default() };
        cx.count("rendezvous.client.unregistered");
        cx.send(stream, message.encode_to_vec());
    }

    /// Takes a registration out of the tables.
    fn forget(&mut self, cx: &mut Context<'_>, id: Token) {
        self.set_step(id, None);
        let Some(registrar) = self.registrations.remove(&id) else { return };
        if let Some(held) = registrar.held {
            self.timers.clear(held.until, Timer::Lapse(id));
        }
        if self.registrations.is_empty()
            && let Some(at) = self.settles.take()
        {
            self.timers.clear(at, Timer::Addresses);
        }
        self.release_point(registrar.point);
        self.spare(cx, registrar.point);
    }

    /// A point is spared from pruning while a registration is held there.
    fn spare(&self, cx: &mut Context<'_>, point: PeerId) {
        let holds = |registrar: &Registrar| registrar.point == point && registrar.held.is_some();
        if self.registrations.values().any(holds) {
            cx.protect(point, tags::RENDEZVOUS);
        } else {
            cx.unprotect(point, tags::RENDEZVOUS);
        }
    }

    fn set_step(&mut self, id: Token, step: Option<Instant>) {
        let Some(registrar) = self.registrations.get_mut(&id) else { return };
        if let Some(old) = mem::replace(&mut registrar.step, step) {
            self.timers.clear(old, Timer::Register(id));
        }
        if let Some(step) = step {
            self.timers.set(step, Timer::Register(id));
        }
    }
}

/// What an answer says if it is not OK. A status that is left out is OK, as protobuf has it.
pub(super) fn refusal(code: Option<i32>, text: Option<&str>) -> Option<Error> {
    let status = Status::from(code);
    let text = text.unwrap_or_default().chars().take(MAX_TEXT).collect();
    (status != Status::Ok).then_some(Error::Refused { status, text })
}

/// When to renew a registration that lasts for `ttl`: between half of it and two thirds, so that a third is left for tries
/// that fail, and not everybody asks at once.
fn refresh_after(ttl: Duration, rng: &mut Rng) -> Duration {
    rng.between(ttl / 2, ttl / 3 * 2)
}

/// How long to wait after the `failures`th failure in a row: doubling, with jitter.
pub(super) fn back_off(failures: u32, rng: &mut Rng) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    let longest = MIN_BACK_OFF.saturating_mul(factor).min(MAX_BACK_OFF);
    rng.between((longest / 2).max(MIN_BACK_OFF), longest)
}

/// A pause after which there is still time for another try in what is left of a registration.
fn retry_within(pause: Duration, left: Duration) -> Duration {
    pause.min((left / 2).max(LAST_RETRY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_leaves_a_third_of_the_term_for_tries_that_fail() {
        let mut rng = Rng::new([0; 32]);
        for ttl in [2, 60, 7200, 259_200].map(Duration::from_secs) {
            let pauses: Vec<_> = (0..100).map(|_| refresh_after(ttl, &mut rng)).collect();
            assert!(pauses.iter().all(|pause| *pause >= ttl / 2 && *pause <= ttl / 3 * 2), "{ttl:?}");
            assert_ne!(pauses[0], pauses[1], "jitter");
        }
    }

    #[test]
    fn a_retry_fits_in_what_is_left() {
        let mut rng = Rng::new([0; 32]);
        for left in [1, 10, 500, 1000, 1500, 30_000, 900_000, 86_400_000].map(Duration::from_millis) {
            for failures in 1..40 {
                let pause = back_off(failures, &mut rng);
                assert!(MIN_BACK_OFF <= pause && pause <= MAX_BACK_OFF);
                let retry = retry_within(pause, left);
                assert!(LAST_RETRY <= retry && retry <= (left / 2).max(LAST_RETRY), "{retry:?} of {left:?}");
            }
        }
    }
}
