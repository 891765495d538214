//! What can be tuned, and how it becomes quinn-proto's transport configuration.

use std::{sync::Arc, time::Duration};

use quinn_proto::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::congestion::Factory;
use crate::errors::{InvalidConfig, require};

/// Limits and timings of the QUIC pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a handshake may take, dialling or accepting. 10 s.
    pub handshake_timeout: Duration,
    /// How long nothing may come before the connection is lost; the smaller of both sides' counts. 30 s.
    pub idle_timeout: Duration,
    /// How long nothing may come before we ask for a sign of life; `None` never asks. 15 s, which keeps the mapping of
    /// a usual NAT open.
    pub keep_alive: Option<Duration>,
    /// How many streams a peer may have open at once on one connection. 1024. It is granted a hundred at first, and more
    /// as it uses them: a stream that is granted takes memory whether it is used or not.
    pub max_streams: u32,
    /// How many bytes a peer may have under way on one stream, unread by us: the most that a stream carries in a round
    /// trip. 8 MiB, which fills 200 Mbit/s over 300 ms.
    pub stream_window: u32,
    /// How many bytes a peer may have under way on one connection, unread by us. 40 MiB: enough for four streams that
    /// nobody reads and one that is read. A relay begins with less and follows what circuits need up to this; see
    /// [`streams::windows`](crate::streams::windows).
    pub connection_window: u32,
    /// How many bytes we hold per connection that the peer has not acknowledged. 8 MiB.
    pub send_window: u64,
    /// Largest UDP payload to probe for, in bytes. 1452: Ethernet less the headers of IPv6 and UDP.
    pub max_mtu: u16,
    /// How many connections there may be, dialled ones included, before inbound ones are refused; zero is no limit.
    pub max_connections: usize,
    /// How many inbound handshakes may be under way; above, they are refused. 1024.
    pub max_half_open: usize,
    /// How many inbound handshakes a second are begun for addresses that have not shown that they receive what is sent
    /// to them; above, they are asked to (Retry, RFC 9000 section 8.1.2). 1000.
    pub unvalidated_rate: u32,
}

/// In bytes, by default.
const STREAM_WINDOW: u32 = 8 << 20;

/// Full stream windows that fit a connection's: streams that nobody reads and one that is read.
const STREAMS_OF_WINDOW: u32 = 17;

/// But no more than this, in bytes, unless one stream's is larger.
const CONNECTION_WINDOW: u32 = 5 * STREAM_WINDOW;

/// Streams that a peer is granted at first: what fits a hash table of 128 places, of which quinn-proto has two.
const FIRST_STREAMS: u32 = 100;

/// What every path must pass, in bytes of UDP payload (RFC 9000 section 14).
const MIN_MTU: u16 = 1200;

/// The longest payload of UDP that a peer may say it takes (RFC 9000 section 18.2).
const MAX_MTU: u16 = 65_527;

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Some(Duration::from_secs(15)),
            max_streams: 1024,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            send_window: 8 << 20,
            max_mtu: 1452,
            max_connections: 0,
            max_half_open: 1024,
            unvalidated_rate: 1000,
        }
    }
}

impl Config {
    /// With a stream window of so many bytes, and the connection window that goes with it (RFC 9000 section 4.1): enough
    /// for sixteen streams that nobody reads and one that is read, but 40 MiB at most, unless one stream may have more.
    pub fn with_stream_window(self, bytes: u32) -> Self {
        let connection_window = bytes.saturating_mul(STREAMS_OF_WINDOW).min(CONNECTION_WINDOW).max(bytes);
        Self { stream_window: bytes, connection_window, ..self }
    }

    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const AT_LEAST_ONE: &str = "must be at least 1";
        let idle = self.idle_timeout;
        require(!self.handshake_timeout.is_zero(), "quic.handshake_timeout", "must not be zero")?;
        require(
            idle >= Duration::from_millis(1) && idle.as_millis() <= u32::MAX.into(),
            "quic.idle_timeout",
            "must be at least 1 ms and at most 49 days",
        )?;
        require(
            self.keep_alive.is_none_or(|every| !every.is_zero() && every < idle),
            "quic.keep_alive",
            "must be above zero and below quic.idle_timeout, or connections are lost between two signs of life",
        )?;
        require(self.max_streams >= 1, "quic.max_streams", AT_LEAST_ONE)?;
        require(self.stream_window >= 1, "quic.stream_window", AT_LEAST_ONE)?;
        require(self.connection_window >= 1, "quic.connection_window", AT_LEAST_ONE)?;
        require(self.send_window >= 1, "quic.send_window", AT_LEAST_ONE)?;
        require(
            (MIN_MTU..=MAX_MTU).contains(&self.max_mtu),
            "quic.max_mtu",
            "must be from 1200 to 65527 bytes (RFC 9000 section 18.2)",
        )?;
        require(self.max_half_open >= 1, "quic.max_half_open", "must be at least 1, or nobody can connect")
    }

    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        let idle = u32::try_from(self.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.max_mtu.max(MIN_MTU));
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_streams.min(FIRST_STREAMS)))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
            .keep_alive_interval(self.keep_alive)
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(self.send_window)
            .mtu_discovery_config(Some(mtu))
            .congestion_controller_factory(Arc::new(Factory::default()))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            // The spin bit tells every observer the round-trip time (RFC 9000 section 17.4).
            .allow_spin(false);
        Arc::new(transport)
    }
}
