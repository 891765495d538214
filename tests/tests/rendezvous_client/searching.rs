//! Finding peers: once, in pages, and as they come and go.

use super::*;

#[test]
fn peers_are_found_with_their_addresses_and_without_ourselves() {
    let mut solo = client();
    let id = discover(&mut solo, Query::new(point(), "app"));
    solo.dialled("R");
    let stream = solo.open();
    assert_eq!(
        asked_discover(&mut solo, stream),
        Discover { ns: Some("app".into()), limit: Some(100), cookie: None, any_dialect: Some(true) }
    );
    let legacy = PeerRecord { peer: peer("X"), seq: 1, addresses: vec![address(HOME)] }
        .seal(identity("X").keypair(), peer_record::Dialect::RoutingState)
        .unwrap();
    let legacy = Register { signed_peer_record: Some(legacy.encode()), ..entry("X") };
    answer(&mut solo, stream, &page(vec![entry("A"), entry("B"), unsigned("C"), legacy], ""));
    let discovery = outcome(&mut solo, id).unwrap();
    let found = |name: &str, place: &str, signed| Found {
        namespace: "app".into(),
        peer: peer(name),
        addresses: vec![address(place).with(Protocol::P2p(peer(name)))],
        ttl: 2 * HOUR,
        signed,
    };
    let expected = [found("A", PLACE, true), found("C", HOME, false), found("X", HOME, true)];
    assert_eq!(discovery, Discovery { peers: expected.into(), cookie: None });
    assert_eq!(solo.counters.get("rendezvous.client.skipped.own"), 1);
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
}

#[test]
fn what_is_not_as_it_must_be_is_left_out_and_counted() {
    let mut solo = client();
    let id = discover(&mut solo, Query::new(point(), "app"));
    solo.dialled("R");
    let stream = solo.open();
    let mut forged = entry("A");
    *forged.signed_peer_record.as_mut().unwrap().last_mut().unwrap() ^= 1;
    let theirs = PeerRecord { peer: peer("A"), seq: 1, addresses: vec![address(PLACE)] };
    assert!(theirs.seal(identity("C").keypair(), peer_record::Dialect::Standard).is_err());
    let elsewhere = Register { ns: Some("other".into()), ..entry("C") };
    let ended = Register { ttl: Some(0), ..entry("C") };
    let none = Register { signed_peer_record: None, ..entry("C") };
    let of_other = circuit(PLACE, "R", "X").to_string();
    let strange = registration("C", 1, &of_other);
    answer(&mut solo, stream, &page(vec![forged, elsewhere, ended, none, strange], ""));
    let discovery = outcome(&mut solo, id).unwrap();
    assert_eq!((names(&discovery), discovery.peers[0].addresses.len()), (vec!["C"], 0));
    for (name, count) in [("record", 2), ("namespace", 1), ("ended", 1)] {
        let name: &'static str = ["rendezvous.client.skipped.", name].concat().leak();
        assert_eq!(solo.counters.get(name), count, "{name}");
    }
}

#[test]
fn addresses_and_lifetimes_are_capped() {
    let mut solo = client_with(Config { max_addresses: 3, ..Config::default() });
    let id = discover(&mut solo, Query::new(point(), "app"));
    solo.dialled("R");
    let stream = solo.open();
    let addresses = (1..10).map(|port| address(&format!("/ip4/192.0.2.1/udp/{port}/quic-v1"))).collect();
    let record = PeerRecord { peer: peer("A"), seq: 1, addresses };
    let sealed = record.seal(identity("A").keypair(), peer_record::Dialect::Standard).unwrap();
    let many = Register {
        ns: None,
        signed_peer_record: Some(sealed.encode()),
        ttl: Some(u64::MAX),
        other_record: None,
    };
    answer(&mut solo, stream, &page(vec![many, Register { ttl: None, ..entry("C") }], ""));
    let peers = outcome(&mut solo, id).unwrap().peers;
    assert_eq!((peers[0].addresses.len(), peers[0].ttl, peers[1].ttl), (3, 72 * HOUR, 2 * HOUR));
    assert_eq!(peers[0].namespace, "app", "a point need not repeat it");
}

#[test]
fn who_is_found_is_remembered_as_long_as_registered_and_by_who_says_so() {
    let secs = Duration::from_secs;
    let mut solo = client();
    let id = discover(&mut solo, Query::new(point(), "app"));
    solo.dialled("R");
    let stream = solo.open();
    let brief = Register { ttl: Some(60), ..unsigned("C") };
    answer(&mut solo, stream, &page(vec![registration("A", 5, PLACE), brief], ""));
    outcome(&mut solo, id).unwrap();
    let known = |solo: &Solo<Client>, name: &str, after: Duration| {
        let now = solo.now() + after;
        let known = solo.peerstore.addresses(now, &peer(name)).into_iter();
        known.map(|known| (known.address.to_string(), known.source)).collect::<Vec<_>>()
    };
    assert_eq!(known(&solo, "A", 2 * HOUR - secs(1)), [(PLACE.to_string(), Source::Certified)]);
    assert_eq!(known(&solo, "A", 2 * HOUR), []);
    assert_eq!(solo.peerstore.record(&peer("A")), Some(5));
    assert_eq!(known(&solo, "C", secs(59)), [(HOME.to_string(), Source::Rendezvous)]);
    assert_eq!(known(&solo, "C", secs(60)), []);

    watch(&mut solo);
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![registration("A", 4, HOME), registration("X", 1, HOME)], ""));
    assert_eq!(known(&solo, "A", secs(0)), [(PLACE.to_string(), Source::Certified)], "an old record");
    assert_eq!(known(&solo, "X", secs(0)), [(HOME.to_string(), Source::Certified)], "a watch does the same");
}

/// A registers, B finds A; C registers, B finds only C; and then nobody.
#[test]
fn b_with_a_cookie_only_what_is_new_is_found() {
    let mut solo = client();
    solo.connect("R");
    let mut ask = |cookie: Option<client::Cookie>, pages: [(Vec<Register>, &str); 2]| {
        let given = cookie.is_some();
        let id = discover(&mut solo, Query { cookie, ..Query::new(point(), "app") });
        for (n, (registrations, cookie)) in pages.into_iter().enumerate() {
            let stream = solo.open();
            let asked = asked_discover(&mut solo, stream).cookie;
            assert_eq!(asked.is_some(), given || n > 0);
            let is_last = registrations.is_empty();
            answer(&mut solo, stream, &page(registrations, cookie));
            if is_last {
                break;
            }
        }
        outcome(&mut solo, id).unwrap()
    };
    let first = ask(None, [(vec![entry("A")], "1"), (vec![], "1")]);
    let second = ask(first.cookie.clone(), [(vec![entry("C")], "2"), (vec![], "2")]);
    let third = ask(second.cookie.clone(), [(vec![], "2"), (vec![], "2")]);
    assert_eq!([&first, &second, &third].map(names), [vec!["A"], vec!["C"], vec![]]);

    let query = |namespace: &str| Query { cookie: first.cookie.clone(), ..Query::new(point(), namespace) };
    let elsewhere = solo.with(|client, cx| client.discover(cx, query("other")));
    assert_eq!(elsewhere, Err(Error::ForeignCookie));
    let id = discover(&mut solo, query("app"));
    let stream = solo.open();
    answer(&mut solo, stream, &no_page(103));
    let refused = Error::Refused { status: Status::InvalidCookie, text: String::new() };
    assert_eq!(outcome(&mut solo, id), Err(refused), "whoever brings a cookie is told that it is bad");
}

#[test]
fn all_pages_are_asked_for_up_to_the_limit() {
    let named = |n: u64| Register { ..entry(["A", "C", "X", "R"][n as usize]) };
    for (limit, limits, expected) in
        [(None, vec![2, 2, 2], 4), (Some(3), vec![2, 2], 3), (Some(1), vec![2], 1)]
    {
        let mut solo = client_with(Config { page: 2, ..Config::default() });
        solo.connect("R");
        let id = discover(&mut solo, Query { limit, ..Query::new(point(), "app") });
        let mut asked = Vec::new();
        while !solo.opening().is_empty() {
            let stream = solo.open();
            let question = asked_discover(&mut solo, stream);
            let from: u64 =
                question.cookie.map_or(0, |cookie| String::from_utf8(cookie).unwrap().parse().unwrap());
            asked.push(question.limit.unwrap());
            let until = (from + 2).min(4);
            answer(&mut solo, stream, &page((from..until).map(named).collect(), &until.to_string()));
        }
        assert_eq!(asked, limits, "{limit:?}");
        assert_eq!(outcome(&mut solo, id).unwrap().peers.len(), expected, "{limit:?}");
    }
}

#[test]
fn a_point_that_goes_round_in_circles_is_left() {
    let mut solo = client();
    solo.connect("R");
    let id = discover(&mut solo, Query::new(point(), "app"));
    let mut pages = 0;
    while !solo.opening().is_empty() {
        let stream = solo.open();
        pages += 1;
        answer(&mut solo, stream, &page(vec![entry("A"), entry("C")], ["x", "y"][pages % 2]));
    }
    assert_eq!(pages, 3);
    assert_eq!(names(&outcome(&mut solo, id).unwrap()), ["A", "C"]);
}

#[test]
fn a_cookie_that_goes_bad_between_two_pages_starts_the_discovery_over_once() {
    let mut solo = client();
    solo.connect("R");
    let id = discover(&mut solo, Query::new(point(), "app"));
    for message in [page(vec![entry("A")], "1"), no_page(103), page(vec![entry("C"), entry("A")], "2")] {
        let stream = solo.open();
        answer(&mut solo, stream, &message);
    }
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![], "2"));
    assert_eq!(names(&outcome(&mut solo, id).unwrap()), ["C", "A"]);
}

#[test]
fn a_watch_tells_who_comes_who_moves_and_who_goes() {
    let mut solo = client();
    watch(&mut solo);
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![Register { ttl: Some(150), ..entry("A") }], "1"));
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![], "1"));
    assert_eq!(solo.next_deadline(), "rendezvous poll");
    let stream = solo.open();
    let moved = Register { ttl: Some(150), ..registration("A", 2, HOME) };
    answer(&mut solo, stream, &page(vec![moved, entry("C")], "2"));
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![], "2"));
    assert_eq!(solo.behaviour.known(&peer("R"), Some("app")).count(), 2);
    while solo.behaviour.known(&peer("R"), Some("app")).count() == 2 {
        if solo.next_deadline() == "rendezvous poll" {
            let stream = solo.open();
            answer(&mut solo, stream, &page(vec![], "2"));
        }
    }
    solo.with(|client, cx| client.unwatch(cx, peer("R"), Some("app")));
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    insta::assert_snapshot!(solo.story(), @r#"
      0.000  B  *  rendezvous connecting to R
      0.000  B  !  dial /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R
      0.000  B  >  R  rendezvous DISCOVER "app" limit=100
      0.000  R  >  B  rendezvous DISCOVER_RESPONSE OK "app" ttl=150s A addresses=1 signed cookie
      0.000  B  *  rendezvous found A in "app" for 150 s /ip4/203.0.113.1/udp/4001/quic-v1/p2p/A at R
      0.000  B  >  R  rendezvous DISCOVER "app" limit=100 cookie
      0.000  R  >  B  rendezvous DISCOVER_RESPONSE OK cookie
      0.000  B  *  rendezvous polled "app" at R: 1 known
     55.433  B  >  R  rendezvous DISCOVER "app" limit=100 cookie
     55.433  R  >  B  rendezvous DISCOVER_RESPONSE OK 2 peers cookie
     55.433  B  *  rendezvous updated A in "app" for 150 s /ip4/198.51.100.1/udp/4001/quic-v1/p2p/A at R
     55.433  B  *  rendezvous found C in "app" for 7200 s /ip4/203.0.113.1/udp/4001/quic-v1/p2p/C at R
     55.433  B  >  R  rendezvous DISCOVER "app" limit=100 cookie
     55.433  R  >  B  rendezvous DISCOVER_RESPONSE OK cookie
     55.433  B  *  rendezvous polled "app" at R: 2 known
    109.790  B  >  R  rendezvous DISCOVER "app" limit=100
    109.790  R  >  B  rendezvous DISCOVER_RESPONSE OK cookie
    109.790  B  *  rendezvous polled "app" at R: 2 known
    164.543  B  >  R  rendezvous DISCOVER "app" limit=100
    164.543  R  >  B  rendezvous DISCOVER_RESPONSE OK cookie
    164.543  B  *  rendezvous polled "app" at R: 2 known
    205.433  B  *  rendezvous expired A in "app" at R
    "#);
}

#[test]
fn a_signed_record_is_not_replaced_by_an_older_or_an_unsigned_one() {
    let (mut solo, _) = watching();
    for (other, is_new) in
        [(registration("A", 0, HOME), false), (unsigned("A"), false), (registration("A", 2, HOME), true)]
    {
        while solo.opening().is_empty() {
            solo.next_deadline();
        }
        let stream = solo.open();
        answer(&mut solo, stream, &page(vec![other], ""));
        let updated = events(&mut solo).iter().any(|e| matches!(e, client::Event::Updated { .. }));
        assert_eq!(updated, is_new);
    }
}

#[test]
fn a_bad_cookie_makes_a_watch_start_over_without_telling_anybody_twice() {
    let (mut solo, _) = watching();
    solo.next_deadline();
    let stream = solo.open();
    assert_eq!(asked_discover(&mut solo, stream).cookie, Some(b"1".to_vec()));
    answer(&mut solo, stream, &no_page(103));
    let stream = solo.open();
    assert_eq!(asked_discover(&mut solo, stream).cookie, None);
    answer(&mut solo, stream, &page(vec![entry("A"), entry("C")], ""));
    let told = events(&mut solo);
    assert!(matches!(&told[0], client::Event::StartedOver { .. }), "{told:?}");
    assert!(
        matches!(&told[1], client::Event::Discovered { found, .. } if found.peer == peer("C")),
        "{told:?}"
    );
    assert!(matches!(&told[2], client::Event::Polled { known: 2, .. }), "{told:?}");
    assert_eq!(told.len(), 3);

    // A point that refuses even no cookie is broken.
    solo.next_deadline();
    let stream = solo.open();
    answer(&mut solo, stream, &no_page(103));
    assert!(matches!(events(&mut solo).pop(), Some(client::Event::WatchFailed { retry: Some(_), .. })));
}

#[test]
fn a_watch_asks_for_everything_after_the_point_was_lost_and_from_time_to_time() {
    let (mut solo, connection) = watching();
    solo.disconnect_because(connection, CloseReason::Reset);
    solo.next_deadline();
    solo.dialled("R");
    let stream = solo.open();
    assert_eq!(asked_discover(&mut solo, stream).cookie, None);
    answer(&mut solo, stream, &page(vec![], "7"));
    assert_eq!(solo.behaviour.known(&peer("R"), Some("app")).count(), 1, "whoever is known stays so");
    let start = solo.now();
    loop {
        solo.next_deadline();
        let stream = solo.open();
        let cookie = asked_discover(&mut solo, stream).cookie;
        answer(&mut solo, stream, &page(vec![], "7"));
        let passed = solo.now().saturating_duration_since(start).as_secs();
        if cookie.is_none() {
            assert!((840..=960).contains(&passed), "{passed}");
            break;
        }
        assert!(passed < 960);
    }
}

#[test]
fn a_watch_goes_on_when_the_point_is_down() {
    let (mut solo, connection) = watching();
    solo.disconnect(connection);
    for _ in 0..20 {
        assert_eq!(solo.next_deadline(), "rendezvous poll");
        solo.dial_fails(DialError { attempts: Vec::new() });
        match events(&mut solo).pop() {
            Some(client::Event::WatchFailed {
                retry: Some(retry), reason: Error::Unreachable(_), ..
            }) => {
                assert!(retry <= Duration::from_secs(300));
            }
            other => panic!("{other:?}"),
        }
    }
    while solo.dialling().is_empty() {
        solo.next_deadline();
    }
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &page(vec![entry("C")], ""));
    assert_eq!(found(&mut solo), ["C"]);
    solo.next_deadline();
    let stream = solo.open();
    answer(&mut solo, stream, &no_page(200));
    assert!(matches!(events(&mut solo).pop(), Some(client::Event::WatchFailed { retry: None, .. })));
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
}

#[test]
fn a_watch_and_a_discovery_hold_so_many_peers_and_no_more() {
    let mut solo = client_with(Config { max_peers: 2, ..Config::default() });
    watch(&mut solo);
    solo.dialled("R");
    let crowd = || vec![entry("A"), entry("C"), entry("X"), entry("R")];
    let stream = solo.open();
    answer(&mut solo, stream, &page(crowd(), "1"));
    assert_eq!(solo.behaviour.known(&peer("R"), Some("app")).count(), 2);
    assert!(solo.opening().is_empty());
    let id = discover(&mut solo, Query::new(point(), "app"));
    let stream = solo.open();
    answer(&mut solo, stream, &page(crowd(), "1"));
    assert_eq!(outcome(&mut solo, id).unwrap().peers.len(), 2);
    assert_eq!(solo.counters.get("rendezvous.client.skipped.too_many"), 4);
}
