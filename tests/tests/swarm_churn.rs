//! C3: a million connections that come and go leave nothing behind.
#![cfg(target_os = "linux")]

use std::{net::Ipv4Addr, time::Duration};

use peerless_core::{
    PeerId,
    behaviour::ProtocolName,
    rng::Rng,
    swarm::{
        gate::{Candidate, Entry, Gate, GateConfig},
        network::Network,
        resources::{Limits, Resources},
        table::Direction,
        tags::Tags,
    },
    time::Instant,
};

const CYCLES: usize = 1_000_000;
/// Cycles after which everything that is remembered for a while is as large as it gets.
const SETTLED: usize = 200_000;
const SEED: u64 = 0x5eed_0004;

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second is a number");
    pages * 4096
}

fn peer(rng: &mut Rng) -> PeerId {
    let mut multihash = vec![0x12, 32]; // SHA-256
    multihash.extend(rng.bytes::<32>());
    PeerId::from_bytes(&multihash).expect("a SHA-256 digest is a peer id")
}

#[test]
fn a_million_connections_that_come_and_go_leave_nothing_behind() {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&SEED.to_le_bytes());
    let mut rng = Rng::new(key);
    let mut resources = Resources::new(Limits::default());
    let mut tags = Tags::new(Duration::from_secs(20));
    let mut gate = Gate::new(GateConfig::default());
    let echo = ProtocolName::from_static("/echo/1.0.0");
    let mut now = Instant::ZERO;
    let (mut settled, mut refused) = (0, 0);
    for cycle in 0..CYCLES {
        if cycle == SETTLED {
            settled = resident();
        }
        now = now + Duration::from_millis(rng.below(20));
        let (who, ip) = (peer(&mut rng), Ipv4Addr::from_bits(rng.below(1 << 32) as u32));
        let direction = if rng.below(2) == 0 { Direction::Inbound } else { Direction::Outbound };
        let banned = Entry::Network(Network::single(ip.into()));
        if rng.below(8) == 0 {
            gate.deny(banned);
        }
        let allowed = gate.judge(&Candidate::Accept { ip: ip.into() }).is_ok();
        gate.undeny(banned);
        if !allowed {
            refused += 1;
            continue;
        }
        let Ok(share) = resources.open_connection(now, direction, Some(ip.into())) else {
            refused += 1;
            continue;
        };
        if rng.below(4) > 0 {
            resources.set_peer(share, who).expect("it has no other connection");
            tags.connected(now, who);
            tags.bump(now, who, "application", 1, (0, 10));
            let stream = resources.open_stream(share, direction).expect("it has no other stream");
            resources.set_protocol(stream, "echo", &echo).expect("nobody else is there");
            resources.set_queued(stream, rng.below(100_000) as usize).expect("that is little");
            if rng.below(2) == 0 {
                resources.close_stream(stream);
                resources.close_connection(share);
            } else {
                resources.close_connection(share);
                resources.close_stream(stream);
            }
            tags.disconnected(&who);
        } else {
            tags.tag(now, who, "dht", 1);
            resources.close_connection(share);
        }
    }
    let grown = resident().saturating_sub(settled);
    println!(
        "seed {SEED:#x}: {CYCLES} cycles, {refused} refused, {} KiB more than after {SETTLED}",
        grown >> 10
    );
    assert!(grown < 2 << 20, "{grown} bytes more");
    // Who never came is forgotten when somebody else does.
    tags.tag(now + Duration::from_secs(60), peer(&mut rng), "dht", 1);
    assert_eq!(tags.len(), 1);
    let system = resources.system();
    assert_eq!((system.inbound_connections, system.outbound_connections, system.memory), (0, 0, 0));
    assert!(resources.is_empty() && refused > CYCLES / 10);
}
