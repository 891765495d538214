//! What clients ask for, done.

use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::PeerId;
use peerless_proto::pb::{
    Message as _,
    rendezvous::{
        Discover, DiscoverResponse, Message, MessageType, Page, Register, RegisterResponse, Unregister,
    },
};

use super::{
    super::{MAX_MESSAGE, MAX_NAMESPACE, Status},
    Client, Config, Event, MAX_UNSENT, Phase, Point, Request, Server,
    cookie::Position,
    dialect::{self, Reads, Record},
    journal::Waiting,
    owners::Owner,
    refusal::Refusal,
    rows,
    table::{Ended, Step, Table},
};
use crate::{
    behaviour::Context,
    ids::{StreamId, Token},
    protocols::relay::limits::Place,
    storage::StoreError,
    time::Instant,
};

/// Registrations that one request may pass over because its client cannot read their records.
const MAX_PASSED_OVER: usize = 10_000;
/// What an answer has beside its registrations.
const ANSWER_SPARE: usize = 1024;

impl Server {
    /// `reads` is what a discoverer reads.
    pub(super) fn on_request(
        &mut self,
        cx: &mut Context<'_>,
        stream: StreamId,
        request: Request,
        reads: Reads,
    ) {
        let Some(client) = self.client(cx.view(), stream) else { return };
        let allowed = self.spend(cx, &client);
        match request {
            Request::Register(request) => {
                let namespace = request.ns.clone().filter(|ns| is_namespace(ns));
                match allowed.and_then(|()| self.register(cx, &client, request)) {
                    Ok(waiting) => {
                        self.wait(waiting);
                        self.on_reader_known(cx, &client);
                    }
                    Err(refusal) => self.refuse_register(cx, &client, namespace, refusal),
                }
            }
            // Not answered, whatever comes of it.
            Request::Unregister(request) => match allowed {
                Ok(()) => self.unregister(cx, &client, &request),
                Err(refusal) => cx.count(refusal.counter()),
            },
            Request::Discover(request) => {
                let answer = allowed.and_then(|()| self.discover(cx, reads, &request));
                match answer {
                    Ok(page) => self.answer(cx, stream, page),
                    Err(refusal) => self.refuse_discover(cx, &client, request.ns, refusal),
                }
            }
        }
    }

    /// Takes one from what the client and its host may ask.
    fn spend(&mut self, cx: &Context<'_>, client: &Client) -> Result<(), Refusal> {
        let (now, limits) = (cx.now(), &self.config.limits);
        let peer_rate = limits.request_rate_per_peer;
        if peer_rate.take(self.peers.full_at(&client.peer), now).is_none() {
            return Err(Refusal::RatePeer);
        }
        if let Some(host) = client.host {
            let rate = limits.request_rate_per_ip;
            if rate.take(self.hosts.full_at(&host), now).is_none() {
                return Err(Refusal::RateIp);
            }
            self.hosts.take(rate, host, now);
        }
        self.peers.take(peer_rate, client.peer, now);
        Ok(())
    }

    // REGISTER.

    fn register(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        request: Register,
    ) -> Result<Waiting, Refusal> {
        let limits = &self.config.limits;
        let namespace = request.ns.filter(|ns| is_namespace(ns)).ok_or(Refusal::Namespace)?;
        let ttl = request.ttl.map_or(self.config.default_ttl, Duration::from_secs);
        if ttl < limits.min_ttl {
            return Err(Refusal::TtlShort);
        }
        if ttl > limits.max_ttl {
            return Err(Refusal::TtlLong);
        }
        let bytes = request.signed_peer_record.unwrap_or_default();
        let Phase::Ready(point) = &mut self.phase else { return Err(Refusal::OutOfService) };
        let Point { table, journal, .. } = &mut **point;
        if journal.is_resting(cx.now()) {
            return Err(Refusal::StoreFailed);
        }
        if journal.is_full() {
            return Err(Refusal::StoreBehind);
        }
        let peer = client.peer.to_bytes();
        let known = table.owner(&peer);
        let there = table.namespace(&namespace);
        let refreshed = known.zip(there).is_some_and(|(owner, there)| table.find(owner, there).is_some());
        if !refreshed {
            let of_peer = known.map_or(0, |owner| table.owner_at(owner).registrations());
            let in_namespace = there.map_or(0, |there| table.in_namespace(there));
            let counts = [
                (table.len(), limits.max_registrations, Refusal::Full),
                (of_peer, limits.max_per_peer, Refusal::PeerFull),
                (in_namespace, limits.max_per_namespace, Refusal::NamespaceFull),
            ];
            if let Some((.., refusal)) = counts.into_iter().find(|(count, max, _)| *max > 0 && count >= max) {
                return Err(refusal);
            }
        }
        let host = host_for(table, limits.max_per_ip, known, client.host, refreshed)?;
        let kept = known.map(|owner| table.owner_at(owner));
        let take = |bytes: &[u8]| take_record(bytes, kept, client.peer, &self.config);
        let last = kept.filter(|kept| kept.gave_last(&bytes)).and_then(Owner::dialect);
        let record = if last.is_some() { None } else { Some(take(&bytes)?) };
        let other = request.other_record.filter(|other| !kept.is_some_and(|kept| kept.gave_beside(other)));
        let other = other.map(|other| take(&other)).transpose()?;
        if other.as_ref().map(|other| other.dialect) == last.or(record.as_ref().map(|record| record.dialect))
        {
            return Err(Refusal::Record);
        }
        // Nothing refuses it any more.
        let owner = table.add_owner(&peer);
        let moved = table.owner_at(owner).host() != host;
        if moved {
            table.move_owner(owner, host);
        }
        let mut changed = record.is_some_and(|record| table.put_record(owner, &record));
        changed |= other.is_some_and(|other| table.put_beside(owner, other));
        let (slot, _) = table.register(owner, &namespace, cx.now() + ttl);
        if moved || changed {
            journal.write(rows::put_owner(table.owner_at(owner)));
        }
        let Some(registration) = table.get(slot) else { return Err(Refusal::OutOfService) };
        let numbers = (registration.created, registration.refreshed);
        journal.write(rows::put_registration(&peer, &namespace, numbers, cx.unix() + ttl));
        let (number, stream, peer) = (registration.refreshed, client.stream, client.peer);
        Ok(Waiting { stream, peer, namespace, number, ttl, refreshed })
    }

    fn wait(&mut self, waiting: Waiting) {
        if let Some(exchange) = self.exchanges.get_mut(waiting.stream) {
            exchange.storing = true;
        }
        if let Phase::Ready(point) = &mut self.phase {
            point.journal.wait(waiting);
        }
    }

    /// A registration tells what its client reads.
    fn on_reader_known(&mut self, cx: &mut Context<'_>, client: &Client) {
        let given = self.given(client.peer);
        if given.is_some_and(|dialect| self.readers.on_registered(client.connection, dialect)) {
            self.serve_connection(cx, client.connection);
        }
    }

    pub(super) fn on_stored(&mut self, cx: &mut Context<'_>, token: Token, result: Result<(), StoreError>) {
        let Phase::Ready(point) = &mut self.phase else { return };
        let Some(waiting) = point.journal.ended(cx.now(), token, result.is_ok()) else { return };
        if let Err(error) = &result {
            cx.count("rendezvous.store_failed");
            cx.emit(Event::StoreFailed { error: error.to_string() });
        }
        for waiting in waiting {
            let stream = waiting.stream;
            match &result {
                Ok(()) => self.registered(cx, waiting),
                Err(_) => self.take_back(cx, waiting),
            }
            if let Some(exchange) = self.exchanges.get_mut(stream) {
                exchange.storing = false;
                self.serve(cx, stream);
            }
        }
    }

    fn registered(&mut self, cx: &mut Context<'_>, waiting: Waiting) {
        let Waiting { stream, peer, namespace, ttl, refreshed, .. } = waiting;
        cx.count(if refreshed { "rendezvous.refreshed" } else { "rendezvous.registered" });
        self.answer(cx, stream, register_response(Status::Ok, None, Some(ttl)));
        cx.emit(Event::Registered { peer, namespace, ttl, refreshed });
    }

    /// A registration could not be stored: if it is new it is not there, unless somebody waits who has refreshed it since.
    fn take_back(&mut self, cx: &mut Context<'_>, waiting: Waiting) {
        let Waiting { stream, peer, namespace, number, refreshed, .. } = waiting;
        if let Phase::Ready(point) = &mut self.phase {
            let slot = point.find(&peer.to_bytes(), &namespace).filter(|_| !refreshed);
            let last = slot.and_then(|slot| point.table.get(slot)).map(|found| found.refreshed);
            match slot {
                Some(slot) if last == Some(number) => _ = point.remove(slot),
                Some(_) => point.journal.is_new(&peer, &namespace),
                None => {}
            }
        }
        if let Some(client) = self.client(cx.view(), stream) {
            self.refuse_register(cx, &client, Some(namespace), Refusal::StoreFailed);
        }
    }

    // UNREGISTER.

    fn unregister(&mut self, cx: &mut Context<'_>, client: &Client, request: &Unregister) {
        let Phase::Ready(point) = &mut self.phase else { return };
        let namespace = request.ns.as_deref().unwrap_or_default();
        let Some(slot) = point.find(&client.peer.to_bytes(), namespace) else { return };
        if let Some(ended) = point.remove(slot) {
            cx.count("rendezvous.unregistered");
            cx.emit(Event::Unregistered { peer: client.peer, namespace: ended.namespace.into() });
        }
    }

    // DISCOVER.

    fn discover(&mut self, cx: &mut Context<'_>, reads: Reads, request: &Discover) -> Result<Bytes, Refusal> {
        let Phase::Ready(point) = &self.phase else { return Err(Refusal::OutOfService) };
        let Point { table, baker, .. } = &**point;
        let namespace = request.ns.as_deref().filter(|ns| !ns.is_empty());
        if namespace.is_some_and(|ns| !is_namespace(ns)) {
            return Err(Refusal::Namespace);
        }
        if self.unsent >= MAX_UNSENT {
            return Err(Refusal::Unsent);
        }
        let position = match request.cookie.as_deref().filter(|cookie| !cookie.is_empty()) {
            None => table.start(),
            Some(cookie) => {
                let position = baker.taste(namespace, cookie).ok_or(Refusal::Cookie)?;
                // One from after what is stored here: the store was put back to an earlier state.
                Some(position)
                    .filter(|position| position.latest() <= table.latest())
                    .ok_or(Refusal::Cookie)?
            }
        };
        let limit = self.page_limit(request.limit);
        let found = point.read(namespace, position, limit, reads, cx.now());
        let cookie = baker.bake(namespace, found.position);
        cx.count("rendezvous.discovered");
        cx.count_n("rendezvous.registrations_sent", found.page.len() as u64);
        cx.count_n("rendezvous.left_out", found.left_out as u64);
        Ok(found.page.finish(cookie))
    }

    /// Most registrations in the answer to a request; 0 is no wish.
    fn page_limit(&self, wanted: Option<u64>) -> usize {
        let wanted = wanted.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let wanted = wanted.unwrap_or(usize::MAX);
        match self.config.limits.max_page {
            0 => wanted,
            max => wanted.min(max),
        }
    }

    // Answers.

    fn answer(&mut self, cx: &mut Context<'_>, stream: StreamId, answer: Bytes) {
        if let Some(exchange) = self.exchanges.get_mut(stream) {
            exchange.unsent += answer.len();
            self.unsent += answer.len();
            cx.send(stream, answer);
        }
    }

    fn refuse_register(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        namespace: Option<String>,
        refusal: Refusal,
    ) {
        let (status, why) = (refusal.status(), refusal.why());
        cx.count(refusal.counter());
        let text = refusal.text(&self.config.limits);
        self.answer(cx, client.stream, register_response(status, Some(&text), None));
        cx.emit(Event::Refused { peer: client.peer, request: "register", namespace, status, why });
    }

    fn refuse_discover(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client,
        namespace: Option<String>,
        refusal: Refusal,
    ) {
        let (status, why) = (refusal.status(), refusal.why());
        let namespace = namespace.filter(|ns| is_namespace(ns));
        cx.count(refusal.counter());
        let answer = Message {
            r#type: Some(MessageType::DiscoverResponse as i32),
            discover_response: Some(DiscoverResponse {
                status: Some(status.code()),
                status_text: Some(why.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.answer(cx, client.stream, answer.encode_to_vec().into());
        cx.emit(Event::Refused { peer: client.peer, request: "discover", namespace, status, why });
    }
}

/// What there is to answer a discovery with.
struct Found {
    page: Page,
    /// Where the next page begins.
    position: Position,
    /// How many were left out because the client does not read their records.
    left_out: usize,
}

impl Point {
    /// A page of a namespace, or of all.
    fn read(
        &self,
        namespace: Option<&str>,
        position: Position,
        limit: usize,
        reads: Reads,
        now: Instant,
    ) -> Found {
        let table = &self.table;
        let mut found = Found { page: Page::default(), position, left_out: 0 };
        for step in table.read(namespace, position, limit) {
            let (entry, next) = match step {
                Step::End(end) => {
                    found.position = end;
                    break;
                }
                Step::Next(..) if found.page.len() >= limit || found.left_out >= MAX_PASSED_OVER => break,
                Step::Next(entry, next) => (entry, next),
            };
            let owner = table.owner_at(entry.owner);
            if let Some(given) = owner.for_reader(reads) {
                let (record, name) = (given.pieces(), namespace.unwrap_or_else(|| table.name_at(entry.slot)));
                let len = record.iter().map(|piece| piece.len()).sum::<usize>();
                if found.page.size() + len + name.len() + 2 * ANSWER_SPARE > MAX_MESSAGE {
                    break;
                }
                let left = table.expires(entry.slot).saturating_duration_since(now);
                found.page.push(name, &record, seconds(left));
            } else {
                found.left_out += 1;
            }
            found.position = next;
        }
        found
    }

    /// Where the peer's registration in the namespace is.
    fn find(&self, peer: &[u8], namespace: &str) -> Option<u32> {
        self.table.find(self.table.owner(peer)?, self.table.namespace(namespace)?)
    }

    /// Ends a registration, in the store too.
    fn remove(&mut self, slot: u32) -> Option<Ended> {
        let ended = self.table.remove(slot)?;
        self.unstore(&ended);
        Some(ended)
    }

    /// Has the store forget what has ended.
    pub(super) fn unstore(&mut self, ended: &Ended) {
        self.journal.write(rows::delete_registration(&ended.peer, &ended.namespace));
        if ended.last {
            self.journal.write(rows::delete_owner(&ended.peer));
        }
    }
}

/// A peer's record, if it is good and not older than what is kept.
fn take_record(
    bytes: &[u8],
    kept: Option<Owner<'_>>,
    peer: PeerId,
    config: &Config,
) -> Result<Record, Refusal> {
    if bytes.is_empty() || bytes.len() > config.limits.max_record {
        return Err(Refusal::Record);
    }
    let record = dialect::verify(bytes, peer, config.accept_unsigned)?;
    if kept.is_some_and(|kept| !kept.accepts(&record)) {
        return Err(Refusal::OldRecord);
    }
    Ok(record)
}

/// Where a peer's registrations are counted if it registers from `host`. One that refreshes stays where it was when
/// there is no room.
fn host_for(
    table: &Table,
    max: usize,
    owner: Option<u32>,
    host: Option<Place>,
    refreshed: bool,
) -> Result<Option<Place>, Refusal> {
    let (old, count) =
        owner.map_or((None, 0), |at| (table.owner_at(at).host(), table.owner_at(at).registrations()));
    let added = usize::from(!refreshed) + if old == host { 0 } else { count };
    let has_room = max == 0 || added == 0 || host.is_none_or(|host| table.at_host(host) + added <= max);
    match has_room {
        true => Ok(host),
        false if refreshed => Ok(old),
        false => Err(Refusal::IpFull),
    }
}

fn is_namespace(name: &str) -> bool {
    (1..=MAX_NAMESPACE).contains(&name.len())
}

fn register_response(status: Status, why: Option<&str>, ttl: Option<Duration>) -> Bytes {
    let response = RegisterResponse {
        status: Some(status.code()),
        status_text: why.map(Into::into),
        ttl: ttl.map(seconds),
    };
    let message = Message {
        r#type: Some(MessageType::RegisterResponse as i32),
        register_response: Some(response),
        ..Default::default()
    };
    message.encode_to_vec().into()
}

/// Whole seconds, rounded up: what lives has a second left.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
