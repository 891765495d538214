//! What a relay grants, as far as it can be believed; and when to ask again.

use std::time::Duration;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use peerless_proto::{
    address,
    envelope::Envelope,
    pb::{
        self,
        relay::{HopMessage, HopType},
    },
    voucher::Voucher,
};

use super::{super::wire, ReserveError};
use crate::{
    errors::RelayStatus,
    names::CircuitLimit,
    rng::Rng,
    swarm::{
        dial::rank::{Reach, ip_reach},
        hostless,
    },
    time::UnixTime,
};

/// How long before its end a reservation is renewed at the latest.
const MARGIN: Duration = Duration::from_secs(120);

/// The shortest pause before a reservation is renewed; one that is shorter runs out.
const MIN_REFRESH: Duration = Duration::from_secs(5);

/// The shortest and the longest pause before trying again.
const MIN_BACK_OFF: Duration = Duration::from_secs(1);
pub(super) const MAX_BACK_OFF: Duration = Duration::from_secs(300);

/// Most addresses taken from one relay.
const MAX_ADDRESSES: usize = 16;

/// A reservation as granted.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) expires: UnixTime,
    /// From now to its end, by our clock; zero if that is past.
    pub(super) left: Duration,
    /// Circuit addresses, without our own `/p2p`.
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) limit: CircuitLimit,
}

/// What an answer is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) relay: PeerId,
    pub(super) us: PeerId,
    pub(super) unix: UnixTime,
    /// The relay's address, as we were told it.
    pub(super) address: &'a Multiaddr,
    /// Where the relay is, as we see it.
    pub(super) remote: &'a Multiaddr,
}

impl Grant {
    /// Reads the relay's answer to RESERVE.
    pub(super) fn read(frame: &[u8], asked: Asked<'_>) -> Result<Self, ReserveError> {
        let message: HopMessage =
            pb::decode(frame).map_err(|error| ReserveError::Malformed(error.to_string()))?;
        if message.kind() != Some(HopType::Status) {
            return Err(ReserveError::Malformed("not an answer".into()));
        }
        match RelayStatus::from(message.status) {
            RelayStatus::Ok => {}
            refusal => return Err(ReserveError::Refused(refusal)),
        }
        let Some(reservation) = message.reservation else {
            return Err(ReserveError::Malformed("no reservation in the answer".into()));
        };
        let expires = UnixTime::from_secs(reservation.expire.unwrap_or(0));
        let left = expires.saturating_duration_since(asked.unix);
        if let Some(voucher) = &reservation.voucher {
            check_voucher(voucher, expires, asked).map_err(ReserveError::Voucher)?;
        }
        let limit = wire::limit_from_wire(message.limit.as_ref());
        Ok(Self { expires, left, addresses: circuits(reservation.addrs, asked), limit })
    }
}

/// A voucher must not end before the reservation does. Our clock is not asked: it may be wrong.
fn check_voucher(voucher: &[u8], expires: UnixTime, asked: Asked<'_>) -> Result<(), String> {
    let before = expires.as_secs().saturating_sub(1).min(asked.unix.as_secs());
    let envelope = Envelope::decode(voucher).map_err(|error| error.to_string())?;
    let voucher = Voucher::open(&envelope).map_err(|error| error.to_string())?;
    voucher.verify(&asked.relay, &asked.us, before).map_err(|error| error.to_string())
}

/// The circuit addresses that lead to us through the relay's addresses, or through the one that we used ourselves.
fn circuits(relay_addresses: Vec<Vec<u8>>, asked: Asked<'_>) -> Vec<Multiaddr> {
    let mut found = Vec::new();
    for bytes in relay_addresses {
        let Some(address) = usable(bytes, asked) else { continue };
        if !found.contains(&address) && found.len() < MAX_ADDRESSES {
            found.push(address);
        }
    }
    if found.is_empty() {
        let (address, _) = address::split_peer(asked.address);
        found.push(if address.is_empty() { asked.remote.clone() } else { address });
    }
    let circuit = |address: Multiaddr| address.with(Protocol::P2p(asked.relay)).with(Protocol::P2pCircuit);
    found.into_iter().map(circuit).collect()
}

/// An address of the relay without its `/p2p`, unless it is another peer's, a circuit, or in a narrower network than
/// the one in which we reach the relay.
fn usable(bytes: Vec<u8>, asked: Asked<'_>) -> Option<Multiaddr> {
    let address = address::decode_multiaddr(bytes).ok()?;
    let (address, peer) = address::split_peer(&address);
    let strange = |part| matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit);
    if peer.is_some_and(|peer| peer != asked.relay) || address.iter().any(strange) {
        return None;
    }
    if hostless(&address).is_some() {
        return None;
    }
    let reach = match address.iter().next()? {
        Protocol::Ip4(ip) => ip_reach(ip.into()),
        Protocol::Ip6(ip) => ip_reach(ip.into()),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => Reach::Public,
        _ => return None,
    };
    let ours = address::ip_of(asked.remote).map_or(Reach::Public, ip_reach);
    (reach >= ours).then_some(address)
}

/// When to renew a reservation that lasts for `term`: after four fifths, or two minutes before the end if that is
/// earlier, but not before half of it is over; and up to a twentieth sooner, so that a relay is not asked by everybody at
/// once.
pub(super) fn refresh_after(term: Duration, rng: &mut Rng) -> Duration {
    let latest = (term / 5 * 4).min(term.saturating_sub(MARGIN)).max(term / 2).max(MIN_REFRESH);
    rng.between(latest - latest / 20, latest)
}

/// How long to wait after the `failures`th failure in a row: doubling, with jitter.
pub(super) fn back_off(failures: u32, rng: &mut Rng) -> Duration {
    let longest =
        MIN_BACK_OFF.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(MAX_BACK_OFF);
    rng.between((longest / 2).max(MIN_BACK_OFF), longest)
}

/// The longest pause after a renewal failed, if the reservation lasts for another `left`: a third of it, so that there are
/// several more tries.
pub(super) fn retry_within(left: Duration) -> Duration {
    (left / 3).max(MIN_REFRESH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_renewed_in_time_and_not_at_once() {
        let mut rng = Rng::new([0; 32]);
        for (term, latest) in
            [(86400, 69120), (3600, 2880), (600, 480), (300, 180), (200, 100), (12, 6), (3, 5)]
        {
            let (term, latest) = (Duration::from_secs(term), Duration::from_secs(latest));
            let pauses: Vec<_> = (0..100).map(|_| refresh_after(term, &mut rng)).collect();
            assert!(pauses.iter().all(|pause| *pause <= latest && *pause >= latest / 20 * 19), "{term:?}");
            assert_ne!(pauses[0], pauses[1], "jitter");
        }
    }

    #[test]
    fn pauses_double_between_a_second_and_five_minutes() {
        let mut rng = Rng::new([0; 32]);
        for failures in 1..100 {
            let longest = Duration::from_secs(1 << failures.min(9)).min(MAX_BACK_OFF);
            let pause = back_off(failures, &mut rng);
            assert!(longest / 2 <= pause && pause <= longest, "{failures}: {pause:?}");
        }
    }
}
