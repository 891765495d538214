//! The same bytes in other pieces: whatever reads a stream must not notice where the network cut it.

use bytes::Bytes;
use peerless_core::rng::Rng;

/// Feeds `stream` to fresh readers in many ways of cutting it, and asserts that each gives what a reader gave that got
/// it whole. `read` makes a reader, feeds it the pieces in order, and returns all that came out, errors included.
///
/// The ways: every cut in two (of streams up to 4 KiB), all single bytes, and `rounds` random ones, where short pieces
/// are as likely as long ones. Panics with the lengths of the pieces that made a difference.
pub fn dribble<T: PartialEq + std::fmt::Debug>(
    seed: u64,
    rounds: usize,
    stream: &[u8],
    mut read: impl FnMut(&mut dyn Iterator<Item = Bytes>) -> T,
) {
    let stream = Bytes::copy_from_slice(stream);
    let whole = read(&mut pieces(&stream, &[stream.len()]));
    let mut check = |cuts: &[usize]| {
        let dribbled = read(&mut pieces(&stream, cuts));
        assert_eq!(dribbled, whole, "in pieces of {cuts:?} (seed {seed}); right is what came of one piece");
    };
    check(&vec![1; stream.len()]);
    for cut in (0..=stream.len()).take_while(|_| stream.len() <= 4096) {
        check(&[cut, stream.len() - cut]);
    }
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = Rng::new(key).fork("dribble");
    for _ in 0..rounds {
        check(&random_cuts(&mut rng, stream.len()));
    }
}

/// Lengths that add up to `len`, of all orders of magnitude.
fn random_cuts(rng: &mut Rng, len: usize) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut left = len;
    while left > 0 {
        let bits = usize::BITS - left.leading_zeros();
        let magnitude = 1 << rng.below(u64::from(bits));
        let piece = (1 + rng.below(magnitude) as usize).min(left);
        cuts.push(piece);
        left -= piece;
    }
    cuts
}

fn pieces(stream: &Bytes, lengths: &[usize]) -> impl Iterator<Item = Bytes> {
    let mut rest = stream.clone();
    lengths.iter().map(move |length| rest.split_to(*length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_ignores_boundaries_passes() {
        dribble(1, 100, b"some bytes of a stream", |pieces| {
            pieces.map(|piece| piece.iter().map(|byte| u64::from(*byte)).sum::<u64>()).sum::<u64>()
        });
    }

    #[test]
    #[should_panic(expected = "right is what came of one piece")]
    fn a_reader_that_sees_boundaries_is_caught() {
        dribble(1, 100, b"some bytes of a stream", |pieces| pieces.filter_map(|p| p.first().copied()).max());
    }

    #[test]
    fn cuts_add_up_and_come_in_all_sizes() {
        let mut rng = Rng::new([9; 32]);
        let cuts = random_cuts(&mut rng, 100_000);
        assert_eq!(cuts.iter().sum::<usize>(), 100_000);
        assert!(cuts.iter().any(|cut| *cut < 4) && cuts.iter().any(|cut| *cut > 1000));
    }
}
