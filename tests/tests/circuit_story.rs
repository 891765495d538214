//! A peer without a public address is reached through a relay.

use peerless_tests::{
    assert_story,
    world::{World, ms},
};

#[test]
fn a_reaches_b_through_r() {
    let mut w = World::new(1);
    let r = w.host("R").relay().start();
    let b = w.host("B").start();
    let a = w.host("A").start();

    w.reserve(b, r);
    w.run_for(ms(500));
    let conn = w.dial_via(a, r, b);
    w.echo(a, conn, 1832);
    w.close(a, conn);
    w.run_for(ms(100));

    assert_story!(w.transcript().circuits(), @r"
       0.000  B  !  reserve on R
       0.040  B  >  R  hop  RESERVE
       0.060  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       0.500  A  !  dial R/p2p-circuit/B
       0.540  A  >  R  hop  CONNECT B
       0.560  R  >  B  stop CONNECT A limit=120s/128KiB
       0.580  B  >  R  stop STATUS OK
       0.600  R  >  A  hop  STATUS OK limit=120s/128KiB
       0.600  R  =  splice A<->B
       0.920  R  ~  splice A<->B ended: both finished      a>b 2817 b>a 2929
    ");
    w.shutdown();
    w.assert_empty();
}
