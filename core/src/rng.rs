//! Randomness as an input: one 32-byte seed per node, and labelled forks, so that an extra draw in one machine never
//! shifts another. Also the seeded hasher behind every hash map of the core.

use std::{hash::BuildHasher, time::Duration};

use rand_chacha::ChaCha12Rng;
pub use rand_core::RngCore;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

/// A seeded stream of random numbers, cryptographically strong if its seed is.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: [u8; 32],
    stream: ChaCha12Rng,
}

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, stream: ChaCha12Rng::from_seed(seed) }
    }

    /// An independent stream named `label`. It depends on the seed and the label alone, not on what was drawn before.
    pub fn fork(&self, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(label.as_bytes());
        Self::new(hash.finalize().into())
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.fill_bytes(&mut bytes);
        bytes
    }

    /// A uniform number below `bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.stream.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform duration of at least `low` and less than `high`; `low` if the range is empty.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_nanos()).unwrap_or(u64::MAX);
        low + Duration::from_nanos(self.below(span))
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        self.stream.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.stream.fill_bytes(bytes);
    }
}

impl rand_core::CryptoRng for Rng {}

/// Keys of the keyed hash (SipHash-1-3) that every map of a node uses.
#[derive(Clone, Copy, Debug)]
pub struct HashKeys(u64, u64);

impl HashKeys {
    /// Draws keys.
    pub fn new(rng: &mut Rng) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }
}

impl BuildHasher for HashKeys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A hash map that flooding cannot degrade. Its order must never be seen: look up, never iterate.
pub type Map<K, V> = hashbrown::HashMap<K, V, HashKeys>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_does_not_depend_on_earlier_draws() {
        let mut drawn = Rng::new([7; 32]);
        drawn.next_u64();
        assert_eq!(drawn.fork("ping").next_u64(), Rng::new([7; 32]).fork("ping").next_u64());
        assert_ne!(drawn.fork("ping").next_u64(), drawn.fork("relay").next_u64());
    }

    #[test]
    fn ranges_hold_at_their_edges() {
        let mut rng = Rng::new([1; 32]);
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.below(3) < 3));
        let second = Duration::from_secs(1);
        assert_eq!(rng.between(second, second), second);
        assert!((0..1000).all(|_| rng.between(second, 2 * second) < 2 * second));
    }
}
