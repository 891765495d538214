//! One behaviour that answers requests, with the least of books around it: for crowds, floods and measurements, where
//! [`Solo`](crate::solo::Solo) with its transcript would be most of the work.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_core::{
    behaviour::{Action, Behaviour, Context, ContextParts, Input, PeerEvent, Reply, StreamEvent, View},
    counters::Counters,
    errors::CloseReason,
    identity::Identity,
    ids::{Arena, ConnectionId, StreamId},
    names::{Direction, ProtocolName},
    rng::{HashKeys, Rng},
    storage::Rows,
    streams::Queues,
    swarm::{
        addresses::Addresses,
        peerstore::{Peerstore, PeerstoreConfig},
        table::{ConnectionInfo, Connections},
    },
    time::{Instant, WallClock},
};

use crate::solo::EPOCH;

/// A behaviour, its connections, and time.
#[derive(Debug)]
pub struct Bare<B> {
    /// The behaviour itself.
    pub behaviour: B,
    /// What it counted.
    pub counters: Counters,
    /// The established connections.
    pub connections: Connections,
    protocol: ProtocolName,
    identity: Identity,
    addresses: Addresses,
    peerstore: Peerstore,
    rng: Rng,
    now: Instant,
    next_token: u64,
    streams: Arena<StreamId, ()>,
    actions: VecDeque<Action>,
    replies: VecDeque<Input>,
}

/// What is known of a direct connection that was opened by its remote.
pub fn inbound(id: ConnectionId, peer: PeerId, remote: Multiaddr, established: Instant) -> ConnectionInfo {
    ConnectionInfo {
        id,
        peer,
        direction: Direction::Inbound,
        remote,
        socket: None,
        relayed: None,
        established,
        rtt: None,
        is_superseded: false,
    }
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

impl<B: Behaviour> Bare<B> {
    /// Nothing but the behaviour, at time zero. Its store is empty, and takes everything and keeps nothing.
    pub fn new(behaviour: B) -> Self {
        let rng = Rng::new([3; 32]);
        let mut bare = Self {
            counters: Counters::default(),
            connections: Connections::new(HashKeys::new(&mut rng.fork("hash"))),
            protocol: behaviour.protocols()[0].name.clone(),
            identity: Identity::generate(&mut rng.fork("identity")),
            addresses: Addresses::default(),
            peerstore: Peerstore::new(PeerstoreConfig::default()),
            rng: rng.fork(behaviour.name()),
            now: Instant::ZERO,
            next_token: 0,
            streams: Arena::default(),
            actions: VecDeque::new(),
            replies: VecDeque::new(),
            behaviour,
        };
        bare.input(Input::Addresses);
        bare
    }

    /// A peer connects from an address.
    pub fn connect(&mut self, peer: PeerId, remote: Multiaddr) -> ConnectionId {
        let established = self.now;
        let connection = self.connections.insert_with(|id| inbound(id, peer, remote, established));
        self.input(Input::Peer(PeerEvent::Connected { connection, peer }));
        connection
    }

    /// A connection is closed by its peer.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        let Some(info) = self.connections.remove(connection) else { return };
        let (peer, remaining) = (info.peer, self.connections.of(&info.peer).len());
        let reason = CloseReason::TimedOut;
        self.input(Input::Peer(PeerEvent::Disconnected { connection, peer, remaining, reason }));
    }

    /// A peer opens a stream, says one thing and hears what is said to that.
    pub fn ask(&mut self, connection: ConnectionId, frame: Bytes) -> Option<Bytes> {
        let peer = self.connections.get(connection)?.peer;
        let stream = self.streams.insert(());
        let protocol = self.protocol.clone();
        self.input(Input::Stream(stream, StreamEvent::Accepted { connection, peer, protocol }));
        let answer = self.input(Input::Stream(stream, StreamEvent::Frame(frame)));
        self.input(Input::Stream(stream, StreamEvent::Drained));
        self.input(Input::Stream(stream, StreamEvent::Finished));
        self.streams.remove(stream);
        answer
    }

    /// Time passes; what is due on the way is done.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.behaviour.deadline().filter(|deadline| deadline.at <= end) {
            self.now = deadline.at;
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    /// Something happens; returns the last frame that was sent.
    pub fn input(&mut self, input: Input) -> Option<Bytes> {
        let mut sent = None;
        self.replies.push_back(input);
        while let Some(input) = self.replies.pop_front() {
            let mut cx = Context::from(ContextParts {
                now: self.now,
                unix: WallClock::new(EPOCH, Instant::ZERO).at(self.now),
                rng: &mut self.rng,
                counters: &mut self.counters,
                next_token: &mut self.next_token,
                actions: &mut self.actions,
                view: View {
                    identity: &self.identity,
                    connections: &self.connections,
                    addresses: &self.addresses,
                    peerstore: &self.peerstore,
                    protocols: std::slice::from_ref(&self.protocol),
                    queues: &NoQueues,
                },
            });
            self.behaviour.handle(&mut cx, input);
            while let Some(action) = self.actions.pop_front() {
                match action {
                    Action::Send { frame, .. } => sent = Some(frame),
                    Action::Load { token, .. } => {
                        self.replies.push_back(Input::Reply(token, Reply::Loaded(Ok(Rows::default()))));
                    }
                    Action::Store { token, .. } => {
                        self.replies.push_back(Input::Reply(token, Reply::Stored(Ok(()))));
                    }
                    _ => {}
                }
            }
        }
        sent
    }
}
