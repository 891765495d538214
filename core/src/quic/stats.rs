//! Numbers.

use std::time::Duration;

/// What the pipe holds, and what it has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections with a peer.
    pub connected: usize,
    /// Outbound handshakes under way.
    pub dialing: usize,
    /// Inbound handshakes under way.
    pub half_open: usize,
    /// Connections that are over, and kept a little to answer late packets (RFC 9000 section 10.2).
    pub closing: usize,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Datagrams handed out to send.
    pub datagrams_out: u64,
    /// Bytes handed out to send.
    pub bytes_out: u64,
    /// What was dropped and refused.
    pub refused: Refused,
}

/// How well the path of a connection carries: what the transport estimates, and what it has counted since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// The smoothed round-trip time (RFC 9002 section 5.3).
    pub rtt: Duration,
    /// The largest UDP payload known to pass, in bytes.
    pub mtu: u16,
    /// How many bytes may be under way (RFC 9002 section 7).
    pub congestion_window: u64,
    /// How many were when the latest acknowledgement came, what is taken to be lost left out.
    pub in_flight: u64,
    /// How often the window was made smaller, because packets were lost or marked.
    pub congestion_events: u64,
    /// Packets that were taken to be lost.
    pub lost_packets: u64,
    /// Their bytes.
    pub lost_bytes: u64,
    /// UDP datagrams handed out to send.
    pub datagrams_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
}

/// What was dropped and refused, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Datagrams that are not QUIC, or belong to no connection.
    pub unroutable: u64,
    /// Datagrams answered without a connection: version negotiation, stateless reset, early close.
    pub answered: u64,
    /// Handshakes put off until the address shows that it receives.
    pub retried: u64,
    /// Handshakes refused for too many half-open ones.
    pub half_open: u64,
    /// Handshakes refused for too many connections.
    pub connections: u64,
    /// Handshakes that whoever decides did not want.
    pub denied: u64,
    /// Handshakes ignored because answers piled up unsent.
    pub ignored: u64,
    /// First packets that did not authenticate or broke the protocol.
    pub invalid: u64,
    /// Handshakes that took too long.
    pub timed_out: u64,
    /// Connections forgotten at once because too many were closing.
    pub forgotten: u64,
    /// Batches not sent because their socket is gone.
    pub no_socket: u64,
}

impl Refused {
    /// All counts under dotted names.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("quic.dropped.unroutable", self.unroutable),
            ("quic.dropped.no_socket", self.no_socket),
            ("quic.answered.stateless", self.answered),
            ("quic.handshake.retried", self.retried),
            ("quic.handshake.refused.half_open", self.half_open),
            ("quic.handshake.refused.connections", self.connections),
            ("quic.handshake.refused.denied", self.denied),
            ("quic.handshake.ignored", self.ignored),
            ("quic.handshake.invalid", self.invalid),
            ("quic.handshake.timed_out", self.timed_out),
            ("quic.closing.forgotten", self.forgotten),
        ]
    }
}
