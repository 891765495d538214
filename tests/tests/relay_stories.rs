//! Reservations in the long run: relays that restart, targets that come back.

use peerless_core::{
    event::{AttemptError, Event},
    protocols::relay::{client, hop::Hop},
};
use peerless_tests::{
    assert_story,
    host::HostId,
    transcript::StoryLine,
    world::{World, ms, secs},
};

/// What the client tells of its reservations, beside what is said about them.
fn about_reservations(line: &StoryLine) -> bool {
    line.is_about_circuits() || line.text.contains("reserv") || line.text.contains("Reserv")
}

#[test]
fn a_reservation_is_renewed_lost_with_the_relay_and_had_again_from_the_new_one() {
    let mut w = World::new(1);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(3000));
    let circuit = w.circuit(r, b);
    w.restart(r);
    w.run_for(secs(120));
    let _ = circuit;
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 1000);
    w.close(a, conn);
    w.run_for(ms(100));
    eprintln!("{}", w.transcript());
    assert_story!(w.transcript().only(about_reservations), @"");
    w.shutdown();
    w.assert_empty();
}
