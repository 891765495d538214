//! A real relay behaviour and thousands of real client behaviours, joined without QUIC: what one sends the other gets
//! at once, and only dials, lost connections and deadlines take virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_core::{
    behaviour::{Action, Behaviour, Context, ContextParts, Input, PeerEvent, Reply, StreamEvent, View},
    counters::Counters,
    errors::{CloseReason, DialError, OpenError, StreamFault},
    identity::Identity,
    ids::{Arena, ConnectionId, StreamId, Token},
    names::{Direction, ProtocolName},
    node::Event,
    protocols::relay::{
        client::{self, Client},
        hop::{self, Hop},
    },
    rng::{HashKeys, Rng},
    streams::Queues,
    swarm::{
        addresses::{AddressSource, Addresses},
        peerstore::{Peerstore, PeerstoreConfig},
        table::{ConnectionInfo, Connections},
    },
    time::{Instant, UnixTime, WallClock},
};

/// Who joined as the nth, ever.
pub(crate) type Member = usize;

/// The longest that a dial takes.
const DIAL: Duration = Duration::from_millis(500);
/// The longest that the relay takes to notice a connection that ended without a word.
const IDLE: Duration = Duration::from_secs(30);

/// One behaviour, and the books that a node would keep for it.
pub(crate) struct Party<B> {
    pub(crate) behaviour: B,
    pub(crate) connections: Connections,
    identity: Identity,
    addresses: Addresses,
    peerstore: Peerstore,
    counters: Counters,
    protocols: Vec<ProtocolName>,
    rng: Rng,
    next_token: u64,
    streams: Arena<StreamId, End>,
    /// Its place in what comes later.
    timer: Option<(Instant, u64)>,
}

/// One end of a stream.
#[derive(Clone, Copy, Debug)]
struct End {
    connection: ConnectionId,
    /// The client at one of its ends.
    member: Member,
    /// Its id at the other end.
    far: StreamId,
    finished: bool,
}

#[derive(Debug)]
struct NoQueues;

impl Queues for NoQueues {
    fn queued(&self, _: StreamId) -> usize {
        0
    }

    fn limit(&self, _: StreamId) -> usize {
        256 << 10
    }
}

impl<B: Behaviour> Party<B> {
    pub(crate) fn new(behaviour: B, rng: &Rng) -> Self {
        let protocols = behaviour.protocols().iter().map(|spec| spec.name.clone()).collect();
        Self {
            connections: Connections::new(HashKeys::new(&mut rng.fork("hash"))),
            identity: Identity::generate(&mut rng.fork("identity")),
            addresses: Addresses::default(),
            peerstore: Peerstore::new(PeerstoreConfig::default()),
            counters: Counters::default(),
            protocols,
            rng: rng.fork(behaviour.name()),
            next_token: 0,
            streams: Arena::default(),
            timer: None,
            behaviour,
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    pub(crate) fn connect(&mut self, now: Instant, peer: PeerId, remote: Multiaddr) -> ConnectionId {
        self.connections.insert_with(|id| ConnectionInfo {
            id,
            peer,
            direction: Direction::Inbound,
            remote,
            socket: None,
            relayed: None,
            established: now,
            rtt: None,
            is_superseded: false,
        })
    }

    /// Takes a connection out of the books, and its streams; for the behaviour to hear.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId) -> Input {
        let lost: Vec<_> =
            self.streams.iter().filter(|(_, end)| end.connection == connection).map(|(id, _)| id).collect();
        for stream in lost {
            self.streams.remove(stream);
        }
        let peer = self.connections.remove(connection).expect("it is lost once").peer;
        let (remaining, reason) = (self.connections.of(&peer).len(), CloseReason::TimedOut);
        Input::Peer(PeerEvent::Disconnected { connection, peer, remaining, reason })
    }

    /// Calls the behaviour and returns what it wants.
    pub(crate) fn call(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut B, &mut Context<'_>),
    ) -> VecDeque<Action> {
        let mut actions = VecDeque::new();
        let clock = WallClock::new(UnixTime::from_secs(1_700_000_000), Instant::ZERO);
        let mut cx = Context::from(ContextParts {
            now,
            unix: clock.at(now),
            rng: &mut self.rng,
            counters: &mut self.counters,
            next_token: &mut self.next_token,
            actions: &mut actions,
            view: View {
                identity: &self.identity,
                connections: &self.connections,
                addresses: &self.addresses,
                peerstore: &self.peerstore,
                protocols: &self.protocols,
                queues: &NoQueues,
            },
        });
        act(&mut self.behaviour, &mut cx);
        actions
    }

    fn has_circuit_address(&self) -> bool {
        self.addresses.of(AddressSource::Relay).next().is_some()
    }
}

struct Peer {
    party: Party<Client>,
    /// The connection to the relay: its id here, and there.
    link: Option<(ConnectionId, ConnectionId)>,
    dialling: Option<Token>,
    /// What the client says of itself.
    reserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Relay,
    Peer(Member),
}

enum Later {
    Timeout(Who),
    Dialled(Member, Token),
    /// The relay notices.
    Gone(ConnectionId),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Reservations granted anew.
    pub(crate) reserved: u64,
    /// Reservations renewed.
    pub(crate) renewed: u64,
    /// Reservations that clients lost, all of them with their connection.
    pub(crate) lost: u64,
    /// Inputs to behaviours.
    pub(crate) inputs: u64,
}

/// The relay, the peers, and the clock.
pub(crate) struct Crowd {
    pub(crate) now: Instant,
    pub(crate) tally: Tally,
    pub(crate) relay: Party<Hop>,
    relay_address: Multiaddr,
    peers: BTreeMap<Member, Peer>,
    by_id: BTreeMap<PeerId, Member>,
    joined: usize,
    /// Who the relay says it has a reservation for.
    granted: BTreeSet<PeerId>,
    inputs: VecDeque<(Who, Input)>,
    later: BTreeMap<(Instant, u64), Later>,
    seq: u64,
    rng: Rng,
}

impl Crowd {
    pub(crate) fn new(seed: u64, config: hop::Config) -> Self {
        let rng = Rng::new([0; 32]).fork(&format!("crowd {seed}"));
        let mut relay = Party::new(Hop::new(config), &rng.fork("relay"));
        let place = ip(0);
        relay.addresses.add(place.clone(), AddressSource::Listen);
        let relay_address = place.with(Protocol::P2p(relay.peer()));
        Self {
            now: Instant::ZERO,
            tally: Tally::default(),
            relay,
            relay_address,
            peers: BTreeMap::new(),
            by_id: BTreeMap::new(),
            joined: 0,
            granted: BTreeSet::new(),
            inputs: VecDeque::new(),
            later: BTreeMap::new(),
            seq: 0,
            rng,
        }
    }

    /// A new peer comes and wants a reservation.
    pub(crate) fn join(&mut self) {
        self.joined += 1;
        let member = self.joined;
        let rng = self.rng.fork(&format!("peer {member}"));
        let party = Party::new(Client::new(client::Config::default()), &rng);
        self.by_id.insert(party.peer(), member);
        self.peers.insert(member, Peer { party, link: None, dialling: None, reserved: false });
        let address = self.relay_address.clone();
        self.command(member, |client, cx| client.reserve(cx, address).expect("the address names the relay"));
    }

    /// A peer goes for good. Returns whether it was there.
    pub(crate) fn leave(&mut self, member: Member) -> bool {
        let relay = self.relay.peer();
        self.command(member, |client, cx| client.cancel(cx, relay));
        self.disconnect(member, false);
        if let Some(token) = self.peers.get_mut(&member).and_then(|peer| peer.dialling.take()) {
            let error = DialError { attempts: Vec::new() };
            self.inputs.push_back((Who::Peer(member), Input::Reply(token, Reply::Dial(Err(error)))));
            self.settle();
        }
        let Some(peer) = self.peers.remove(&member) else { return false };
        assert!(peer.party.behaviour.is_empty(), "left behind: {:?}", peer.party.behaviour);
        assert!(!peer.party.has_circuit_address());
        if let Some(key) = peer.party.timer {
            self.later.remove(&key);
        }
        self.by_id.remove(&peer.party.peer()).is_some()
    }

    /// A peer loses its connection. If `silently`, the relay notices later than the peer.
    pub(crate) fn disconnect(&mut self, member: Member, silently: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let Some((near, far)) = peer.link.take() else { return };
        let input = peer.party.disconnect(near);
        self.inputs.push_back((Who::Peer(member), input));
        if silently {
            let at = now + self.rng.between(Duration::from_secs(1), IDLE);
            self.schedule(at, Later::Gone(far));
        } else {
            self.gone(far);
        }
        self.settle();
    }

    /// Lets everything happen that happens within `duration`.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), later) = entry.remove_entry();
            self.now = at;
            match later {
                Later::Timeout(who) => self.time_out(who),
                Later::Dialled(member, token) => self.dialled(member, token),
                Later::Gone(connection) => self.gone(connection),
            }
            self.settle();
        }
        self.now = end;
    }

    /// The peers that are there now.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.peers.keys().copied().collect()
    }

    /// Peers of whom client and relay agree that they hold a reservation. Panics if they disagree on a peer whose
    /// connection both of them have.
    pub(crate) fn reserved(&self) -> usize {
        let mut agreed = 0;
        for (member, peer) in &self.peers {
            let granted = self.granted.contains(&peer.party.peer());
            assert_eq!(peer.reserved, peer.party.has_circuit_address(), "what member {member} advertises");
            if peer.link.is_some() {
                assert_eq!(
                    peer.reserved, granted,
                    "client and relay disagree on member {member} at {}",
                    self.now
                );
            }
            agreed += usize::from(peer.reserved && granted);
        }
        agreed
    }

    /// Everybody goes, and nothing may be left.
    pub(crate) fn end(&mut self) {
        for member in self.members() {
            self.leave(member);
        }
        self.run_for(2 * IDLE);
        assert!(self.relay.behaviour.is_empty(), "left behind: {:?}", self.relay.behaviour);
        let left =
            [self.granted.len(), self.relay.connections.len(), self.relay.streams.len(), self.later.len()];
        assert_eq!(left, [0; 4]);
    }

    fn command(&mut self, member: Member, act: impl FnOnce(&mut Client, &mut Context<'_>)) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let actions = peer.party.call(now, act);
        self.carry_out(Who::Peer(member), actions);
        self.rearm(Who::Peer(member));
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((who, input)) = self.inputs.pop_front() {
            let now = self.now;
            let act = |cx: &mut Context<'_>, behaviour: &mut dyn Behaviour| behaviour.handle(cx, input);
            let actions = match who {
                Who::Relay => self.relay.call(now, |hop, cx| act(cx, hop)),
                Who::Peer(member) => match self.peers.get_mut(&member) {
                    Some(peer) => peer.party.call(now, |client, cx| act(cx, client)),
                    None => continue,
                },
            };
            self.tally.inputs += 1;
            self.carry_out(who, actions);
            self.rearm(who);
        }
    }

    fn carry_out(&mut self, who: Who, actions: VecDeque<Action>) {
        for action in actions {
            match (action, who) {
                (Action::Open { token, connection, protocol, .. }, Who::Peer(member)) => {
                    let result = self.open(member, connection, &protocol);
                    self.inputs.push_back((who, Input::Reply(token, Reply::Stream(result))));
                }
                (Action::Dial { token, .. }, Who::Peer(member)) => {
                    let at = self.now + self.rng.between(Duration::ZERO, DIAL);
                    self.schedule(at, Later::Dialled(member, token));
                    self.peers.entry(member).and_modify(|peer| peer.dialling = Some(token));
                }
                (Action::Send { stream, frame }, _) => self.tell(who, stream, StreamEvent::Frame(frame)),
                (Action::Finish { stream }, _) => self.finish(who, stream),
                (Action::Reset { stream, .. }, _) => {
                    self.tell(who, stream, StreamEvent::Reset(StreamFault::Remote(0)));
                    self.forget(who, stream);
                }
                (Action::AddAddress { address, source }, Who::Peer(member)) => {
                    self.peers.entry(member).and_modify(|peer| {
                        peer.party.addresses.add(address, source);
                    });
                }
                (Action::RemoveAddress { address, source }, Who::Peer(member)) => {
                    self.peers.entry(member).and_modify(|peer| {
                        peer.party.addresses.remove(&address, source);
                    });
                }
                (Action::Emit(notice), _) => self.on_event(who, &Event::from_notice("solo", notice)),
                (Action::Protect { .. } | Action::Unprotect { .. }, _) => {}
                (action, _) => panic!("{who:?} does not do {action:?} here"),
            }
        }
    }

    /// Where the two sides' words are held against each other.
    fn on_event(&mut self, who: Who, event: &Event) {
        match (event, who) {
            (Event::Hop(hop::Event::ReservationAccepted { peer, renewed, .. }), _) => {
                let before = !self.granted.insert(*peer);
                assert_eq!(*renewed, before);
                *(if before { &mut self.tally.renewed } else { &mut self.tally.reserved }) += 1;
            }
            (Event::Hop(hop::Event::ReservationEnded { peer, why, .. }), _) => {
                self.granted.remove(peer);
                let linked = self.by_id.get(peer).is_some_and(|member| self.peers[member].link.is_some());
                assert!(!linked, "the relay gave {peer} up although it is connected: {why}");
            }
            (Event::Hop(refused), _) => panic!("the relay refuses: {refused:?}"),
            (Event::Reservation(client::Event::Reserved { .. }), Who::Peer(member)) => {
                self.peers.entry(member).and_modify(|peer| peer.reserved = true);
            }
            (Event::Reservation(client::Event::Lost { reason, .. }), Who::Peer(member)) => {
                let Some(peer) = self.peers.get_mut(&member) else { return };
                peer.reserved = false;
                let granted = self.granted.contains(&peer.party.peer());
                let cancelled = *reason == client::ReserveError::Cancelled;
                assert!(
                    !(peer.link.is_some() && granted) || cancelled,
                    "member {member} lost a reservation that the relay still has: {reason}"
                );
                self.tally.lost += u64::from(!cancelled);
            }
            (Event::Reservation(client::Event::Failed { reason, .. }), _) => panic!("not granted: {reason}"),
            _ => {}
        }
    }

    fn time_out(&mut self, who: Who) {
        self.timer(who).into_iter().for_each(|timer| *timer = None);
        self.inputs.push_back((who, Input::Timeout));
    }

    fn dialled(&mut self, member: Member, token: Token) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let (id, relay) = (peer.party.peer(), self.relay.peer());
        let far = self.relay.connect(now, id, ip(member));
        let near = peer.party.connect(now, relay, ip(0));
        peer.dialling = None;
        peer.link = Some((near, far));
        let connected = |connection, peer| Input::Peer(PeerEvent::Connected { connection, peer });
        self.inputs.push_back((Who::Relay, connected(far, id)));
        self.inputs.push_back((Who::Peer(member), connected(near, relay)));
        self.inputs.push_back((Who::Peer(member), Input::Reply(token, Reply::Dial(Ok(near)))));
    }

    fn gone(&mut self, connection: ConnectionId) {
        let input = self.relay.disconnect(connection);
        self.inputs.push_back((Who::Relay, input));
    }

    fn open(
        &mut self,
        member: Member,
        connection: ConnectionId,
        protocol: &ProtocolName,
    ) -> Result<StreamId, OpenError> {
        let peer = self.peers.get_mut(&member).ok_or(OpenError::NoConnection)?;
        let (near, far) = peer.link.filter(|link| link.0 == connection).ok_or(OpenError::NoConnection)?;
        let end = |connection, other| End { connection, member, far: other, finished: false };
        let there = self.relay.streams.insert_with(|id| end(far, id));
        let here = peer.party.streams.insert(end(near, there));
        self.relay.streams.get_mut(there).expect("just made").far = here;
        let peer = peer.party.peer();
        let accepted = StreamEvent::Accepted { connection: far, peer, protocol: protocol.clone() };
        self.inputs.push_back((Who::Relay, Input::Stream(there, accepted)));
        Ok(here)
    }

    fn end_of(&mut self, who: Who, stream: StreamId) -> Option<&mut End> {
        match who {
            Who::Relay => self.relay.streams.get_mut(stream),
            Who::Peer(member) => self.peers.get_mut(&member)?.party.streams.get_mut(stream),
        }
    }

    /// The other end of a stream, if there is still somebody.
    fn other_end(&mut self, who: Who, stream: StreamId) -> Option<(Who, StreamId)> {
        let End { member, far, .. } = *self.end_of(who, stream)?;
        let other = if who == Who::Relay { Who::Peer(member) } else { Who::Relay };
        self.end_of(other, far).is_some().then_some((other, far))
    }

    fn tell(&mut self, who: Who, stream: StreamId, event: StreamEvent) {
        if let Some((other, far)) = self.other_end(who, stream) {
            self.inputs.push_back((other, Input::Stream(far, event)));
        }
    }

    fn finish(&mut self, who: Who, stream: StreamId) {
        let Some(end) = self.end_of(who, stream) else { return };
        end.finished = true;
        self.tell(who, stream, StreamEvent::Finished);
        let Some((other, far)) = self.other_end(who, stream) else { return };
        if self.end_of(other, far).is_some_and(|end| end.finished) {
            self.forget(who, stream);
        }
    }

    fn forget(&mut self, who: Who, stream: StreamId) {
        for (who, stream) in self.other_end(who, stream).into_iter().chain([(who, stream)]) {
            let _ = match who {
                Who::Relay => self.relay.streams.remove(stream),
                Who::Peer(member) => {
                    self.peers.get_mut(&member).and_then(|peer| peer.party.streams.remove(stream))
                }
            };
        }
    }

    fn schedule(&mut self, at: Instant, later: Later) -> (Instant, u64) {
        self.seq += 1;
        self.later.insert((at, self.seq), later);
        (at, self.seq)
    }

    fn rearm(&mut self, who: Who) {
        let deadline = match who {
            Who::Relay => self.relay.behaviour.deadline(),
            Who::Peer(member) => self.peers.get(&member).and_then(|peer| peer.party.behaviour.deadline()),
        };
        if let Some(deadline) = deadline {
            assert!(deadline.at > self.now, "{who:?} was due for \"{}\" at {}", deadline.why, deadline.at);
        }
        let at = deadline.map(|deadline| deadline.at);
        let Some(old) = self.timer(who).map(|timer| *timer) else { return };
        if old.map(|key| key.0) == at {
            return;
        }
        if let Some(key) = old {
            self.later.remove(&key);
        }
        let new = at.map(|at| self.schedule(at, Later::Timeout(who)));
        self.timer(who).into_iter().for_each(|timer| *timer = new);
    }

    fn timer(&mut self, who: Who) -> Option<&mut Option<(Instant, u64)>> {
        match who {
            Who::Relay => Some(&mut self.relay.timer),
            Who::Peer(member) => self.peers.get_mut(&member).map(|peer| &mut peer.party.timer),
        }
    }
}

/// An address of its own for each.
pub(crate) fn ip(member: Member) -> Multiaddr {
    let [_, high, middle, low] = (member as u32 + 1).to_be_bytes();
    Multiaddr::empty()
        .with(Protocol::Ip4(Ipv4Addr::new(80, high, middle, low)))
        .with(Protocol::Udp(4001))
        .with(Protocol::QuicV1)
}
