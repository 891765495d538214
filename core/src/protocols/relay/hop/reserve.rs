//! Reservations: granted, renewed, ended.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use smallvec::SmallVec;

use super::{
    super::{
        limits::{Places, Refusal, Renewal, ReserveRequest, places},
        wire,
    },
    Ask, Asker, Event, Hop, Reservation, Timer,
    books::ip_of,
    grant::{fill_addresses, grant},
};
use crate::{
    behaviour::{Context, View},
    errors::RelayStatus,
    ids::ConnectionId,
    swarm::tags,
    time::{Instant, UnixTime},
};

impl Reservation {
    fn renewal(&self, now: Instant) -> Renewal {
        let term = self.until.saturating_duration_since(self.since);
        if now.saturating_duration_since(self.since) < term / 2 { Renewal::Early } else { Renewal::Due }
    }
}

impl Hop {
    pub(super) fn on_reserve(&mut self, cx: &mut Context<'_>, asker: Asker) {
        let (now, peer) = (cx.now(), asker.peer);
        let places = self.places_of(cx.view(), asker.connection);
        let ip = places.first().copied();
        let held = self.reservations.get(&peer);
        let renewal = held.map_or(Renewal::New, |held| held.renewal(now));
        if let Err(refusal) = self.may_reserve(cx, asker, &places, renewal) {
            cx.count(refusal.counter());
            let (status, why) = (refusal.status(), refusal.why());
            cx.emit(Event::ReservationRefused { peer, status, why });
            return self.answer(cx, asker, &wire::hop_answer(status));
        }
        if renewal != Renewal::Due {
            self.books.spend_reservation(&self.config.limits, peer, now);
        }
        if renewal == Renewal::New {
            self.books.spend_new_reservation(&self.config.limits, ip, now);
        }
        self.drop_reservation(peer);
        let until = now + self.config.reservation_ttl;
        let expires = UnixTime::from_secs((cx.unix() + self.config.reservation_ttl).as_secs());
        self.timers.set(until, Timer::Reservation(peer));
        self.books.reservations.add(places.iter().copied());
        let reservation = Reservation { connection: asker.connection, since: now, until, places };
        self.reservations.insert(peer, reservation);
        let renewed = renewal != Renewal::New;
        if !renewed {
            cx.protect(peer, tags::RESERVATION);
        }
        cx.count(if renewed { "relay.hop.renewed" } else { "relay.hop.reserved" });
        let mut message = wire::hop_answer(RelayStatus::Ok);
        message.limit = wire::limit_to_wire(self.config.limits.circuit());
        message.reservation = Some(grant(cx.view(), peer, expires));
        if let Some(info) = cx.view().connections.get(asker.connection) {
            fill_addresses(&mut message, cx.view(), &info.remote);
        }
        self.answer(cx, asker, &message);
        cx.emit(Event::ReservationAccepted { peer, expires, renewed });
    }

    fn may_reserve(
        &self,
        cx: &Context<'_>,
        asker: Asker,
        places: &Places,
        renewal: Renewal,
    ) -> Result<(), Refusal> {
        let peer = asker.peer;
        let own = self.reservations.get(&peer).map(|held| &held.places);
        let others = places.iter().filter(|place| !own.is_some_and(|own| own.contains(place)));
        let counted: SmallVec<[_; 4]> =
            others.map(|place| (*place, self.books.reservations.get(place))).collect();
        let (peer_full_at, ip_full_at) = self.books.reserving.full_at(&peer, places.first().copied());
        let request = ReserveRequest {
            relayed: asker.relayed,
            allowed: self.allows(cx.view(), asker.connection, |address| Ask::Reserve { peer, address }),
            renewal,
            reservations: self.reservations.len(),
            places: &counted,
            peer_full_at,
            ip_full_at,
        };
        self.config.limits.reserve(cx.now(), &request)
    }

    /// Whether the embedder allows what a peer asks for over a connection.
    pub(super) fn allows<'a>(
        &self,
        view: View<'a>,
        connection: ConnectionId,
        ask: impl FnOnce(&'a Multiaddr) -> Ask<'a>,
    ) -> bool {
        let Some(acl) = &self.config.acl else { return true };
        view.connections.get(connection).is_some_and(|info| acl.allows(&ask(&info.remote)))
    }

    /// Where the remote of a connection is.
    pub(super) fn places_of(&self, view: View<'_>, connection: ConnectionId) -> Places {
        let Some(ip) = view.connections.get(connection).and_then(|info| ip_of(&info.remote)) else {
            return Places::new();
        };
        places(ip, self.config.asn.as_ref().and_then(|asn| asn.find(ip.to_canonical())))
    }

    /// Takes a reservation out of the books.
    fn drop_reservation(&mut self, peer: PeerId) -> bool {
        let Some(reservation) = self.reservations.remove(&peer) else { return false };
        self.timers.clear(reservation.until, Timer::Reservation(peer));
        self.books.reservations.sub(reservation.places);
        true
    }

    pub(super) fn end_reservation(&mut self, cx: &mut Context<'_>, peer: PeerId, why: &'static str) {
        if self.drop_reservation(peer) {
            cx.unprotect(peer, tags::RESERVATION);
            cx.emit(Event::ReservationEnded { peer, why });
        }
    }
}
