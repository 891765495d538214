//! Asking who is registered: once, or again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::pb::{
    Message as _,
    rendezvous::{Discover, DiscoverResponse, Message, MessageType},
};

use super::{
    super::Status,
    Client, Cookie, Discovery, DiscoveryId, Error, Event, Found, Job, Query, Timer, Watch, check_namespace,
    record::{self, Read},
    register::{back_off, refusal},
};
use crate::{
    behaviour::{Action, Context},
    errors::CloseReason,
    ids::{StreamId, Token},
    swarm::peerstore::Source,
    time::Instant,
};

/// Pages in a row with nothing new after which a point is taken to have no more, whatever it says.
const IDLE_PAGES: u32 = 2;
/// The longest cookie that is sent back, in bytes.
const MAX_COOKIE: usize = 4096;
/// The earliest word of a watch after its last.
const MIN_POLL: Duration = Duration::from_secs(1);

/// A watch or a discovery.
#[derive(Debug)]
pub(super) struct Search {
    point: PeerId,
    namespace: Option<String>,
    /// From the latest answer; empty asks for everything.
    cookie: Vec<u8>,
    /// Pages in a row with nothing new.
    idle: u32,
    /// Whether this round has started over, as the point did not know the cookie.
    started_over: bool,
    /// Whom this round has told so far.
    round: BTreeSet<Key>,
    kind: Kind,
}

/// Whose registration: a peer's in a namespace.
type Key = (PeerId, String);

#[derive(Debug)]
enum Kind {
    /// Until all is told, an error, or [`Client::cancel_discovery`].
    Once { limit: usize, found: Vec<Found> },
    /// Until [`Client::unwatch`] or a refusal that is final.
    Watch(Watched),
}

/// What a watch knows.
#[derive(Debug)]
struct Watched {
    interval: Duration,
    /// When [`Timer::Poll`] is due; `None` while the point is being asked.
    poll: Option<Instant>,
    /// When everything is asked for again.
    resync: Instant,
    failures: u32,
    known: BTreeMap<Key, Known>,
    /// The keys of `known`, by when they expire.
    ends: BTreeSet<(Instant, Key)>,
    /// When [`Timer::Expiry`] is due: at the first of them.
    expiry: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    until: Instant,
    seq: u64,
    signed: bool,
    addresses: Vec<Multiaddr>,
}

impl Client {
    /// Asks a point once for peers. Ends in [`Event::DiscoveryEnded`].
    pub fn discover(&mut self, cx: &mut Context<'_>, query: Query) -> Result<DiscoveryId, Error> {
        let Query { point: address, namespace, limit, cookie } = query;
        let point = self.point_of(cx, &address)?;
        namespace.as_deref().map_or(Ok(()), check_namespace)?;
        if cookie.as_ref().is_some_and(|cookie| cookie.point != point || cookie.namespace != namespace) {
            return Err(Error::ForeignCookie);
        }
        let under_way = self.searches.values().filter(|search| matches!(search.kind, Kind::Once { .. }));
        if under_way.count() >= self.config.max_discoveries {
            return Err(Error::TooMany("discoveries"));
        }
        let limit = limit.unwrap_or(usize::MAX).min(self.config.max_peers);
        let kind = Kind::Once { limit, found: Vec::new() };
        let cookie = cookie.map(|cookie| cookie.bytes).unwrap_or_default();
        let id = self.begin(cx, point, &address, namespace, cookie, kind);
        self.ask(cx, point, Job::Search(id));
        Ok(DiscoveryId(id))
    }

    /// Gives a discovery up; no event follows.
    pub fn cancel_discovery(&mut self, cx: &mut Context<'_>, discovery: DiscoveryId) {
        self.remove_search(cx, discovery.0);
    }

    /// Asks a point again and again who is registered, until [`Client::unwatch`]. If that is watched already, it is asked
    /// at once, and its interval is replaced.
    pub fn watch(&mut self, cx: &mut Context<'_>, watch: Watch) -> Result<(), Error> {
        let Watch { point: address, namespace, interval } = watch;
        let point = self.point_of(cx, &address)?;
        namespace.as_deref().map_or(Ok(()), check_namespace)?;
        let interval = interval.unwrap_or(self.config.interval).max(MIN_POLL);
        if let Some(id) = self.watch_id(&point, namespace.as_deref()) {
            self.move_point(point, &address);
            if let Some(watched) = self.watched(id) {
                watched.interval = interval;
                if watched.poll.is_some() {
                    self.poll(cx, id);
                }
            }
            return Ok(());
        }
        let watches = self.searches.values().filter(|search| matches!(search.kind, Kind::Watch(_)));
        if watches.count() >= self.config.max_watches {
            return Err(Error::TooMany("watches"));
        }
        let resync = cx.now() + self.config.resync;
        let (known, ends) = Default::default();
        let (poll, expiry) = (None, None);
        let kind = Kind::Watch(Watched { interval, poll, resync, failures: 0, known, ends, expiry });
        let id = self.begin(cx, point, &address, namespace, Vec::new(), kind);
        self.poll(cx, id);
        Ok(())
    }

    /// Asks no more. Whom the watch knew is forgotten without a word.
    pub fn unwatch(&mut self, cx: &mut Context<'_>, point: PeerId, namespace: Option<&str>) {
        if let Some(id) = self.watch_id(&point, namespace) {
            self.remove_search(cx, id);
        }
    }

    /// What is watched: points and namespaces, `None` for all of them.
    pub fn watches(&self) -> impl Iterator<Item = (PeerId, Option<&str>)> + '_ {
        let watches = self.searches.values().filter(|search| matches!(search.kind, Kind::Watch(_)));
        watches.map(|search| (search.point, search.namespace.as_deref()))
    }

    /// Whom a watch knows, with the addresses to dial, by peer.
    pub fn known(
        &self,
        point: &PeerId,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (PeerId, &[Multiaddr])> + '_ {
        let search = self.watch_id(point, namespace).and_then(|id| self.searches.get(&id));
        let known = search.into_iter().filter_map(|search| match &search.kind {
            Kind::Watch(watched) => Some(&watched.known),
            Kind::Once { .. } => None,
        });
        known.flatten().map(|((peer, _), known)| (*peer, known.addresses.as_slice()))
    }

    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        point: PeerId,
        address: &Multiaddr,
        namespace: Option<String>,
        cookie: Vec<u8>,
        kind: Kind,
    ) -> Token {
        self.use_point(point, address);
        let (id, round) = (cx.token(), BTreeSet::new());
        self.searches
            .insert(id, Search { point, namespace, cookie, idle: 0, started_over: false, round, kind });
        id
    }

    fn watch_id(&self, point: &PeerId, namespace: Option<&str>) -> Option<Token> {
        let is_it = |search: &Search| {
            matches!(search.kind, Kind::Watch(_))
                && search.point == *point
                && search.namespace.as_deref() == namespace
        };
        self.searches.iter().find(|(_, search)| is_it(search)).map(|(id, _)| *id)
    }

    fn watched(&mut self, id: Token) -> Option<&mut Watched> {
        match &mut self.searches.get_mut(&id)?.kind {
            Kind::Watch(watched) => Some(watched),
            Kind::Once { .. } => None,
        }
    }

    /// A new round of a watch.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, id: Token) {
        let now = cx.now();
        self.set_poll(id, None);
        let Some(search) = self.searches.get_mut(&id) else { return };
        let Kind::Watch(watched) = &mut search.kind else { return };
        if watched.resync <= now {
            search.cookie.clear();
        }
        let point = search.point;
        self.ask(cx, point, Job::Search(id));
    }

    pub(super) fn send_discover(&mut self, cx: &mut Context<'_>, id: Token, stream: StreamId) {
        let Some(search) = self.searches.get(&id) else { return };
        let limit = match &search.kind {
            Kind::Once { limit, found } => {
                // One more, as we may be among them.
                let left = limit.saturating_sub(found.len()).saturating_add(1);
                self.config.page.min(u64::try_from(left).unwrap_or(u64::MAX))
            }
            Kind::Watch(_) => self.config.page,
        };
        let cookie = (!search.cookie.is_empty()).then(|| search.cookie.clone());
        let discover =
            Discover { ns: search.namespace.clone(), limit: Some(limit), cookie, any_dialect: Some(true) };
        let kind = Some(MessageType::Discover as i32);
        let message = Message { r#type: kind, discover: Some(discover), ..Message::default() };
        cx.send(stream, message.encode_to_vec());
    }

    pub(super) fn found(&mut self, cx: &mut Context<'_>, id: Token, answer: DiscoverResponse) {
        if let Some(refusal) = refusal(answer.status, answer.status_text.as_deref()) {
            return self.search_failed(cx, id, refusal);
        }
        let (us, is_empty) = (cx.view().local_peer(), answer.registrations.is_empty());
        let mut is_new = false;
        for registration in answer.registrations {
            let Some(search) = self.searches.get_mut(&id) else { return };
            let read = record::read(registration, search.namespace.as_deref(), us, self.config.max_addresses);
            match read {
                Ok(read) => is_new |= search.take(cx, read, self.config.max_peers),
                Err(skipped) => cx.count(skipped),
            }
        }
        self.arm_expiry(id);
        let Some(search) = self.searches.get_mut(&id) else { return };
        search.idle = if is_new { 0 } else { search.idle + 1 };
        let cookie = answer.cookie.unwrap_or_default();
        let more = !is_empty && !cookie.is_empty() && cookie != search.cookie && search.idle < IDLE_PAGES;
        if cookie.len() > MAX_COOKIE {
            return self.search_failed(cx, id, Error::Malformed("a cookie that is too long"));
        }
        // A point that has no cookie at the end is asked from the start the next time.
        search.cookie = cookie;
        if more && !search.is_full(self.config.max_peers) {
            let point = search.point;
            return self.ask(cx, point, Job::Search(id));
        }
        self.round_ended(cx, id);
    }

    /// Everything there is has been told.
    fn round_ended(&mut self, cx: &mut Context<'_>, id: Token) {
        let now = cx.now();
        let Some(search) = self.searches.get_mut(&id) else { return };
        (search.idle, search.started_over) = (0, false);
        search.round.clear();
        let (point, namespace) = (search.point, search.namespace.clone());
        match &mut search.kind {
            Kind::Once { found, .. } => {
                let (peers, bytes) = (mem::take(found), mem::take(&mut search.cookie));
                let cookie = (!bytes.is_empty()).then_some(Cookie { point, namespace, bytes });
                cx.count("rendezvous.client.discovered");
                self.remove_search(cx, id);
                let result = Ok(Discovery { peers, cookie });
                cx.emit(Event::DiscoveryEnded { discovery: DiscoveryId(id), result });
            }
            Kind::Watch(watched) => {
                watched.failures = 0;
                if watched.resync <= now {
                    watched.resync = now + self.config.resync;
                }
                // Whoever is registered still must have been told again before their time is over.
                if let Some((end, _)) = watched.ends.first() {
                    let half = now + end.saturating_duration_since(now) / 2;
                    watched.resync = watched.resync.min(half);
                }
                let pause = cx.rng().between(watched.interval / 10 * 9, watched.interval);
                let known = watched.known.len();
                self.set_poll(id, Some(now + pause.max(Duration::from_millis(1))));
                cx.count("rendezvous.client.polled");
                cx.emit(Event::Polled { point, namespace, known });
            }
        }
    }

    pub(super) fn search_failed(&mut self, cx: &mut Context<'_>, id: Token, error: Error) {
        let now = cx.now();
        let Some(search) = self.searches.get_mut(&id) else { return };
        let (point, namespace) = (search.point, search.namespace.clone());
        let is_cookie = matches!(error, Error::Refused { status: Status::InvalidCookie, .. });
        let is_ours = matches!(search.kind, Kind::Watch(_)) || !search.round.is_empty();
        if is_cookie && is_ours && !search.cookie.is_empty() && !search.started_over {
            search.cookie.clear();
            search.round.clear();
            (search.started_over, search.idle) = (true, 0);
            if let Kind::Once { found, .. } = &mut search.kind {
                found.clear();
            }
            cx.count("rendezvous.client.started_over");
            cx.emit(Event::StartedOver { point, namespace });
            return self.ask(cx, point, Job::Search(id));
        }
        (search.idle, search.started_over) = (0, false);
        search.round.clear();
        cx.count("rendezvous.client.search_failed");
        match &mut search.kind {
            Kind::Once { .. } => {
                self.remove_search(cx, id);
                cx.emit(Event::DiscoveryEnded { discovery: DiscoveryId(id), result: Err(error) });
            }
            Kind::Watch(_) if error.is_final() => {
                self.remove_search(cx, id);
                cx.emit(Event::WatchFailed { point, namespace, reason: error, retry: None });
            }
            Kind::Watch(watched) => {
                watched.failures = watched.failures.saturating_add(1);
                let retry = back_off(watched.failures, cx.rng());
                self.set_poll(id, Some(now + retry));
                cx.emit(Event::WatchFailed { point, namespace, reason: error, retry: Some(retry) });
            }
        }
    }

    /// There is a network that was not there before: watches that failed ask again now.
    pub(super) fn search_network_is_back(&mut self, cx: &mut Context<'_>) {
        let mut again = Vec::new();
        for (id, search) in &mut self.searches {
            if let Kind::Watch(watched) = &mut search.kind
                && std::mem::take(&mut watched.failures) > 0
                && !self.requests.contains_key(&Job::Search(*id))
            {
                again.push(*id);
            }
        }
        again.into_iter().for_each(|id| self.poll(cx, id));
    }

    /// A point that may have lost its state is asked for everything.
    pub(super) fn search_disconnected(&mut self, point: PeerId, reason: &CloseReason) {
        if matches!(reason, CloseReason::Local | CloseReason::Remote { .. }) {
            return;
        }
        for search in self.searches.values_mut().filter(|search| search.point == point) {
            if let Kind::Watch(_) = search.kind {
                search.cookie.clear();
            }
        }
    }

    /// Somebody's registration has ended.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>, id: Token) {
        let now = cx.now();
        let Some(search) = self.searches.get_mut(&id) else { return };
        let point = search.point;
        let Kind::Watch(watched) = &mut search.kind else { return };
        watched.expiry = None;
        while watched.ends.first().is_some_and(|(end, _)| *end <= now)
            && let Some((_, key)) = watched.ends.pop_first()
        {
            watched.known.remove(&key);
            let (peer, namespace) = key;
            cx.count("rendezvous.client.expired");
            cx.emit(Event::Expired { point, namespace, peer });
        }
        self.arm_expiry(id);
    }

    /// Takes a watch or a discovery out of the tables.
    pub(super) fn remove_search(&mut self, cx: &mut Context<'_>, id: Token) {
        self.drop_request(cx, Job::Search(id));
        self.set_poll(id, None);
        self.set_expiry(id, None);
        if let Some(search) = self.searches.remove(&id) {
            self.release_point(search.point);
        }
    }

    /// Arms the timer for whoever is the first to expire.
    fn arm_expiry(&mut self, id: Token) {
        let first = self.watched(id).and_then(|watched| watched.ends.first().map(|(end, _)| *end));
        self.set_expiry(id, first);
    }

    fn set_expiry(&mut self, id: Token, expiry: Option<Instant>) {
        let Some(watched) = self.watched(id) else { return };
        let old = mem::replace(&mut watched.expiry, expiry);
        if let Some(old) = old {
            self.timers.clear(old, Timer::Expiry(id));
        }
        if let Some(expiry) = expiry {
            self.timers.set(expiry, Timer::Expiry(id));
        }
    }

    fn set_poll(&mut self, id: Token, poll: Option<Instant>) {
        let Some(watched) = self.watched(id) else { return };
        if let Some(old) = mem::replace(&mut watched.poll, poll) {
            self.timers.clear(old, Timer::Poll(id));
        }
        if let Some(poll) = poll {
            self.timers.set(poll, Timer::Poll(id));
        }
    }
}

impl Search {
    /// Takes what a point says of a peer, and has it remembered where peers are looked up to be dialled. Returns whether
    /// it is news in this round.
    fn take(&mut self, cx: &mut Context<'_>, read: Read, max_peers: usize) -> bool {
        let key = (read.found.peer, read.found.namespace.clone());
        if self.is_full(max_peers) {
            cx.count("rendezvous.client.skipped.too_many");
            return false;
        }
        if !self.round.insert(key.clone()) {
            return false;
        }
        let point = self.point;
        match &mut self.kind {
            Kind::Once { found, .. } => {
                learn(cx, &read);
                found.push(read.found);
            }
            Kind::Watch(watched) => {
                let news = watched.learn(cx.now(), key, &read, max_peers);
                match news {
                    News::TooMany => cx.count("rendezvous.client.skipped.too_many"),
                    _ => learn(cx, &read),
                }
                match news {
                    News::Peer => cx.emit(Event::Discovered { point, found: read.found }),
                    News::Addresses => cx.emit(Event::Updated { point, found: read.found }),
                    News::None | News::TooMany => {}
                }
            }
        }
        true
    }

    fn is_full(&self, max_peers: usize) -> bool {
        match &self.kind {
            Kind::Once { limit, found } => found.len() >= *limit,
            Kind::Watch(_) => self.round.len() >= max_peers,
        }
    }
}

/// Tells the peerstore. Of two signed records it takes the newer itself.
fn learn(cx: &mut Context<'_>, read: &Read) {
    let Read { found: Found { peer, addresses, ttl, signed, .. }, seq, hostless } = read;
    cx.count_n("rendezvous.client.skipped.address", *hostless);
    let (source, record) = match signed {
        true => (Source::Certified, Some(*seq)),
        false => (Source::Rendezvous, None),
    };
    cx.push(Action::Learn { peer: *peer, addresses: addresses.clone(), source, record, ttl: *ttl });
}

/// What a registration tells a watch.
enum News {
    None,
    Peer,
    Addresses,
    TooMany,
}

impl Watched {
    fn learn(&mut self, now: Instant, key: Key, read: &Read, max_peers: usize) -> News {
        let Read { found: Found { addresses, ttl, signed, .. }, seq, .. } = read;
        let (until, is_full) = (now + *ttl, self.known.len() >= max_peers);
        let news = match self.known.get_mut(&key) {
            None if is_full => return News::TooMany,
            None => {
                let known = Known { until, seq: *seq, signed: *signed, addresses: addresses.clone() };
                self.known.insert(key.clone(), known);
                News::Peer
            }
            Some(known) => {
                self.ends.remove(&(known.until, key.clone()));
                known.until = until;
                // What a peer signed is not replaced by what it signed before, nor by what it did not sign.
                let is_older = known.signed && (!signed || *seq < known.seq);
                if is_older || known.addresses == *addresses {
                    News::None
                } else {
                    (known.seq, known.signed, known.addresses) = (*seq, *signed, addresses.clone());
                    News::Addresses
                }
            }
        };
        self.ends.insert((until, key));
        news
    }
}
