//! What the embedder is told.

use std::{any::Any, net::SocketAddr, time::Duration};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use crate::{
    behaviour::Notice,
    errors::{CloseReason, DialError, StreamFault},
    ids::{ConnectionId, DialId, QueryId, StreamId},
    names::{Direction, Family, ProtocolName},
    protocols::{identify, ping, relay, rendezvous},
    storage::StorageRequest,
};

mod display;

/// What the embedder is told, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// An address that leads to us came up; without our `/p2p`.
    Listening {
        /// The address.
        address: Multiaddr,
    },
    /// An address that led to us is gone.
    ListenClosed {
        /// The address.
        address: Multiaddr,
    },
    /// A connection is authenticated and carries streams.
    Connected {
        /// Its id.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
        /// Where it is.
        address: Multiaddr,
        /// Who opened it.
        direction: Direction,
        /// The relay it runs through, if it does.
        relay: Option<PeerId>,
    },
    /// The remote of a direct connection is somewhere else now, or is heard on another of our sockets (RFC 9000 section 9);
    /// its streams go on. [`Node::path_of`](crate::node::Node::path_of) tells more.
    PathChanged {
        /// The connection.
        connection: ConnectionId,
        /// Its peer.
        peer: PeerId,
        /// Where that is now, without its `/p2p`.
        address: Multiaddr,
    },
    /// A dial reached its peer: over a connection just established, or one that was there already.
    Dialed {
        /// The dial.
        dial: DialId,
        /// The connection to use.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
    },
    /// A connection has ended, and all its streams with it.
    Disconnected {
        /// Its id, stale by now.
        connection: ConnectionId,
        /// Its peer.
        peer: PeerId,
        /// Why, and so who is to blame.
        reason: CloseReason,
    },
    /// A dial reached nobody.
    DialFailed {
        /// The dial.
        dial: DialId,
        /// Whom it was to reach, if that was said.
        peer: Option<PeerId>,
        /// What happened at each address.
        error: DialError,
    },
    /// Somebody connected and did not get as far as being a peer.
    InboundFailed {
        /// Where it came from.
        remote: Multiaddr,
        /// Who it is, if it had proved that before it was refused.
        peer: Option<PeerId>,
        /// What went wrong.
        reason: CloseReason,
        /// How many others failed since the last of these events and are not told of: all are counted, but whoever wants
        /// could make a flood of events otherwise.
        suppressed: u64,
    },
    /// The node did not come to rest after an input: two of its machines answer each other without end, which is a fault of
    /// the program. The rest of the work is left for the next [`handle_timeout`](crate::node::Node::handle_timeout), which is
    /// due at once. Told when it begins; `node.turns_cut_off` counts.
    TurnCutOff {
        /// After so many steps.
        steps: usize,
        /// What was to be done next, and by whom.
        at: String,
    },
    /// Something happened to a stream of the embedder.
    Stream {
        /// The stream.
        stream: StreamId,
        /// What.
        event: AppStreamEvent,
    },
    /// The embedder is asked to resolve a host name; it answers with `Node::handle_resolved`.
    Resolve {
        /// Comes back in the answer.
        query: QueryId,
        /// The name.
        name: String,
        /// Which address family.
        family: Family,
    },
    /// The embedder is asked from which of the node's addresses datagrams to `remote` leave; it answers with
    /// `Node::handle_routed`. Only if that is in doubt, because several sockets are bound to addresses of that family, and
    /// never unless `Config::knows_routes` is set.
    Route {
        /// Comes back in the answer.
        query: QueryId,
        /// Where to.
        remote: SocketAddr,
    },
    /// The embedder's store is asked for something; it answers with `Node::handle_storage`. Never, unless
    /// `Config::storage` is set.
    Storage(StorageRequest),
    /// The embedder is asked for the TXT records of a name; it answers with `Node::handle_resolved_text`. One that cannot
    /// ask for them says so there.
    ResolveText {
        /// Comes back in the answer.
        query: QueryId,
        /// The name.
        name: String,
    },
    /// From ping.
    Ping(ping::Event),
    /// From identify.
    Identify(identify::Event),
    /// From the relay we are.
    Hop(relay::hop::Event),
    /// From the relays we use.
    Reservation(relay::client::Event),
    /// From the rendezvous point we are, and from those we use.
    Rendezvous(rendezvous::Event),
    /// From a behaviour of the embedder; see [`Event::notice`].
    Notice {
        /// The behaviour's name.
        behaviour: &'static str,
        /// What it says.
        notice: Box<dyn Notice>,
    },
}

impl Event {
    /// What a built-in behaviour said, as the event of its own that it is; anything else is an [`Event::Notice`].
    pub fn from_notice(behaviour: &'static str, notice: Box<dyn Notice>) -> Self {
        fn take<T: Any>(notice: Box<dyn Notice>) -> Result<T, Box<dyn Notice>> {
            if (&*notice as &dyn Any).is::<T>() {
                let notice: Box<dyn Any> = notice;
                return Ok(*notice.downcast().expect("its type was just looked at"));
            }
            Err(notice)
        }
        take(notice)
            .map(Self::Ping)
            .or_else(|notice| take(notice).map(Self::Identify))
            .or_else(|notice| take(notice).map(Self::Hop))
            .or_else(|notice| take(notice).map(Self::Reservation))
            .or_else(|notice| take(notice).map(|event| Self::Rendezvous(rendezvous::Event::Client(event))))
            .or_else(|notice| take(notice).map(|event| Self::Rendezvous(rendezvous::Event::Server(event))))
            .unwrap_or_else(|notice| Self::Notice { behaviour, notice })
    }

    /// What a behaviour said, if it is a `T`.
    pub fn notice<T: Any>(&self) -> Option<&T> {
        let said: &dyn Any = match self {
            Self::Ping(event) => event,
            Self::Identify(event) => event,
            Self::Hop(event) => event,
            Self::Reservation(event) => event,
            Self::Rendezvous(rendezvous::Event::Client(event)) => event,
            Self::Rendezvous(rendezvous::Event::Server(event)) => event,
            Self::Notice { notice, .. } => &**notice,
            _ => return None,
        };
        said.downcast_ref()
    }

    /// Whether a full queue of events should rather lose this one than others: remotes cause it as they like, or it comes
    /// again and again, and nothing has to be done about it.
    pub fn is_expendable(&self) -> bool {
        use rendezvous::{Event::Server, server::Event as Point};
        match self {
            Self::InboundFailed { .. } | Self::Identify(_) | Self::Hop(_) => true,
            Self::Rendezvous(Server(event)) => {
                !matches!(event, Point::Loaded { .. } | Point::StoreFailed { .. })
            }
            // Of these there are as many as connections, and a next one; whoever asked waits for an answer.
            Self::Ping(ping) => !ping.asked,
            _ => false,
        }
    }

    /// How that dial ended, if this event says so.
    pub fn dial_outcome(&self, ours: DialId) -> Option<Result<ConnectionId, DialError>> {
        match self {
            Self::Dialed { dial, connection, .. } if *dial == ours => Some(Ok(*connection)),
            Self::DialFailed { dial, error, .. } if *dial == ours => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// How a ping of that connection ended, if this event says so.
    pub fn ping_outcome(&self, ours: ConnectionId) -> Option<Result<Duration, ping::Failure>> {
        match self {
            Self::Ping(ping) if ping.connection == ours => Some(ping.result.clone()),
            _ => None,
        }
    }

    /// What that relay said to our request for a reservation, if this event says so: the circuit addresses that lead to
    /// us, with our `/p2p`.
    pub fn reserve_outcome(
        &self,
        ours: PeerId,
    ) -> Option<Result<Vec<Multiaddr>, relay::client::ReserveError>> {
        use relay::client::Event::{Failed, Lost, Reserved};
        match self {
            Self::Reservation(Reserved { relay, addresses, .. }) if *relay == ours => {
                Some(Ok(addresses.clone()))
            }
            Self::Reservation(Lost { relay, reason, .. } | Failed { relay, reason, .. })
                if *relay == ours =>
            {
                Some(Err(reason.clone()))
            }
            _ => None,
        }
    }

    /// What that point said to our registration in a namespace, if this event says so: for how long it was granted.
    pub fn register_outcome(
        &self,
        ours: PeerId,
        name: &str,
    ) -> Option<Result<Duration, rendezvous::client::Error>> {
        use rendezvous::client::Event::{Registered, RegistrationFailed, RegistrationLost};
        let Self::Rendezvous(rendezvous::Event::Client(event)) = self else { return None };
        match event {
            Registered { point, namespace, ttl, .. } if *point == ours && namespace == name => Some(Ok(*ttl)),
            RegistrationFailed { point, namespace, reason, .. }
            | RegistrationLost { point, namespace, reason, .. }
                if *point == ours && namespace == name =>
            {
                Some(Err(reason.clone()))
            }
            _ => None,
        }
    }

    /// What came of that discovery, if this event says so.
    pub fn discover_outcome(
        &self,
        ours: rendezvous::client::DiscoveryId,
    ) -> Option<Result<rendezvous::client::Discovery, rendezvous::client::Error>> {
        use rendezvous::client::Event::DiscoveryEnded;
        match self {
            Self::Rendezvous(rendezvous::Event::Client(DiscoveryEnded { discovery, result }))
                if *discovery == ours =>
            {
                Some(result.clone())
            }
            _ => None,
        }
    }
}

/// Something that happened to a stream of the embedder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppStreamEvent {
    /// The remote opened it for one of the embedder's protocols.
    Accepted {
        /// The connection it belongs to.
        connection: ConnectionId,
        /// The authenticated remote.
        peer: PeerId,
        /// The protocol agreed on.
        protocol: ProtocolName,
    },
    /// The remote agreed to the protocol of a stream we opened.
    Agreed,
    /// There is something to read: data, the end, or an error.
    Readable,
    /// There is room to write again, after a write that was blocked.
    Writable,
    /// The stream is gone and its id is stale.
    Reset(StreamFault),
}
