//! Being registered, whatever happens to the point.

use peerless_core::info::Info;

use super::*;

#[test]
fn a_registration_is_made_renewed_and_given_up() {
    let mut solo = client();
    register(&mut solo);
    assert_eq!(state(&solo), Some(RegistrationState::Requesting));
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(7200));
    assert_eq!(solo.next_deadline(), "registration step");
    assert_eq!(state(&solo), Some(RegistrationState::Refreshing));
    let stream = solo.open();
    answer(&mut solo, stream, &granted(7200));
    solo.with(|client, cx| client.unregister(cx, peer("R"), "app"));
    let stream = solo.open();
    assert!(solo.is_finished(stream));
    solo.finish(stream);
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    insta::assert_snapshot!(solo.story(), @r#"
       0.000  B  *  rendezvous registering "app" at R
       0.000  B  *  rendezvous connecting to R
       0.000  B  !  dial /ip4/203.0.113.1/udp/4001/quic-v1/p2p/R
       0.000  B  >  R  rendezvous REGISTER "app" ttl=7200s B addresses=1 signed
       0.000  R  >  B  rendezvous REGISTER_RESPONSE OK ttl=7200s
       0.000  B  *  rendezvous registered "app" at R for 7200 s
    3886.687  B  *  rendezvous registering "app" at R
    3886.687  B  >  R  rendezvous REGISTER "app" ttl=7200s B addresses=1 signed
    3886.687  R  >  B  rendezvous REGISTER_RESPONSE OK ttl=7200s
    3886.687  B  *  rendezvous renewed "app" at R for 7200 s
    3886.687  B  *  rendezvous lost "app" at R: given up by us
    3886.687  B  >  R  rendezvous UNREGISTER "app"
    "#);
}

#[test]
fn a_renewal_comes_between_half_and_two_thirds_of_the_term() {
    let (mut solo, _) = registered();
    assert_eq!(solo.next_deadline(), "registration step");
    let at = since_start(&solo);
    assert!(HOUR <= at && at <= 4800 * Duration::from_secs(1), "{at:?}");
}

/// Must survive: the point is down for five minutes, and it is just then that we want to renew.
#[test]
fn g_a_point_that_is_down_for_five_minutes_does_not_cost_the_registration() {
    let (mut solo, connection) = registered();
    solo.next_deadline();
    solo.open();
    solo.events();
    solo.disconnect(connection);
    let back = solo.now() + Duration::from_secs(300);
    let mut tries = 0;
    while solo.now() < back {
        if solo.dialling().is_empty() {
            solo.next_deadline();
        } else {
            solo.dial_fails(DialError { attempts: Vec::new() });
            tries += 1;
        }
    }
    assert!((5..40).contains(&tries), "{tries}");
    while solo.dialling().is_empty() {
        solo.next_deadline();
    }
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(7200));
    let lost = |event: &client::Event| matches!(event, client::Event::RegistrationLost { .. });
    let events = events(&mut solo);
    assert!(!events.iter().any(lost), "{events:?}");
    assert!(matches!(events.last(), Some(client::Event::Registered { renewed: true, .. })));
    assert!(since_start(&solo) < 2 * HOUR - Duration::from_secs(600));
}

#[test]
fn tries_to_renew_come_before_the_end_and_go_on_after_it() {
    let mut solo = client();
    register(&mut solo);
    let connection = solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(60));
    solo.disconnect(connection);
    solo.events();
    let (mut retries, mut told) = (Vec::new(), Vec::new());
    let lost = client::Event::RegistrationLost {
        point: peer("R"),
        namespace: "app".into(),
        reason: Error::Expired,
        wanted: true,
    };
    while !told.contains(&lost) {
        if solo.dialling().is_empty() {
            solo.next_deadline();
        } else {
            solo.dial_fails(DialError { attempts: Vec::new() });
        }
        told = events(&mut solo);
        for event in &told {
            let client::Event::RefreshFailed { retry, .. } = event else { continue };
            let slack = Duration::from_millis(100);
            assert!(since_start(&solo) + *retry <= Duration::from_secs(60) + slack, "{retry:?}");
            retries.push(*retry);
        }
    }
    assert!(retries.len() >= 5, "{retries:?}");
    assert_eq!(since_start(&solo), Duration::from_secs(60));
    while solo.dialling().is_empty() {
        solo.next_deadline();
    }
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(60));
    assert_eq!(state(&solo), Some(RegistrationState::Active));
}

#[test]
fn a_connection_lost_without_a_word_leads_to_a_registration_anew() {
    for (reason, soonest, latest) in [
        (CloseReason::Reset, 1, 10),
        (CloseReason::TimedOut, 1, 10),
        (CloseReason::Remote { code: 0, text: String::new() }, 300, 600),
    ] {
        let (mut solo, connection) = registered();
        solo.disconnect_because(connection, reason);
        assert_eq!(state(&solo), Some(RegistrationState::Active));
        assert_eq!(solo.next_deadline(), "registration step");
        let at = since_start(&solo).as_secs();
        assert!((soonest..=latest).contains(&at), "{at}");
        assert_eq!(solo.dialling(), [[point()]]);
    }
    let (mut solo, connection) = registered();
    solo.disconnect_because(connection, CloseReason::Local);
    solo.next_deadline();
    assert!(since_start(&solo) >= HOUR);
}

#[test]
fn what_a_point_grants_is_what_counts() {
    for (granted_ttl, end) in [(Some(600), 600), (None, 7200), (Some(u64::MAX), 72 * 3600)] {
        let mut solo = client();
        register(&mut solo);
        solo.dialled("R");
        let stream = solo.open();
        let mut message = granted(0);
        message.register_response.as_mut().unwrap().ttl = granted_ttl;
        answer(&mut solo, stream, &message);
        let ttl = Duration::from_secs(end);
        assert!(events(&mut solo).iter().any(|event| matches!(
            event,
            client::Event::Registered { ttl: told, renewed: false, .. } if *told == ttl
        )));
        solo.next_deadline();
        assert!(since_start(&solo) >= ttl / 2 && since_start(&solo) <= ttl / 3 * 2);
    }
    let mut solo = client();
    register(&mut solo);
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(0));
    assert_eq!(failure(&mut solo), (Error::Malformed("a registration for no time"), true));
}

/// Why there is no registration, and whether it goes on being tried.
fn failure(solo: &mut Solo<Client>) -> (Error, bool) {
    match events(solo).pop() {
        Some(client::Event::RegistrationFailed { reason, retry, .. }) => (reason, retry.is_some()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn refusals_are_told_apart_and_some_are_final() {
    for (code, status, goes_on) in [
        (100, Status::InvalidNamespace, false),
        (102, Status::InvalidTtl, false),
        (300, Status::InternalError, true),
        (400, Status::Unavailable, true),
        (999, Status::Other(999), true),
    ] {
        let mut solo = client();
        let wanted = Registration { dialect: Dialect::Standard, ..Registration::new(point(), "app") };
        solo.with(|client, cx| client.register(cx, wanted)).unwrap();
        solo.dialled("R");
        let stream = solo.open();
        answer(&mut solo, stream, &refused(code));
        assert_eq!(failure(&mut solo), (Error::Refused { status, text: "why".into() }, goes_on));
        assert_eq!(state(&solo), goes_on.then_some(RegistrationState::BackingOff));
        assert_eq!(solo.behaviour.is_empty(), !goes_on);
    }
    let (mut solo, _) = registered();
    solo.next_deadline();
    let stream = solo.open();
    answer(&mut solo, stream, &refused(102));
    assert!(matches!(events(&mut solo).pop(), Some(client::Event::RegistrationLost { wanted: false, .. })));
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
}

/// Answers REGISTERs until one is accepted; gives the dialects in their order.
fn dialects_until(
    solo: &mut Solo<Client>,
    accepted: Dialect,
    refuse: fn(&mut Solo<Client>, StreamId),
) -> Vec<Dialect> {
    let mut tried = Vec::new();
    loop {
        let stream = solo.open();
        tried.push(dialect(solo, stream));
        if tried.last() == Some(&accepted) {
            answer(solo, stream, &granted(7200));
            return tried;
        }
        refuse(solo, stream);
    }
}

#[test]
fn a_point_gets_the_record_in_the_dialect_that_it_takes_and_keeps_getting_it() {
    use Dialect::{PeerInfo, RustLegacy, Standard};
    let resets = |solo: &mut Solo<Client>, stream| solo.reset(stream, StreamFault::Remote(0));
    let forbids = |solo: &mut Solo<Client>, stream| answer(solo, stream, &refused(200));
    let ends = |solo: &mut Solo<Client>, stream| solo.finish(stream);
    for (accepted, refuse, expected) in [
        (Standard, resets as fn(&mut Solo<Client>, StreamId), vec![Standard]),
        (RustLegacy, resets, vec![Standard, RustLegacy]),
        (PeerInfo, forbids, vec![Standard, RustLegacy, PeerInfo]),
        (PeerInfo, ends, vec![Standard, RustLegacy, PeerInfo]),
    ] {
        let mut solo = client();
        register(&mut solo);
        solo.dialled("R");
        assert_eq!(dialects_until(&mut solo, accepted, refuse), expected);
        solo.next_deadline();
        assert_eq!(dialects_until(&mut solo, accepted, refuse), [accepted], "it is remembered");
        // Once it has worked, a stream that is lost is an accident.
        solo.next_deadline();
        let stream = solo.open();
        solo.reset(stream, StreamFault::Remote(0));
        let last = events(&mut solo).pop();
        assert!(matches!(last, Some(client::Event::RefreshFailed { .. })), "{last:?}");
    }
}

#[test]
fn what_a_point_calls_itself_says_which_dialect_comes_first() {
    use Dialect::{PeerInfo, RustLegacy, Standard};
    for (agent, expected) in [
        ("rust-libp2p/0.57.1", RustLegacy),
        ("py-libp2p/0.8.1", PeerInfo),
        ("peerless/0.1.0", Standard),
        ("js-libp2p/3.3.11", Standard),
    ] {
        let mut solo = client();
        register(&mut solo);
        let connection = solo.dialled("R");
        let info = Info {
            public_key: identity("R").public(),
            protocols: vec![],
            listen_addresses: vec![],
            certified: false,
            observed: None,
            agent: agent.into(),
            protocol_version: String::new(),
        };
        let told = peerless_core::behaviour::PeerEvent::Identified {
            connection,
            peer: peer("R"),
            info: std::sync::Arc::new(info),
        };
        solo.input(Input::Peer(told));
        solo.refuse_open(OpenError::StreamLimit);
        solo.next_deadline();
        let stream = solo.open();
        assert_eq!(dialect(&mut solo, stream), expected, "{agent}");
    }
}

#[test]
fn a_dialect_that_is_asked_for_is_the_only_one() {
    for wanted in [Dialect::Standard, Dialect::RustLegacy, Dialect::PeerInfo] {
        let mut solo = client();
        let registration = Registration { dialect: wanted, ..Registration::new(point(), "app") };
        solo.with(|client, cx| client.register(cx, registration)).unwrap();
        solo.dialled("R");
        let stream = solo.open();
        assert_eq!(dialect(&mut solo, stream), wanted);
        answer(&mut solo, stream, &refused(101));
        let (error, goes_on) = failure(&mut solo);
        assert!(matches!(error, Error::Refused { status: Status::InvalidSignedPeerRecord, .. }) && goes_on);
    }
}

#[test]
fn of_three_dialects_refused_the_first_refusal_is_told() {
    let mut solo = client();
    register(&mut solo);
    solo.dialled("R");
    let stream = solo.open();
    answer(&mut solo, stream, &refused(101));
    for _ in 0..2 {
        let stream = solo.open();
        solo.reset(stream, StreamFault::Remote(0));
    }
    let (error, _) = failure(&mut solo);
    assert!(matches!(error, Error::Refused { status: Status::InvalidSignedPeerRecord, .. }), "{error}");
    assert_eq!(solo.next_deadline(), "registration step");
}

fn change_address(solo: &mut Solo<Client>, add: Option<&str>, remove: Option<&str>) {
    add.map(|text| solo.addresses.add(address(text), AddressSource::Listen));
    remove.map(|text| solo.addresses.remove(&address(text), AddressSource::Listen));
    solo.input(Input::Addresses);
}

fn registered_addresses(solo: &mut Solo<Client>, stream: StreamId) -> Vec<Multiaddr> {
    let record = asked_register(solo, stream).signed_peer_record.expect("a record");
    match RegisterRecord::decode(&record) {
        Ok(RegisterRecord::SignedPeerRecord(envelope)) => {
            PeerRecord::open(&envelope).expect("a good signature").addresses
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_addresses_are_registered_once_they_have_settled() {
    let (mut solo, _) = registered();
    let through = circuit("/ip4/192.0.2.9/udp/1/quic-v1", "R", "B").to_string();
    let through = through.rsplit_once("/p2p/").unwrap().0;
    for _ in 0..5 {
        change_address(&mut solo, Some(through), None);
        change_address(&mut solo, None, Some(through));
        change_address(&mut solo, Some(through), None);
    }
    assert_eq!(solo.next_deadline(), "addresses settle");
    assert_eq!(since_start(&solo), Duration::from_secs(3));
    let stream = solo.open();
    assert_eq!(registered_addresses(&mut solo, stream), [address(through), address(HOME)]);
    assert!(solo.opening().is_empty(), "once");
    // Changed while the point is being asked: it is asked once more.
    change_address(&mut solo, None, Some(through));
    solo.advance(Duration::from_secs(4));
    assert!(solo.opening().is_empty());
    answer(&mut solo, stream, &granted(7200));
    assert_eq!(solo.next_deadline(), "addresses settle");
    let stream = solo.open();
    assert_eq!(registered_addresses(&mut solo, stream), [address(HOME)]);
    answer(&mut solo, stream, &granted(7200));

    change_address(&mut solo, Some(through), None);
    change_address(&mut solo, None, Some(through));
    assert_eq!(solo.next_deadline(), "addresses settle");
    assert!(solo.opening().is_empty(), "nothing has changed after all");
}

#[test]
fn a_node_without_addresses_waits_for_one() {
    let (mut solo, _) = registered();
    change_address(&mut solo, None, Some(HOME));
    solo.advance(Duration::from_secs(3));
    assert!(solo.opening().is_empty());
    let last = events(&mut solo).pop();
    assert!(matches!(last, Some(client::Event::RefreshFailed { reason: Error::NoAddress, .. })), "{last:?}");
    change_address(&mut solo, Some(PLACE), None);
    solo.advance(Duration::from_secs(3));
    let stream = solo.open();
    assert_eq!(registered_addresses(&mut solo, stream), [address(PLACE)]);
}

#[test]
fn several_points_and_namespaces_are_kept_apart() {
    let mut solo = client();
    let other = address("/ip4/203.0.113.2/udp/4001/quic-v1").with(Protocol::P2p(peer("C")));
    for (point, namespace) in [(point(), "app"), (point(), "x"), (other, "app")] {
        solo.with(|client, cx| client.register(cx, Registration::new(point, namespace))).unwrap();
    }
    solo.dialled("R");
    for namespace in ["app", "x"] {
        let stream = solo.open();
        let ns = asked_register(&mut solo, stream).ns;
        assert_eq!(ns.as_deref(), Some(namespace));
        answer(&mut solo, stream, &granted(7200));
    }
    solo.dial_fails(DialError { attempts: Vec::new() });
    solo.with(|client, cx| client.unregister(cx, peer("R"), "x"));
    let state = |name, namespace| solo.behaviour.registration(&peer(name), namespace);
    assert_eq!(state("R", "app"), Some(RegistrationState::Active));
    assert_eq!(state("R", "x"), None);
    assert_eq!(state("C", "app"), Some(RegistrationState::BackingOff));
}

#[test]
fn a_wish_that_is_repeated_is_asked_for_anew() {
    let (mut solo, _) = registered();
    solo.with(|client, cx| {
        client.register(cx, Registration { ttl: 3 * HOUR, ..Registration::new(point(), "app") })
    })
    .unwrap();
    let stream = solo.open();
    assert_eq!(asked_register(&mut solo, stream).ttl, Some(3 * 3600));
    // The answer to the first is not waited for.
    register(&mut solo);
    assert!(!solo.is_open(stream));
    let stream = solo.open();
    answer(&mut solo, stream, &granted(7200));
    assert_eq!(solo.behaviour.registrations().count(), 1);
}

#[test]
fn who_stops_says_goodbye_where_there_is_a_connection() {
    let (mut solo, _) = registered();
    let other = address("/ip4/203.0.113.2/udp/4001/quic-v1").with(Protocol::P2p(peer("C")));
    solo.with(|client, cx| client.register(cx, Registration::new(other, "app"))).unwrap();
    let away = solo.dialled("C");
    let stream = solo.open();
    answer(&mut solo, stream, &granted(7200));
    solo.disconnect(away);
    watch(&mut solo);
    solo.refuse_open(OpenError::StreamLimit);
    solo.with(|client, cx| client.stop(cx));
    let stream = solo.open();
    assert!(asked(&mut solo, stream).unregister.is_some_and(|u| u.ns.as_deref() == Some("app")));
    solo.finish(stream);
    assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
}
