//! Who may connect.

use std::net::SocketAddr;

use crate::{ids::QuicId, time::Instant};

/// Asked before any work on an inbound handshake.
pub trait Admission {
    /// Decides about a first packet from `remote`. Unless it is `validated`, anybody may have sent it.
    fn admit(&mut self, now: Instant, remote: SocketAddr, validated: bool) -> Verdict;

    /// A handshake has begun as decided. It ends in [`QuicEvent::Connected`](super::QuicEvent::Connected) or
    /// [`QuicEvent::Closed`](super::QuicEvent::Closed).
    fn admitted(&mut self, now: Instant, id: QuicId, remote: SocketAddr);
}

/// What becomes of a first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The handshake may begin.
    Accept,
    /// It may if the address shows that it receives what is sent to it (Retry, RFC 9000 section 8.1.2).
    Validate,
    /// It is refused (CONNECTION_REFUSED), with a packet that is much smaller than the one that it answers.
    Refuse,
    /// It is not answered.
    Ignore,
}

/// Lets everybody in, as far as the pipe's own limits go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everybody;

impl Admission for Everybody {
    fn admit(&mut self, _: Instant, _: SocketAddr, _: bool) -> Verdict {
        Verdict::Accept
    }

    fn admitted(&mut self, _: Instant, _: QuicId, _: SocketAddr) {}
}
