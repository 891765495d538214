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

pub mod addresses;
pub mod autoconnect;
pub mod config;
pub mod dial;
pub mod gate;
pub mod health;
pub mod peerstore;
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
    special::hostless,
};
use self::{
    gate::{Candidate, Gate},
    pruner::Pruner,
    resources::Resources,
    tags::Tags,
};
pub use crate::errors::Hostless;
use crate::{
    errors::{Exceeded, Point, Refusal, Resource, Scope},
    ids::{ConnectionShare, QuicId},
    names::Direction,
    quic::{Admission, Verdict},
    rate::Rate,
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
    /// When as many of the denied may be answered again as [`DENIED`] says.
    denied_full_at: Instant,
    /// Once set, nobody is let in any more: the node goes.
    pub(crate) is_closed: bool,
    denials: BTreeMap<(Point, &'static str), u64>,
    /// Handshakes turned away, of which the embedder is yet to be told.
    turned_away: VecDeque<(SocketAddr, Refusal, u64)>,
    /// When it may be told of as many as [`TOLD`] says again, and of how many it was not told since it last was.
    told_full_at: Instant,
    untold: u64,
    /// The same, not in the node's counters yet.
    uncounted: u64,
}

/// How often the embedder is told of a handshake that came to nothing. All are counted, but a flood of them must not
/// become a flood of events.
const TOLD: Rate = Rate { burst: 16, every: Duration::from_millis(100) };

/// How many of those whom the gate denies are told so; the others hear nothing. An answer is a twentieth of what it answers,
/// and goes where that came from, or says so.
const DENIED: Rate = Rate { burst: 100, every: Duration::from_millis(10) };

impl Swarm {
    /// With a configuration that makes sense; see [`SwarmConfig::validate`].
    pub(crate) fn new(config: SwarmConfig) -> Self {
        Self {
            gate: Gate::new(config.gate),
            resources: Resources::new(config.limits),
            tags: Tags::new(config.pruner.grace),
            pruner: Pruner::new(config.pruner),
            opening: BTreeMap::new(),
            denied_full_at: Instant::ZERO,
            is_closed: false,
            denials: BTreeMap::new(),
            turned_away: VecDeque::new(),
            told_full_at: Instant::ZERO,
            untold: 0,
            uncounted: 0,
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

    /// How often the gate said no: at which point, for which [`Denial`](crate::errors::Denial).
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
        if let Some(untold) = self.may_tell(now) {
            self.turned_away.push_back((remote, refusal, untold));
        }
    }

    /// Whether the embedder may be told of another handshake that came to nothing, and of how many it was not.
    pub(crate) fn may_tell(&mut self, now: Instant) -> Option<u64> {
        let Some(full_at) = TOLD.take(self.told_full_at, now) else {
            self.untold += 1;
            self.uncounted += 1;
            return None;
        };
        self.told_full_at = full_at;
        Some(std::mem::take(&mut self.untold))
    }

    /// Of how many the embedder was not told since this was last asked.
    pub(crate) fn take_uncounted(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// The next handshake that was turned away.
    pub(crate) fn pop_turned_away(&mut self) -> Option<(SocketAddr, Refusal, u64)> {
        self.turned_away.pop_front()
    }
}

/// Connections over QUIC that are being opened from outside.
impl Admission for Swarm {
    fn admit(&mut self, now: Instant, remote: SocketAddr, validated: bool) -> Verdict {
        if self.is_closed {
            self.turn_away(now, remote, Refusal::ShuttingDown);
            return Verdict::Refuse;
        }
        if let Err(refusal) = self.judge(&Candidate::Accept { ip: remote.ip() }) {
            self.turn_away(now, remote, refusal);
            return match DENIED.take(self.denied_full_at, now) {
                Some(full_at) => {
                    self.denied_full_at = full_at;
                    Verdict::Refuse
                }
                None => Verdict::Ignore,
            };
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
