//! A node takes no more than it was given: of connections, of streams, from one place, at a time.

use std::net::{IpAddr, Ipv4Addr};

use peerless_core::{
    errors::{AttemptError, CloseReason, Exceeded, OpenError, Refusal, Resource, Scope},
    node::{Config, Event, Node},
    rate::Rate,
    swarm::resources::{Limits, ScopeLimit},
};
use peerless_tests::{
    app::ECHO,
    host::HostId,
    world::{World, ms, secs},
};

fn limited(change: impl Fn(&mut Limits) + 'static) -> impl Fn(&mut Config) {
    move |config| {
        config.swarm.limits = Limits::unlimited();
        change(&mut config.swarm.limits);
        config.swarm.pruner.high_water = usize::MAX;
    }
}

fn refusals(w: &World, host: HostId, scope: Scope, resource: Resource) -> u64 {
    let all = w.node(host).swarm().resources().refusals();
    all.filter(|(s, r, _)| (*s, *r) == (scope, resource)).map(|(.., count)| count).sum()
}

fn limit(scope: Scope, resource: Resource) -> Refusal {
    Refusal::Limit(Exceeded { scope, resource })
}

/// Nothing that is limited is ever exceeded.
fn assert_within(node: &Node, inbound: usize, half_open: usize) {
    let resources = node.swarm().resources();
    let quic = node.stats().quic;
    assert!(resources.system().inbound_connections <= inbound, "{:?}", resources.system());
    assert!(resources.transient().inbound_connections <= half_open, "{:?}", resources.transient());
    assert!(quic.half_open <= half_open && quic.connected <= inbound, "{quic:?}");
    assert!(node.connections().len() <= inbound);
}

/// The letter (e): a flood of connections is refused beyond the limits, at every step, and leaves nothing.
#[test]
fn e_a_flood_of_connections_exceeds_no_limit_of_any_scope() {
    const INBOUND: usize = 20;
    const HALF_OPEN: usize = 12;
    let mut w = World::new(1).quiet();
    let b = w
        .host("B")
        .configure(limited(|limits| {
            limits.system = ScopeLimit { inbound_connections: INBOUND, ..ScopeLimit::UNLIMITED };
            limits.transient = ScopeLimit { inbound_connections: HALF_OPEN, ..ScopeLimit::UNLIMITED };
        }))
        .start();
    let crowd: Vec<_> = (0..100).map(|n| w.host(format!("{n}")).start()).collect();
    let address = w[b].address();
    for _ in 0..3 {
        for host in &crowd {
            w.start_dial(*host, None, std::slice::from_ref(&address));
        }
        for _ in 0..400 {
            w.run_for(ms(1));
            assert_within(w.node(b), INBOUND, HALF_OPEN);
        }
    }
    w.run_for(secs(5));
    assert_eq!(w.node(b).connections().len(), INBOUND, "up to the limit all were let in");
    let system = refusals(&w, b, Scope::System, Resource::InboundConnections);
    let transient = refusals(&w, b, Scope::Transient, Resource::InboundConnections);
    println!("refused: {system} by the system, {transient} as half-open");
    assert!(system > 100);
    assert!(w[b].log().iter().any(|(_, event)| matches!(
        event,
        Event::InboundFailed { reason: CloseReason::Refused(Refusal::Limit(_)), .. }
    )));
    let labels = [("scope", "system"), ("resource", "inbound_connections")];
    assert_eq!(w.node(b).metrics().get("peerless_limit_refusals_total", &labels), Some(system));
    w.shutdown();
    w.assert_empty();
    assert!(w.node(b).swarm().resources().is_empty());
}

/// The letter (e): one address gets what one address may have, and whoever comes from elsewhere is served meanwhile.
#[test]
fn e_an_address_that_floods_leaves_room_for_others() {
    let mut w = World::new(2);
    let b = w.host("B").configure(limited(|limits| limits.per_ip = 8)).start();
    let flooder = w.host("flooder").configure(limited(|_| {})).start();
    let other = w.host("other").start();
    let address = w[b].address();
    for _ in 0..200 {
        w.start_own_dial(flooder, &address);
        assert!(w.node(b).swarm().resources().inbound_from(w[flooder].socket_address().ip()) <= 8);
    }
    w.run_for(ms(500));
    w.dial(other, b);
    assert_eq!(w.connections(flooder, b).len(), 8);
    assert!(refusals(&w, b, Scope::Ip, Resource::InboundConnections) > 0);
    assert!(w.node(b).stats().quic.refused.retried > 0, "beyond half of it an address has to show itself");
    w.shutdown();
    w.assert_empty();
}

#[test]
fn e_an_address_that_comes_too_often_is_refused_until_it_has_waited() {
    let mut w = World::new(3);
    let rate = Rate { burst: 4, every: secs(1) };
    let b = w.host("B").configure(limited(move |limits| limits.rate_per_ip = rate)).start();
    let a = w.host("A").start();
    for _ in 0..4 {
        let connection = w.dial(a, b);
        w.close(a, connection);
    }
    let address = w[b].address();
    let error = w.try_dial(a, None, std::slice::from_ref(&address)).expect_err("A comes too often");
    assert!(matches!(error.attempts[0].1, AttemptError::Failed(CloseReason::ConnectionRefused)), "{error}");
    assert_eq!(refusals(&w, b, Scope::Ip, Resource::Rate), 1);
    w.run_for(secs(1));
    w.dial(a, b);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn e_a_peer_gets_what_one_peer_may_have_and_is_told_why_not_more() {
    let mut w = World::new(4);
    let two = ScopeLimit { connections: 2, ..ScopeLimit::UNLIMITED };
    let b = w.host("B").configure(limited(move |limits| limits.peer = two)).start();
    let a = w.host("A").start();
    let address = w[b].address();
    for _ in 0..3 {
        w.start_own_dial(a, &address);
    }
    w.run_for(secs(1));
    assert_eq!(w.connections(b, a).len(), 2);
    assert_eq!(refusals(&w, b, Scope::Peer, Resource::Connections), 1);
    let told = |(_, event): &(_, Event)| {
        matches!(event, Event::Disconnected { reason: CloseReason::Remote { code: 0x1001, .. }, .. })
    };
    assert!(w[a].log().iter().any(told));
    w.shutdown();
    w.assert_empty();
}

#[test]
fn e_a_dial_beyond_the_limit_says_so_and_sends_nothing() {
    let mut w = World::new(5);
    let one = ScopeLimit { outbound_connections: 1, ..ScopeLimit::UNLIMITED };
    let a = w.host("A").configure(limited(move |limits| limits.system = one)).start();
    let b = w.host("B").start();
    let c = w.host("C").bare();
    w.dial(a, b);
    let address = w[c].address();
    let from = w[a].log().len();
    w.start_dial(a, None, &[address]);
    let error = w[a].log()[from..].iter().find_map(|(_, event)| match event {
        Event::DialFailed { error, .. } => Some(error.clone()),
        _ => None,
    });
    let refusal = limit(Scope::System, Resource::OutboundConnections);
    assert_eq!(error.expect("it fails at once").attempts[0].1, AttemptError::Refused(refusal));
    w.run_for(secs(1));
    assert!(w.receive(c).is_empty());
    w.shutdown();
    w.assert_empty();
}

#[test]
fn e_a_circuit_is_a_connection_like_any_other() {
    let mut w = World::new(6);
    let r = w.host("R").relay().start();
    let one = ScopeLimit { inbound_connections: 0, ..ScopeLimit::UNLIMITED };
    let b = w.host("B").configure(limited(move |limits| limits.system = one)).start();
    let a = w.host("A").start();
    w.reserve(b, r);
    w.run_for(secs(1));
    let address = w.circuit(r, b);
    w.try_dial(a, None, &[address]).expect_err("B takes no inbound connections");
    assert_eq!(refusals(&w, b, Scope::System, Resource::InboundConnections), 1);
    w.shutdown();
    w.assert_empty();
}

#[test]
fn e_streams_beyond_the_limits_are_refused_on_both_sides() {
    let mut w = World::new(7);
    let three = ScopeLimit { inbound_streams: 3, ..ScopeLimit::UNLIMITED };
    let b = w.host("B").configure(limited(move |limits| limits.service = three)).start();
    let five = ScopeLimit { outbound_streams: 5, ..ScopeLimit::UNLIMITED };
    let a = w.host("A").configure(limited(move |limits| limits.protocol = five)).start();
    let connection = w.dial(a, b);
    w.run_for(secs(1));
    let opened: Vec<_> =
        (0..8).map(|_| w.command(a, |node, now| node.open(now, connection, &ECHO))).collect();
    let exceeded = Exceeded { scope: Scope::Protocol, resource: Resource::OutboundStreams };
    assert!(opened[..5].iter().all(Result::is_ok));
    assert!(opened[5..].iter().all(|result| *result == Err(OpenError::Limit(exceeded))));
    w.run_for(secs(1));
    assert_eq!(w[b].app().serving(), 3);
    assert_eq!(refusals(&w, b, Scope::Service, Resource::InboundStreams), 2);
    w.shutdown();
    w.assert_empty();
    for host in [a, b] {
        assert!(w.node(host).swarm().resources().is_empty());
    }
}

/// C2, C3: whatever happens to connections and streams, everything comes back.
#[test]
fn after_random_dials_closes_and_deaths_nothing_is_held() {
    let mut w = World::new(8).quiet();
    let r = w.host("R").relay().start();
    let hosts: Vec<_> = (0..8_u8)
        .map(|n| w.host(format!("{n}")).ip(IpAddr::from(Ipv4Addr::new(80, 9, n, 1))).start())
        .collect();
    for host in &hosts {
        w.reserve(*host, r);
    }
    w.run_for(secs(1));
    let mut rng = w.fork("choices");
    let mut pick = |n: usize| rng.below(n as u64) as usize;
    for _ in 0..600 {
        let (a, b) = (hosts[pick(8)], hosts[pick(8)]);
        match pick(6) {
            0..=1 if a != b => {
                let address = if pick(2) == 0 { w[b].address() } else { w.circuit(r, b) };
                w.start_dial(a, None, &[address]);
            }
            2..=3 => {
                let known = w.node(a).connections().iter().map(|info| info.id).collect::<Vec<_>>();
                if !known.is_empty() {
                    _ = w.try_start_echo(a, known[pick(known.len())], 50_000);
                }
            }
            4 => {
                let known = w.node(a).connections().iter().map(|info| info.id).collect::<Vec<_>>();
                if !known.is_empty() {
                    w.close(a, known[pick(known.len())]);
                }
            }
            5 if pick(10) == 0 => w.restart(a),
            _ => w.run_for(ms(pick(100) as u64)),
        }
        let held = w.node(a).swarm().resources().system();
        let connections = held.inbound_connections + held.outbound_connections;
        assert!(connections >= w.node(a).connections().len());
    }
    w.run_for(secs(60));
    w.shutdown();
    for host in hosts.into_iter().chain([r]) {
        assert!(w.node(host).swarm().resources().is_empty(), "{:?}", w.node(host).swarm().resources());
    }
}
