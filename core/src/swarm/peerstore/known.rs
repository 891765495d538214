//! An address of a peer, and who vouches for it until when.

use multiaddr::Multiaddr;

use super::{PeerAddress, Source};
use crate::time::Instant;

/// On whose word an address is believed. Each has its own time and takes back nothing but its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Voucher {
    /// A dial of ours that led there.
    Dial,
    Heard,
    Rendezvous,
    Identify,
    Certified,
    Embedder,
}

impl Voucher {
    const ALL: [Self; 6] =
        [Self::Dial, Self::Heard, Self::Rendezvous, Self::Identify, Self::Certified, Self::Embedder];

    fn source(self) -> Source {
        match self {
            Self::Dial | Self::Heard => Source::Heard,
            Self::Rendezvous => Source::Rendezvous,
            Self::Identify => Source::Identify,
            Self::Certified => Source::Certified,
            Self::Embedder => Source::Embedder,
        }
    }
}

impl Source {
    pub(super) fn says(self) -> Voucher {
        match self {
            Self::Heard => Voucher::Heard,
            Self::Rendezvous => Voucher::Rendezvous,
            Self::Identify => Voucher::Identify,
            Self::Certified => Voucher::Certified,
            Self::Embedder => Voucher::Embedder,
        }
    }

    /// Whether what it says last is all that it says.
    pub(super) fn replaces(self) -> bool {
        matches!(self, Self::Identify | Self::Rendezvous)
    }
}

/// An address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) address: Multiaddr,
    /// By [`Voucher`]: until when it is believed on its word; [`Instant::ZERO`] if it said nothing.
    pub(super) until: [Instant; Voucher::ALL.len()],
    /// When it last led to the peer.
    pub(super) reached: Option<Instant>,
    /// Connections that were dialled there and are alive.
    pub(super) connections: usize,
}

impl Known {
    pub(super) fn new(address: Multiaddr, voucher: Voucher, expires: Instant) -> Self {
        let mut known =
            Self { address, until: [Instant::ZERO; Voucher::ALL.len()], reached: None, connections: 0 };
        known.vouch(voucher, expires);
        known
    }

    pub(super) fn vouch(&mut self, voucher: Voucher, expires: Instant) {
        let until = &mut self.until[voucher as usize];
        *until = (*until).max(expires);
    }

    /// What led to the peer holds as long as it does.
    pub(super) fn is_believed(&self, now: Instant) -> bool {
        self.connections > 0 || self.expires() > now
    }

    pub(super) fn expires(&self) -> Instant {
        self.until.into_iter().max().unwrap_or_default()
    }

    /// The weightiest of those who said so and did not take it back.
    pub(super) fn source(&self) -> Source {
        let vouching = |voucher: &Voucher| self.until[*voucher as usize] > Instant::ZERO;
        Voucher::ALL.into_iter().rfind(vouching).unwrap_or(Voucher::Dial).source()
    }

    pub(super) fn weight(&self) -> (bool, Source, Instant) {
        (self.reached.is_some(), self.source(), self.expires())
    }

    /// As it is told.
    pub(super) fn told(&self) -> PeerAddress {
        PeerAddress {
            address: self.address.clone(),
            source: self.source(),
            expires: self.expires(),
            reached: self.reached,
        }
    }

    /// Whether it leads to the peer, or somebody says so who should know.
    pub(super) fn is_worth_storing(&self) -> bool {
        self.reached.is_some() || self.source() >= Source::Certified
    }
}
