//! The decisions behind a dial, each a function of its inputs and the time: in which order addresses are tried
//! ([`rank`]), which are left out for now ([`backoff`], [`black_hole`]), and who goes first ([`queue`]).
//! `node/dialing.rs` carries them out.

pub mod backoff;
pub mod black_hole;
pub mod queue;
pub mod rank;

use std::time::Duration;

use super::{InvalidConfig, config::require};
use crate::ids::SocketId;

/// Whom a dial serves first if there is no room for all; see [`DialOptions::priority`].
pub const DEFAULT_PRIORITY: u8 = 50;

/// How a node dials.
#[derive(Clone, Debug, PartialEq)]
pub struct DialConfig {
    /// Most dials under way at a time; more wait (js-libp2p: 100).
    pub parallel: usize,
    /// Most dials waiting; one more fails with [`crate::errors::AttemptError::QueueFull`] (js-libp2p: 500).
    pub queue: usize,
    /// Most addresses of one dial tried at a time (go-libp2p: 8).
    pub attempts: usize,
    /// Most addresses of one dial; more are not tried (js-libp2p: 25).
    pub addresses: usize,
    /// How long a dial may take in all, waiting included (go-libp2p: 60 s).
    pub timeout: Duration,
    /// When the next address is tried beside those that have not answered (RFC 8305 section 5, and go-libp2p: 250 ms).
    pub stagger: Duration,
    /// The same before an address on a private network (go-libp2p: 30 ms).
    pub private_stagger: Duration,
    /// The same before a circuit, when there are other addresses (go-libp2p: 500 ms).
    pub relay_delay: Duration,
    /// How long what has failed is left alone.
    pub backoff: backoff::BackoffConfig,
    /// When a network is taken to swallow what is sent.
    pub black_hole: black_hole::BlackHoleConfig,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            parallel: 100,
            queue: 500,
            attempts: 8,
            addresses: 25,
            timeout: Duration::from_secs(60),
            stagger: Duration::from_millis(250),
            private_stagger: Duration::from_millis(30),
            relay_delay: Duration::from_millis(500),
            backoff: backoff::BackoffConfig::default(),
            black_hole: black_hole::BlackHoleConfig::default(),
        }
    }
}

impl DialConfig {
    /// Finds the first thing that makes no sense.
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        require(self.parallel > 0, "dial.parallel", "must be at least 1, or nothing is ever dialled")?;
        require(self.attempts > 0, "dial.attempts", "must be at least 1, or nothing is ever dialled")?;
        require(self.addresses > 0, "dial.addresses", "must be at least 1, or nothing is ever dialled")?;
        require(!self.timeout.is_zero(), "dial.timeout", "must not be zero, or every dial fails at once")?;
        require(
            (0.0..=1.0).contains(&self.backoff.jitter),
            "dial.backoff.jitter",
            "must be a share, from 0 to 1",
        )?;
        require(
            self.black_hole.answers <= self.black_hole.window,
            "dial.black_hole.answers",
            "must not be above dial.black_hole.window, or every network is a black hole",
        )
    }
}

/// How one dial differs from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialOptions {
    /// Higher ones are served first, equal ones in order.
    pub priority: u8,
    /// In place of [`DialConfig::timeout`].
    pub timeout: Option<Duration>,
    /// Whether addresses that failed a moment ago, and peers of which all did, are left alone. `None`: those that the
    /// node looked up itself are; those named in the call are not, because whoever names an address wants it tried.
    pub respect_backoff: Option<bool>,
    /// Whether to make a connection though there is one.
    pub force_new: bool,
    /// Whether to go only to addresses that packets are sent to, and through nobody.
    pub direct_only: bool,
    /// From which socket the packets are sent. The dial makes a connection of its own then, as with
    /// [`DialOptions::force_new`], and what leads through somebody else is left out, as with
    /// [`DialOptions::direct_only`].
    pub socket: Option<SocketId>,
}

impl DialOptions {
    /// Whether a connection that is there, or that another dial makes, will not do.
    pub(crate) fn wants_own(&self) -> bool {
        self.force_new || self.socket.is_some()
    }

    /// Whether circuits, and whatever else leads through somebody, will not do.
    pub(crate) fn wants_direct(&self) -> bool {
        self.direct_only || self.socket.is_some()
    }
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            priority: DEFAULT_PRIORITY,
            timeout: None,
            respect_backoff: None,
            force_new: false,
            direct_only: false,
            socket: None,
        }
    }
}
