//! Connection management: whom we are connected to, why, and who goes first.
//!
//! | file           | what it is                                                             |
//! |----------------|------------------------------------------------------------------------|
//! | `config.rs`    | [`SwarmConfig`]: everything that can be set, and what makes sense      |
//! | `table.rs`     | established connections                                                |
//! | `gate.rs`      | whom we talk to at all: networks and peers, at five points             |
//! | `special.rs`   | addresses that are not reachable from everywhere, and those of no host |
//! | `network.rs`   | networks                                                               |
//! | `resources.rs` | how much of everything, by scope                                       |
//! | `tags.rs`      | what peers are worth to us, and who must stay                          |
//! | `pruner.rs`    | who goes when there are too many                                       |
//! | `autoconnect.rs` | who is dialled unasked, and when                                     |
//! | `health.rs`    | how healthy connections are, and which are to be replaced              |
//! | `select.rs`    | which of several connections carries a new stream                      |
//! | `dial/`        | dials: queue, ranking, back-off, black holes                           |

pub mod autoconnect;
pub mod config;
pub mod dial;
pub mod gate;
pub mod health;
pub mod network;
pub mod pruner;
pub mod resources;
pub mod select;
pub(crate) mod special;
pub mod table;
pub mod tags;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

pub use self::{
    config::{InvalidConfig, SwarmConfig},
    special::{Hostless, hostless},
};
use self::{
    gate::{Candidate, Denied, Gate, Point},
    pruner::Pruner,
    resources::{Exceeded, Resource, Resources, Scope},
    table::Direction,
    tags::Tags,
};
use crate::{
    ids::{ConnectionShare, QuicId},
    protocols::rate::Rate,
    quic::{Admission, Verdict},
    time::Instant,
};

/// The machines of connection management; the node asks them and does what they say.
#[derive(Debug)]
pub struct Swarm {
    pub(crate) gate: Gate,
    pub(crate) resources: Resources,
    pub(crate) tags: Tags,
    pub(crate) pruner: Pruner,
    /// What connections take that are being opened over QUIC.
    pub(crate) opening: BTreeMap<QuicId, ConnectionShare>,
    denials: BTreeMap<(Point, &'static str), u64>,
    /// Handshakes turned away, of which the embedder is yet to be told.
    turned_away: VecDeque<(SocketAddr, Refusal)>,
    /// When it may be told of as many as [`TOLD`] says again.
    told_full_at: Instant,
}

/// How often the embedder is told of a handshake that was turned away. All are counted, but a flood of them must not
/// become a flood of events.
const TOLD: Rate = Rate { burst: 16, every: Duration::from_millis(100) };

impl Swarm {
    /// With a configuration that makes sense; see [`SwarmConfig::validate`].
    pub(crate) fn new(config: SwarmConfig) -> Self {
        Self {
            gate: Gate::new(config.gate),
            resources: Resources::new(config.limits),
            tags: Tags::new(config.pruner.grace),
            pruner: Pruner::new(config.pruner),
            opening: BTreeMap::new(),
            denials: BTreeMap::new(),
            turned_away: VecDeque::new(),
            told_full_at: Instant::ZERO,
        }
    }

    /// The lists of whom we talk to.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How much of everything is held, by whom.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// What peers are worth to us, and who must stay.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// What watches the number of connections.
    pub fn pruner(&self) -> &Pruner {
        &self.pruner
    }

    /// How often the gate said no: at which point, for which [`gate::Denial`].
    pub fn denials(&self) -> impl Iterator<Item = (Point, &'static str, u64)> + '_ {
        self.denials.iter().map(|((point, why), count)| (*point, *why, *count))
    }

    /// Asks the gate, and counts.
    pub(crate) fn judge(&mut self, candidate: &Candidate<'_>) -> Result<(), Refusal> {
        self.gate.judge(candidate).map_err(|denied| {
            *self.denials.entry((denied.at, denied.why.name())).or_default() += 1;
            Refusal::Denied(denied)
        })
    }

    /// What the connection took that was being opened.
    pub(crate) fn take_opening(&mut self, id: QuicId) -> Result<ConnectionShare, Refusal> {
        let none = Exceeded { scope: Scope::System, resource: Resource::Connections };
        self.opening.remove(&id).ok_or(Refusal::Limit(none))
    }

    fn turn_away(&mut self, now: Instant, remote: SocketAddr, refusal: Refusal) {
        if let Some(full_at) = TOLD.take(self.told_full_at, now) {
            self.told_full_at = full_at;
            self.turned_away.push_back((remote, refusal));
        }
    }

    /// The next handshake that was turned away.
    pub(crate) fn pop_turned_away(&mut self) -> Option<(SocketAddr, Refusal)> {
        self.turned_away.pop_front()
    }
}

/// Connections over QUIC that are being opened from outside.
impl Admission for Swarm {
    fn admit(&mut self, now: Instant, remote: SocketAddr, validated: bool) -> Verdict {
        if let Err(refusal) = self.judge(&Candidate::Accept { ip: remote.ip() }) {
            self.turn_away(now, remote, refusal);
            return Verdict::Ignore;
        }
        let Err(exceeded) = self.resources.may_connect(now, Some(remote.ip()), validated) else {
            return Verdict::Accept;
        };
        if exceeded.scope.is_a_place() && !validated {
            return Verdict::Validate;
        }
        self.resources.refuse(exceeded);
        self.turn_away(now, remote, Refusal::Limit(exceeded));
        Verdict::Refuse
    }

    fn admitted(&mut self, now: Instant, id: QuicId, remote: SocketAddr) {
        // Should it be refused after all, the connection has no share and is turned away when it has a peer.
        if let Ok(share) = self.resources.open_connection(now, Direction::Inbound, Some(remote.ip())) {
            self.opening.insert(id, share);
        }
    }
}

/// Why connection management does not want something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// We do not talk to it.
    #[error("denied: {0}")]
    Denied(Denied),
    /// There is too much already.
    #[error("{0}")]
    Limit(Exceeded),
}

impl Refusal {
    /// The application error code that tells the remote, of those that go-libp2p uses.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Denied(_) => 0x1007,
            Self::Limit(_) => 0x1001,
        }
    }
}
