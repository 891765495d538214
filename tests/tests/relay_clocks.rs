//! Relays whose wall clock does not agree with their client's: what they grant is a time on theirs.

use std::time::Duration;

use peerless_core::{
    node::Event,
    protocols::relay::{
        client,
        hop::{self, Hop},
    },
    swarm::addresses::AddressSource,
    time::{Instant, UnixTime},
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

const STEP: Duration = ms(250);

/// A relay that holds reservations for `term`, and a client whose clock is so many seconds ahead of its, or behind.
fn skewed(seed: u64, term: Duration, ahead: i64) -> (World, HostId, HostId) {
    let mut w = World::new(seed).quiet();
    let config = hop::Config { reservation_ttl: term, ..hop::Config::default() };
    let r = w.host("R").relay_with(config).start();
    let b = w.host("B").start();
    set_clock(&mut w, b, ahead);
    w.reserve(b, r);
    w.run_for(secs(1));
    (w, r, b)
}

/// Sets the client's clock, as the difference from what the world began with.
fn set_clock(w: &mut World, host: HostId, ahead: i64) {
    let since = w.now().saturating_duration_since(Instant::ZERO).as_secs();
    let unix = (1_700_000_000 + since).saturating_add_signed(ahead);
    w.command(host, |node, now| node.set_wall_clock(now, UnixTime::from_secs(unix)));
}

/// For how long in all the client advertised what the relay did not hold, and for how long it advertised nothing.
fn watch(w: &mut World, r: HostId, b: HostId, time: Duration) -> (Duration, Duration) {
    let (mut wrong, mut silent) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..time.as_millis() / STEP.as_millis() {
        w.run_for(STEP);
        let says = w.node(b).addresses().of(AddressSource::Relay).next().is_some();
        let holds = w.node(r).behaviour::<Hop>().is_some_and(|hop| hop.reservations() == 1);
        if says && !holds {
            wrong += STEP;
        }
        if !says {
            silent += STEP;
        }
    }
    (wrong, silent)
}

fn reservations(w: &World, host: HostId) -> Vec<&client::Event> {
    let log = w[host].log().iter();
    log.filter_map(|(_, event)| if let Event::Reservation(event) = event { Some(event) } else { None })
        .collect()
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

#[test]
fn a_slow_clock_holds_no_reservation_for_longer_than_the_relay_does() {
    // The relay's term, how slow the client's clock is, and how often the client may find a reservation gone.
    for (term, slow, most_gone) in [
        (10, 0, 0),
        (10, MINUTE, 1),
        (10, 15 * MINUTE, 1),
        (10, HOUR + 7, 1),
        (60, 17, 1),
        (120, MINUTE + 11, 1),
        (600, 15 * MINUTE, 1),
        (600, 24 * HOUR, 1),
        (3600, MINUTE, 0),
        (3600, 15 * MINUTE, 0),
        (3600, HOUR, 0),
        (3600, 11 * HOUR, 0),
        (7200, 15 * MINUTE, 0),
    ] {
        let case = format!("{term} s at a clock {slow} s slow");
        let (mut w, r, b) = skewed(6500, secs(term), -slow);
        let (wrong, silent) = watch(&mut w, r, b, secs(3 * term.max(200)));
        let gone = reservations(&w, b).iter().filter(|e| matches!(e, client::Event::Gone { .. })).count();
        assert!(gone <= most_gone, "{case}: gone {gone} times");
        // What is gone is found out within as much time as the relay was known to hold it.
        assert!(wrong <= secs(gone as u64 * term + 1), "{case}: wrong for {wrong:?}");
        assert_eq!(silent, Duration::ZERO, "{case}");
        let (wrong, silent) = watch(&mut w, r, b, secs(3 * term));
        assert_eq!((wrong, silent), (Duration::ZERO, Duration::ZERO), "{case}: later on");
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_fast_clock_makes_no_grant_useless_and_nobody_busy() {
    for (term, fast) in [
        (10, 5),
        (10, 9),
        (10, 10),
        (10, HOUR),
        (600, 7 * MINUTE),
        (600, 10 * MINUTE),
        (600, 15 * MINUTE),
        (3600, MINUTE),
        (3600, 59 * MINUTE + 55),
        (3600, HOUR),
        (3600, 24 * HOUR),
    ] {
        let case = format!("{term} s at a clock {fast} s fast");
        let (mut w, r, b) = skewed(6501, secs(term), fast);
        let time = secs(3 * term.max(200));
        let (wrong, silent) = watch(&mut w, r, b, time);
        let told = reservations(&w, b);
        let count = |wanted: fn(&client::Event) -> bool| told.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, client::Event::Failed { .. })), 0, "{case}: {told:?}");
        assert_eq!(count(|event| matches!(event, client::Event::Lost { .. })), 0, "{case}: {told:?}");
        assert!(silent.is_zero() && wrong <= secs(term + 1), "{case}: {silent:?} {wrong:?}");
        let granted = count(|event| matches!(event, client::Event::Reserved { .. }));
        let most = 16 + time.as_secs() / (term / 4).min(900);
        assert!(granted as u64 <= most, "{case}: granted {granted} times in {time:?}");
        w.shutdown();
        w.assert_empty();
    }
}

#[test]
fn a_clock_that_is_set_while_a_reservation_is_held_does_not_lose_it() {
    for ahead in [-24 * HOUR, -HOUR, -15 * MINUTE, -30, 30, 15 * MINUTE, 24 * HOUR] {
        for term in [600, 3600] {
            let (mut w, r, b) = skewed(6502, secs(term), 0);
            set_clock(&mut w, b, ahead);
            let (wrong, silent) = watch(&mut w, r, b, secs(4 * term));
            let case = format!("{term} s at a clock set by {ahead} s");
            // Only a relay that was known to agree and grants nothing by the new clock is given up, once.
            assert!(wrong.is_zero() && silent <= secs(3), "{case}: {wrong:?} {silent:?}");
            w.shutdown();
            w.assert_empty();
        }
    }
}

#[test]
fn clocks_that_seem_to_agree_on_a_short_time_by_chance_cost_no_reservation_for_long() {
    // By the client's clock 30 s are left of ten minutes, as if the relay granted that: it renews so often that it is refused.
    for (term, fast) in [(600, 570), (3600, 3540), (600, 540)] {
        let (mut w, r, b) = skewed(6503, secs(term), fast);
        let (wrong, silent) = watch(&mut w, r, b, secs(2 * 3600));
        let lost = reservations(&w, b).iter().filter(|e| matches!(e, client::Event::Lost { .. })).count();
        assert!(lost <= 1 && silent <= secs(200), "{term} s at a clock {fast} s fast: {lost} {silent:?}");
        assert!(wrong <= secs(term), "{wrong:?}");
        w.shutdown();
        w.assert_empty();
    }
}
