//! The one endpoint: everything random in it injected, and who is let in.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, NoneTokenLog,
    NoneTokenStore, ServerConfig, TransportConfig, ValidationTokenConfig,
};

use super::{clock::TokenTime, crypto::QuicCrypto};
use crate::{
    rng::{Rng, RngCore as _},
    time::Instant,
};

/// QUIC version 1 (RFC 9000), the one that `/quic-v1` means.
const VERSION: u32 = 1;

/// Length of the connection ids that we issue, in bytes: the shortest that RFC 9000 section 7.2 lets a client use.
const CID_LEN: usize = 8;

/// An endpoint that reaches for no randomness and no clock of its own.
pub(super) fn new(
    rng: &Rng,
    reset_key: [u8; 32],
    transport: &Arc<TransportConfig>,
    crypto: Option<&dyn QuicCrypto>,
    time: TokenTime,
) -> Endpoint {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &reset_key);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let cids = rng.fork("connection ids");
    config
        .rng_seed(Some(rng.fork("endpoint").bytes()))
        .supported_versions(vec![VERSION])
        .cid_generator(move || Box::new(RandomCids(cids.clone())));
    let server = crypto.map(|crypto| Arc::new(server_config(rng, transport, crypto, time)));
    Endpoint::new(Arc::new(config), server, true, None)
}

fn server_config(
    rng: &Rng,
    transport: &Arc<TransportConfig>,
    crypto: &dyn QuicCrypto,
    time: TokenTime,
) -> ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&rng.fork("token key").bytes::<32>());
    // Tokens for later connections are worth little without 0-RTT and cost a packet each.
    let mut later_tokens = ValidationTokenConfig::default();
    later_tokens.sent(0).log(Arc::new(NoneTokenLog));
    let mut config = ServerConfig::new(crypto.server(), Arc::new(token_key));
    config
        .transport_config(transport.clone())
        .migration(true)
        .validation_token_config(later_tokens)
        .time_source(Arc::new(time));
    config
}

/// Makes the configuration of each dial.
pub(super) struct Dialer {
    transport: Arc<TransportConfig>,
    initial_cid: Arc<dyn Fn() -> ConnectionId + Send + Sync>,
}

impl Dialer {
    pub(super) fn new(rng: &Rng, transport: Arc<TransportConfig>) -> Self {
        let cids = Mutex::new(RandomCids(rng.fork("initial connection ids")));
        let initial_cid = move || cids.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).generate_cid();
        Self { transport, initial_cid: Arc::new(initial_cid) }
    }

    pub(super) fn config(&self, crypto: Arc<dyn quinn_proto::crypto::ClientConfig>) -> ClientConfig {
        let mut config = ClientConfig::new(crypto);
        config
            .version(VERSION)
            .transport_config(self.transport.clone())
            .initial_dst_cid_provider(self.initial_cid.clone())
            // quinn-proto files tokens by server name, which all our peers share.
            .token_store(Arc::new(NoneTokenStore));
        config
    }
}

struct RandomCids(Rng);

impl ConnectionIdGenerator for RandomCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut cid = [0; CID_LEN];
        self.0.fill_bytes(&mut cid);
        ConnectionId::new(&cid)
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Lets so many a second through, and a second's worth at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Between two, in nanoseconds; `None` lets nothing through.
    interval: Option<u64>,
    /// When the allowance will be whole again, in nanoseconds.
    whole_at: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { interval: SECOND.checked_div(u64::from(per_second)), whole_at: 0 }
    }

    /// Whether one more may pass at `now`.
    pub(super) fn pass(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval else { return false };
        let now = now.as_nanos();
        let whole_at = self.whole_at.max(now).saturating_add(interval);
        let passes = whole_at - now <= SECOND;
        if passes {
            self.whole_at = whole_at;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_no_more_than_the_rate_after_the_first_burst() {
        let mut rate = Rate::new(10);
        let passed = |rate: &mut Rate, at| (0..100).filter(|_| rate.pass(Instant::from_nanos(at))).count();
        assert_eq!(passed(&mut rate, 0), 10);
        assert_eq!(passed(&mut rate, SECOND / 10), 1);
        assert_eq!(passed(&mut rate, SECOND), 9);
        assert_eq!(passed(&mut rate, 100 * SECOND), 10);
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_through() {
        assert!(!Rate::new(0).pass(Instant::FAR_FUTURE));
        assert!(!Rate::new(0).pass(Instant::ZERO));
    }
}
