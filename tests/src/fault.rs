//! Faults that a test scripts: a cut link, or something that happens to exactly the nth datagram.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use peerless_core::{rng::Rng, time::Instant};

use crate::link::{Hop, Outlet, Packet};

/// What happens to one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is lost.
    Drop,
    /// One of its bits, drawn at random, is flipped.
    Corrupt,
    /// It arrives twice.
    Duplicate,
    /// It is held back this long.
    Delay(Duration),
}

/// The scripted faults of one direction between two hosts.
#[derive(Debug)]
pub struct Faults {
    rng: Rng,
    cut: bool,
    passed: u64,
    script: BTreeMap<u64, Fault>,
}

impl Faults {
    /// No faults yet; `rng` draws the bits to flip.
    pub fn new(rng: Rng) -> Self {
        Self { rng, cut: false, passed: 0, script: BTreeMap::new() }
    }

    /// Cuts the direction, or restores it.
    pub fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Plans a fault for the `nth` datagram from now on; the next one is the first.
    pub fn plan(&mut self, nth: u64, fault: Fault) {
        self.script.insert(self.passed + nth, fault);
    }

    fn flip_a_bit(&mut self, data: &Bytes) -> Bytes {
        let mut data = data.to_vec();
        let bit = self.rng.below(data.len() as u64 * 8) as usize;
        if let Some(byte) = data.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        data.into()
    }
}

impl Hop for Faults {
    fn pass(&mut self, now: Instant, packet: Packet, out: &mut Outlet) {
        self.passed += 1;
        if self.cut {
            return out.drop("cut");
        }
        match self.script.remove(&self.passed) {
            None => out.forward(now, packet),
            Some(Fault::Drop) => out.drop("fault"),
            Some(Fault::Corrupt) => {
                let data = self.flip_a_bit(&packet.data);
                out.forward(now, Packet { data, ..packet });
            }
            Some(Fault::Duplicate) => {
                out.forward(now, packet.clone());
                out.forward(now, packet);
            }
            Some(Fault::Delay(delay)) => out.forward(now + delay, packet),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn pass(faults: &mut Faults) -> Outlet {
        let address = |host| SocketAddr::from(([192, 0, 2, host], 4001));
        let data = Bytes::from_static(b"payload");
        let mut out = Outlet::default();
        let packet = Packet { from: address(1), to: address(2), ecn: None, data };
        faults.pass(Instant::ZERO, packet, &mut out);
        out
    }

    #[test]
    fn only_the_planned_datagram_is_hit() {
        let mut faults = Faults::new(Rng::new([0; 32]));
        pass(&mut faults);
        faults.plan(2, Fault::Drop);
        faults.plan(3, Fault::Duplicate);
        faults.plan(4, Fault::Corrupt);
        faults.plan(5, Fault::Delay(Duration::from_secs(1)));
        let out: Vec<_> = (0..6).map(|_| pass(&mut faults)).collect();
        assert_eq!(out.iter().map(|o| o.forwarded.len()).collect::<Vec<_>>(), [1, 0, 2, 1, 1, 1]);
        assert_eq!(out[1].dropped, ["fault"]);
        let flipped: u32 =
            out[3].forwarded[0].1.data.iter().zip(b"payload").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1);
        assert_eq!(out[4].forwarded[0].0, Instant::ZERO + Duration::from_secs(1));
        assert_eq!(&out[5].forwarded[0].1.data[..], b"payload");
    }

    #[test]
    fn nothing_passes_a_cut_until_it_is_restored() {
        let mut faults = Faults::new(Rng::new([0; 32]));
        faults.set_cut(true);
        assert_eq!(pass(&mut faults).dropped, ["cut"]);
        faults.set_cut(false);
        assert_eq!(pass(&mut faults).forwarded.len(), 1);
    }
}
