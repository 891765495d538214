//! Reservations in the long run: relays that restart, targets that come back.

use peerless_core::{
    errors::AttemptError,
    node::Event,
    protocols::relay::{
        client::{self, ReserveError},
        hop::Hop,
    },
    swarm::addresses::AddressSource,
};
use peerless_tests::{
    assert_story,
    host::HostId,
    transcript::{StoryLine, Transcript},
    world::{World, ms, secs},
};

/// What is said about circuits, which connections come and go, what is lost, and what B tells others of itself.
fn story(w: &World) -> Transcript {
    let wanted = |line: &StoryLine| {
        let word = line.text.split(' ').next().unwrap_or_default();
        line.is_about_circuits()
            || ["connected", "disconnected", "push"].contains(&word)
            || line.text.starts_with("reservation lost")
    };
    w.transcript().only(wanted)
}

fn advertises_a_circuit(w: &World, host: HostId) -> bool {
    w.node(host).addresses().of(AddressSource::Relay).next().is_some()
}

/// Whether each grant that the client heard of was a renewal.
fn renewals(w: &World, host: HostId) -> Vec<bool> {
    let reserved = |event: &Event| match event {
        Event::Reservation(client::Event::Reserved { renewed, .. }) => Some(*renewed),
        _ => None,
    };
    w[host].log().iter().filter_map(|(_, event)| reserved(event)).collect()
}

#[test]
fn a_reservation_is_renewed_lost_with_the_relay_and_had_again_from_the_new_one() {
    let mut w = World::new(1);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    let friend = w.host("C").start();
    w.reserve(b, r);
    w.dial(friend, b);
    w.run_for(secs(3000));
    assert_eq!(renewals(&w, b), [false, true]);

    w.restart(r);
    let lost = w.wait_for(b, "the loss", |event| match event {
        Event::Reservation(client::Event::Lost { reason, .. }) => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(lost, ReserveError::Disconnected(_)), "{lost}");
    assert!(!advertises_a_circuit(&w, b));
    w.wait_for(b, "a reservation", |event| {
        matches!(event, Event::Reservation(client::Event::Reserved { renewed: false, .. })).then_some(())
    });
    assert!(advertises_a_circuit(&w, b));
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 1000);
    w.close(a, conn);
    w.run_for(ms(100));

    assert_story!(story(&w), @r"
       0.000  B  !  reserve on R
       0.000  C  !  dial B
       0.040  B  *  connected R
       0.040  B  >  R  hop  RESERVE
       0.040  C  *  connected B
       0.060  R  *  connected B
       0.060  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       0.060  B  *  connected C
       0.080  B  >  R  push agent=peerless/0.1.0 protocols=6 addresses=2 observed=R signed
       0.100  B  >  C  push agent=peerless/0.1.0 protocols=6 addresses=2 observed=C signed
    2829.906  B  >  R  hop  RESERVE
    2829.926  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
    3010.766  B  *  disconnected R: reset by the remote
    3010.766  B  *  reservation lost at R: the connection to the relay ended: reset by the remote; backing off for 1.334 s
    3010.766  B  >  C  push agent=peerless/0.1.0 protocols=6 addresses=1 observed=C signed
    3012.141  B  *  connected R
    3012.141  B  >  R  hop  RESERVE
    3012.161  R  *  connected B
    3012.161  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
    3012.181  A  !  dial R/p2p-circuit/B
    3012.221  A  *  connected R
    3012.221  A  >  R  hop  CONNECT B
    3012.241  R  *  connected A
    3012.241  R  >  B  stop CONNECT A limit=120s/128KiB
    3012.261  B  >  R  stop STATUS OK
    3012.281  R  >  A  hop  STATUS OK limit=120s/128KiB
    3012.281  R  =  splice A<->B
    3012.381  A  *  connected B through R
    3012.421  B  *  connected A through R
    3012.541  A  *  disconnected B: closed by us
    3012.581  B  *  disconnected A: closed by the remote (code 0)
    3012.601  R  ~  splice A<->B ended: both finished      a>b 1985 b>a 1983
    ");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn while_the_relay_is_away_nothing_is_advertised_and_circuits_say_why_they_fail() {
    let mut w = World::new(2);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(10));
    w.kill(r);
    w.run_for(secs(50));
    assert!(!advertises_a_circuit(&w, b));
    let circuit = w.circuit(r, b);
    let failed = w.try_dial(a, None, std::slice::from_ref(&circuit)).expect_err("nobody relays");
    assert!(matches!(failed.attempts[0].1, AttemptError::RelayUnreachable(_)), "{failed}");
    w.run_for(secs(120));
    w.restart(r);
    let refused = w.try_dial(a, None, &[circuit]).expect_err("the new relay has no reservation yet");
    assert!(matches!(refused.attempts[0].1, AttemptError::TargetUnknown), "{refused}");
    w.run_for(secs(300));
    assert_eq!(renewals(&w, b), [false, false]);
    assert!(advertises_a_circuit(&w, b));
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 1000);
    w.shutdown();
    w.assert_empty();
}

/// B comes back twice without having said goodbye, so that the relay still has its old connections. Circuits go to the
/// one from which B reserved last.
#[test]
fn a_stale_connection_of_the_target_never_receives_the_circuit() {
    let mut w = World::new(3);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    for _ in 0..2 {
        w.restart(b);
        w.reserve(b, r);
        w.run_for(secs(1));
    }
    let known = w.connections(r, b);
    assert_eq!(known.len(), 3, "the relay has not noticed yet");
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 1000);
    // The stale connections end at last, and neither the circuit nor the reservation with them.
    w.run_for(secs(40));
    assert_eq!(w.connections(r, b), known[2..]);
    assert_eq!(w.node(r).behaviour::<Hop>().map(Hop::reservations), Some(1));
    w.echo(a, conn, 1000);
    w.close(a, conn);
    w.run_for(ms(100));

    assert_story!(story(&w), @r#"
       0.000  B  !  reserve on R
       0.040  B  *  connected R
       0.040  B  >  R  hop  RESERVE
       0.060  R  *  connected B
       0.060  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       0.080  B  >  R  push agent=peerless/0.1.0 protocols=6 addresses=2 observed=R signed
       1.000  B  !  reserve on R
       1.040  B  *  connected R
       1.040  B  >  R  hop  RESERVE
       1.060  R  *  connected B
       1.060  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       1.080  B  >  R  push agent=peerless/0.1.0 protocols=6 addresses=2 observed=R signed
       2.000  B  !  reserve on R
       2.040  B  *  connected R
       2.040  B  >  R  hop  RESERVE
       2.060  R  *  connected B
       2.060  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       2.080  B  >  R  push agent=peerless/0.1.0 protocols=6 addresses=2 observed=R signed
       3.000  A  !  dial R/p2p-circuit/B
       3.040  A  *  connected R
       3.040  A  >  R  hop  CONNECT B
       3.060  R  *  connected A
       3.060  R  >  B  stop CONNECT A limit=120s/128KiB
       3.080  B  >  R  stop STATUS OK
       3.100  R  >  A  hop  STATUS OK limit=120s/128KiB
       3.100  R  =  splice A<->B
       3.200  A  *  connected B through R
       3.240  B  *  connected A through R
      15.260  R  *  disconnected B: reset by the remote
      16.260  R  *  disconnected B: reset by the remote
      43.440  A  *  disconnected B: closed by us
      43.480  B  *  disconnected A: closed by the remote (code 0)
      43.500  R  ~  splice A<->B ended: both finished      a>b 3168 b>a 3310
    "#);
    w.shutdown();
    w.assert_empty();
}
