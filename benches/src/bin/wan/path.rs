//! One direction of one client's path.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the server.
    There = 0,
    /// From the server.
    Back = 1,
}

/// What becomes of datagrams.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    delay: Duration,
    /// Bytes per second; 0 is no limit.
    rate: f64,
    queue: usize,
    loss: f64,
    busy_until: Option<Instant>,
    luck: u64,
}

/// IPv4 and UDP headers, in bytes.
const HEADERS: usize = 28;

impl Path {
    pub(crate) fn new(delay: Duration, rate: f64, queue: usize, loss: f64) -> Self {
        Self { delay, rate, queue, loss, busy_until: None, luck: 0 }
    }

    /// With other luck.
    pub(crate) fn seeded(self, seed: u64) -> Self {
        Self { luck: seed, ..self }
    }

    /// When a datagram of so many bytes arrives; `None` if it is lost.
    pub(crate) fn arrival(&mut self, now: Instant, size: usize) -> Option<Instant> {
        let size = size + HEADERS;
        let mut sent = now;
        if self.rate > 0.0 {
            let start = self.busy_until.map_or(now, |until| until.max(now));
            let waiting = start.duration_since(now).as_secs_f64() * self.rate;
            if waiting + size as f64 > self.queue as f64 {
                return None;
            }
            sent = start + Duration::from_secs_f64(size as f64 / self.rate);
            self.busy_until = Some(sent);
        }
        (self.draw() >= self.loss).then(|| sent + self.delay)
    }

    /// A number from 0 to 1 (splitmix64).
    fn draw(&mut self) -> f64 {
        self.luck = self.luck.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.luck;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_rate_spaces_datagrams_and_its_queue_overflows() {
        // 1000 bytes with their headers at a MB/s take a millisecond each; three of them fit.
        let mut path = Path::new(10 * MS, 1e6, 3000, 0.0);
        let now = Instant::now();
        let arrivals: Vec<_> = (0..4).map(|_| path.arrival(now, 972)).collect();
        let expected = [11, 12, 13].map(|ms| Some(now + ms * MS));
        assert_eq!(arrivals[..3], expected);
        assert_eq!(arrivals[3], None);
        assert!(path.arrival(now + 2 * MS, 972).is_some());
    }

    #[test]
    fn loss_takes_its_share_and_without_a_rate_nothing_waits() {
        let mut path = Path::new(MS, 0.0, 0, 0.25);
        let now = Instant::now();
        let arrived: Vec<_> = (0..4000).filter_map(|_| path.arrival(now, 1200)).collect();
        assert!((2900..3100).contains(&arrived.len()), "{} of 4000", arrived.len());
        assert!(arrived.iter().all(|at| *at == now + MS));
    }
}
