//! Peers that find each other by a name at a point, and what they go through for it.

use std::time::Duration;

use peerless_core::{
    PeerId,
    node::Event,
    protocols::{
        relay,
        rendezvous::{
            self, Status,
            client::{Discovery, Error, Event as Told, Query, Registration, Watch},
            server,
        },
    },
    trace::Glyph,
};
use peerless_tests::{
    assert_story,
    host::HostId,
    transcript::{StoryLine, Transcript},
    world::{World, ms, secs},
};

/// A rendezvous point that is a relay too.
fn point(w: &mut World) -> HostId {
    w.host("R").relay().configure(|config| config.rendezvous_server = Some(server::Config::default())).start()
}

fn register(w: &mut World, host: HostId, point: HostId) {
    let (address, peer) = (w[point].address(), w[point].peer());
    w.command(host, |node, now| node.register(now, Registration::new(address, "app"))).expect("a good wish");
    w.wait_for(host, "the registration", |event| event.register_outcome(peer, "app")).expect("it is granted");
}

fn discover(w: &mut World, host: HostId, query: Query) -> Result<Discovery, Error> {
    let id = w.command(host, |node, now| node.discover(now, query)).expect("a good question");
    w.wait_for(host, "the discovery", |event| event.discover_outcome(id))
}

fn query(w: &World, point: HostId) -> Query {
    Query::new(w[point].address(), "app")
}

fn watch(w: &mut World, host: HostId, point: HostId, interval: Duration) {
    let watch = Watch { interval: Some(interval), ..Watch::new(w[point].address(), "app") };
    w.command(host, |node, now| node.watch(now, watch)).expect("a good wish");
}

/// What the users of points were told.
fn told(w: &World, host: HostId) -> impl Iterator<Item = &Told> {
    w[host].log().iter().filter_map(|(_, event)| match event {
        Event::Rendezvous(rendezvous::Event::Client(event)) => Some(event),
        _ => None,
    })
}

/// Whom a watch told of, each time.
fn found(w: &World, host: HostId) -> Vec<PeerId> {
    let new = |event: &Told| match event {
        Told::Discovered { found, .. } => Some(found.peer),
        _ => None,
    };
    told(w, host).filter_map(new).collect()
}

/// What is said of circuits, to points and by their users, and which connections come.
fn story(w: &World) -> Transcript {
    let wanted = |line: &StoryLine| {
        let word = line.text.split(' ').next().unwrap_or_default();
        let is_point = line.host == "R" && line.glyph == Glyph::Event && word == "rendezvous:";
        line.is_about_circuits() || ["rendezvous", "rendezvous:", "connected"].contains(&word) && !is_point
    };
    w.transcript().only(wanted)
}

#[test]
fn who_was_found_is_dialled_by_peer_id_alone() {
    let mut w = World::new(3);
    let r = point(&mut w);
    let [a, b] = ["A", "B"].map(|name| w.host(name).start());
    let behind = w.host("C").configure(|config| config.accept_inbound = false).start();
    register(&mut w, b, r);
    w.reserve(behind, r);
    w.wait_for(behind, "the reservation", |event| {
        matches!(event, Event::Reservation(relay::client::Event::Reserved { .. })).then_some(())
    });
    register(&mut w, behind, r);
    let (direct, through) = (w[b].peer(), w[behind].peer());
    assert!(w.try_dial(a, Some(direct), &[]).is_err(), "nobody has told of it");
    let question = query(&w, r);
    assert_eq!(discover(&mut w, a, question).expect("an answer").peers.len(), 2);
    for (peer, is_relayed) in [(direct, false), (through, true)] {
        let connection = w.try_dial(a, Some(peer), &[]).expect("it is reached");
        let info = w.node(a).connections().get(connection).expect("it is there");
        assert_eq!((info.peer, info.relayed.is_some()), (peer, is_relayed));
    }
}

/// A and B cannot be reached; each holds a reservation at R and registers there; each finds the other.
#[test]
fn two_peers_behind_a_relay_find_each_other_and_connect() {
    let mut w = World::new(1);
    let r = point(&mut w);
    let [a, b] =
        ["A", "B"].map(|name| w.host(name).configure(|config| config.accept_inbound = false).start());
    for host in [a, b] {
        w.reserve(host, r);
        w.wait_for(host, "the reservation", |event| {
            matches!(event, Event::Reservation(relay::client::Event::Reserved { .. })).then_some(())
        });
        register(&mut w, host, r);
    }
    let question = query(&w, r);
    let discovery = discover(&mut w, a, question).expect("an answer");
    let [found] = &discovery.peers[..] else { panic!("{discovery:?}") };
    assert_eq!((found.peer, found.signed), (w[b].peer(), true));
    let connection = w.try_dial(a, Some(found.peer), &found.addresses).expect("B is reached");
    w.echo(a, connection, 1000);
    assert!(w.node(a).connections().get(connection).is_some_and(|info| info.relayed.is_some()));
    let question = query(&w, r);
    let discovery = discover(&mut w, b, question).expect("an answer");
    assert_eq!(discovery.peers[0].peer, w[a].peer());
    w.close(a, connection);
    w.run_for(secs(1));
    for host in [a, b] {
        w.command(host, |node, now| node.shutdown(now));
    }
    w.run_for(secs(2));
    let told = w.transcript().to_string();
    assert!(told.contains("UNREGISTER"), "who goes says so");
    assert_story!(story(&w), @r#"
       0.000  A  !  reserve on R
       0.040  A  *  connected R
       0.040  A  >  R  hop  RESERVE
       0.060  R  *  connected A
       0.060  R  >  A  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(A,R)
       0.080  A  !  register "app" at R
       0.080  A  *  rendezvous: registering "app" at R
       0.080  A  >  R  rendezvous REGISTER "app" ttl=7200s A addresses=1 signed
       0.100  R  >  A  rendezvous REGISTER_RESPONSE OK ttl=7200s
       0.120  A  *  rendezvous: registered "app" at R for 7200 s
       0.120  B  !  reserve on R
       0.160  B  *  connected R
       0.160  B  >  R  hop  RESERVE
       0.180  R  *  connected B
       0.180  R  >  B  hop  STATUS OK expire=+1h limit=120s/128KiB voucher(B,R)
       0.200  B  !  register "app" at R
       0.200  B  *  rendezvous: registering "app" at R
       0.200  B  >  R  rendezvous REGISTER "app" ttl=7200s B addresses=1 signed
       0.220  R  >  B  rendezvous REGISTER_RESPONSE OK ttl=7200s
       0.240  B  *  rendezvous: registered "app" at R for 7200 s
       0.240  A  !  discover "app" at R
       0.240  A  >  R  rendezvous DISCOVER "app" limit=100
       0.260  R  >  A  rendezvous DISCOVER_RESPONSE OK 2 peers cookie
       0.280  A  >  R  rendezvous DISCOVER "app" limit=100 cookie
       0.300  R  >  A  rendezvous DISCOVER_RESPONSE OK cookie
       0.320  A  *  rendezvous: discovered 1 peers; B in "app" for 7200 s R/p2p-circuit/B
       0.320  A  !  dial R/p2p-circuit/B
       0.320  A  >  R  hop  CONNECT B
       0.340  R  >  B  stop CONNECT A limit=120s/128KiB
       0.360  B  >  R  stop STATUS OK
       0.380  R  >  A  hop  STATUS OK limit=120s/128KiB
       0.380  R  =  splice A<->B
       0.480  A  *  connected B through R
       0.520  B  *  connected A through R
       0.640  B  !  discover "app" at R
       0.640  B  >  R  rendezvous DISCOVER "app" limit=100
       0.660  R  >  B  rendezvous DISCOVER_RESPONSE OK 2 peers cookie
       0.680  B  >  R  rendezvous DISCOVER "app" limit=100 cookie
       0.700  R  >  B  rendezvous DISCOVER_RESPONSE OK cookie
       0.720  B  *  rendezvous: discovered 1 peers; A in "app" for 7200 s R/p2p-circuit/A
       0.780  R  ~  splice A<->B ended: both finished      a>b 2071 b>a 2069
       1.720  A  !  shut down
       1.720  A  *  rendezvous: lost "app" at R: given up by us
       1.720  A  >  R  rendezvous UNREGISTER "app"
       1.720  B  !  shut down
       1.720  B  *  rendezvous: lost "app" at R: given up by us
       1.720  B  >  R  rendezvous UNREGISTER "app"
    "#);
    w.shutdown();
    w.assert_empty();
}

/// A registers, C finds A; B registers, C finds B alone; then nobody.
#[test]
fn b_a_cookie_of_a_point_gives_only_what_is_new() {
    let mut w = World::new(2);
    let r = point(&mut w);
    let [a, b, c] = ["A", "B", "C"].map(|name| w.host(name).start());
    let peers = |discovery: &Discovery| discovery.peers.iter().map(|found| found.peer).collect::<Vec<_>>();
    register(&mut w, a, r);
    let question = query(&w, r);
    let first = discover(&mut w, c, question).unwrap();
    register(&mut w, b, r);
    let question = Query { cookie: first.cookie.clone(), ..query(&w, r) };
    let second = discover(&mut w, c, question).unwrap();
    let question = Query { cookie: second.cookie.clone(), ..query(&w, r) };
    let third = discover(&mut w, c, question).unwrap();
    assert_eq!([&first, &second, &third].map(peers), [vec![w[a].peer()], vec![w[b].peer()], vec![]]);

    w.restart(r);
    let question = Query { cookie: second.cookie.clone(), ..query(&w, r) };
    let lost = discover(&mut w, c, question);
    assert!(matches!(lost, Err(Error::Disconnected(_))), "{lost:?}");
    let question = Query { cookie: second.cookie, ..query(&w, r) };
    let refused = discover(&mut w, c, question);
    assert!(matches!(refused, Err(Error::Refused { status: Status::InvalidCookie, .. })), "{refused:?}");
}

/// The point is away for five minutes, and it is just then that A would renew.
#[test]
fn g_a_point_that_is_away_for_five_minutes_does_not_cost_the_registration() {
    for seed in 0..3 {
        let mut w = World::new(seed).quiet();
        let r = point(&mut w);
        let [a, b] = ["A", "B"].map(|name| w.host(name).start());
        register(&mut w, a, r);
        w.run_for(secs(3500));
        w.kill(r);
        w.run_for(secs(300));
        w.restart(r);
        w.run_for(secs(600));
        assert!(!told(&w, a).any(|event| matches!(event, Told::RegistrationLost { .. })), "seed {seed}");
        let question = query(&w, r);
        assert_eq!(discover(&mut w, b, question).unwrap().peers[0].peer, w[a].peer());
    }
}

#[test]
fn a_watch_outlives_the_point_and_tells_nobody_twice() {
    let mut w = World::new(3);
    let r = point(&mut w);
    let [a, b, c] = ["A", "B", "C"].map(|name| w.host(name).start());
    register(&mut w, a, r);
    watch(&mut w, b, r, secs(10));
    w.run_for(secs(30));
    assert_eq!(found(&w, b), [w[a].peer()]);
    w.restart(r);
    w.run_for(secs(120));
    register(&mut w, c, r);
    w.run_for(secs(30));
    assert_eq!(found(&w, b), [w[a].peer(), w[c].peer()]);
    let lost = told(&w, a).any(|event| matches!(event, Told::RegistrationLost { .. }));
    assert!(!lost, "a registration is a matter of its time, not of the connection");
    let anew = told(&w, a).filter(|event| matches!(event, Told::Registered { .. })).count();
    assert_eq!(anew, 2, "A registered anew, as the point may have forgotten it");
    w.command(a, |node, now| node.shutdown(now));
    w.run_for(secs(2 * 3600 + 60));
    let expired: Vec<_> = told(&w, b)
        .filter_map(|event| match event {
            Told::Expired { peer, .. } => Some(*peer),
            _ => None,
        })
        .collect();
    assert_eq!(expired, [w[a].peer()], "C has renewed and B heard of it");
}

#[test]
fn a_reservation_that_moves_is_registered_where_it_went() {
    let mut w = World::new(4);
    let r = point(&mut w);
    let other = w.host("Q").relay().start();
    let a = w.host("A").configure(|config| config.accept_inbound = false).start();
    let b = w.host("B").start();
    w.reserve(a, r);
    w.run_for(secs(1));
    register(&mut w, a, r);
    watch(&mut w, b, r, secs(5));
    w.run_for(secs(1));
    w.reserve(a, other);
    w.run_for(secs(20));
    let relay = w[r].peer();
    w.command(a, |node, now| node.cancel_reservation(now, relay));
    w.run_for(secs(20));
    let updated: Vec<_> = told(&w, b)
        .filter_map(|event| match event {
            Told::Updated { found, .. } => Some(found.addresses.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(updated.len(), 2, "{updated:?}");
    assert_eq!(updated[1], [w.circuit(other, a)]);
    let connection = w.try_dial(b, Some(w[a].peer()), &updated[1]).expect("A is reached");
    w.echo(b, connection, 100);
    w.run_for(ms(100));
}
