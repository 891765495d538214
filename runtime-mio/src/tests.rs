use std::thread;

use peerless_core::{
    identity::Identity,
    rng::{Rng, RngCore},
};

use super::*;

fn runtime(config: RuntimeConfig) -> Runtime {
    let identity = Identity::generate(&mut Rng::new([config.listen.len() as u8; 32]));
    Runtime::new(node::Config::new(identity), config).unwrap()
}

fn loopback() -> RuntimeConfig {
    RuntimeConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..RuntimeConfig::default() }
}

#[test]
fn a_turn_waits_no_longer_than_it_is_told_and_not_at_all_while_events_wait() {
    let mut runtime = runtime(loopback());
    let start = runtime.now();
    // The address that the socket gave the node is an event.
    runtime.turn(None).unwrap();
    assert!(matches!(runtime.poll_event(), Some(Event::Listening { .. })));
    let mut turns = 0;
    while runtime.now() < start + Duration::from_millis(200) {
        runtime.turn(Some(Duration::from_millis(50))).unwrap();
        turns += 1;
    }
    assert!(turns <= 6, "{turns} turns with nothing to do");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a runtime is made for threads")]
fn commands_of_other_threads_wake_a_runtime_that_has_nothing_to_wait_for() {
    let mut runtime = runtime(loopback());
    let (handle, peer) = (runtime.handle(), runtime.node().local_peer());
    let thread = thread::spawn(move || runtime.run(|_, _| {}));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(handle.call(|node, _| node.local_peer()), Ok(peer));
    handle.shutdown();
    thread.join().unwrap().unwrap();
    assert_eq!(handle.send(|_, _| {}), Err(HandleError::Gone));
    assert_eq!(handle.call(|_, _| ()), Err(HandleError::Gone));
}

#[test]
fn the_command_queue_is_bounded_and_runs_in_order() {
    let mut runtime = runtime(RuntimeConfig { command_queue: 200, ..loopback() });
    let (handle, ran) = (runtime.handle(), Arc::new(std::sync::Mutex::new(Vec::new())));
    for n in 0..200 {
        let ran = Arc::clone(&ran);
        handle.send(move |_, _| ran.lock().unwrap().push(n)).unwrap();
    }
    assert_eq!(handle.send(|_, _| {}), Err(HandleError::Full));
    for _ in 0..8 {
        runtime.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(*ran.lock().unwrap(), (0..200).collect::<Vec<_>>());
}

#[test]
fn garbage_is_counted_and_costs_nothing_else() {
    let mut runtime = runtime(loopback());
    let target = runtime.local_addrs()[0];
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rng = Rng::new([9; 32]);
    let mut junk = [0; 1500];
    for _ in 0..2000 {
        rng.fill_bytes(&mut junk);
        let length = rng.below(1501) as usize;
        sender.send_to(&junk[..length], target).unwrap();
        runtime.turn(Some(Duration::ZERO)).unwrap();
        while runtime.poll_event().is_some() {}
    }
    while runtime.stats().received < 2000 {
        let before = runtime.stats().received;
        runtime.turn(Some(Duration::from_secs(1))).unwrap();
        assert!(runtime.stats().received > before, "{before} datagrams of 2000 came");
    }
    assert!(runtime.node().is_idle());
}

#[test]
fn a_taken_port_is_an_error_that_names_the_address() {
    let runtime = runtime(loopback());
    let address = runtime.local_addrs()[0];
    let identity = Identity::generate(&mut Rng::new([1; 32]));
    let config = RuntimeConfig { listen: vec![address], ..RuntimeConfig::default() };
    let error = Runtime::new(node::Config::new(identity), config).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// Pings a node from one whose first sends fail, and returns what that one counts.
fn ping_through(faults: Vec<io::Error>) -> IoStats {
    let mut server = runtime(loopback());
    let server_peer = server.node().local_peer();
    let address = server.node().addresses().advertised().remove(0);
    let server_handle = server.handle();
    let thread = thread::Builder::new().spawn(move || server.run(|_, _| {})).unwrap();
    let mut client = runtime(RuntimeConfig::default());
    for socket in &mut client.sockets {
        socket.faults = faults
            .iter()
            .map(|fault| fault.raw_os_error().map_or(fault.kind().into(), io::Error::from_raw_os_error))
            .collect();
    }
    let (node, now) = client.node_mut();
    node.dial(now, Some(server_peer), &[address]);
    let mut rtt = None;
    client
        .run(|runtime, event| match event {
            Event::Connected { connection, .. } => {
                let (node, now) = runtime.node_mut();
                node.ping(now, connection).unwrap();
            }
            Event::Ping(ping) => {
                rtt = ping.result.ok();
                runtime.shutdown();
            }
            Event::DialFailed { error, .. } => panic!("{error}"),
            _ => {}
        })
        .unwrap();
    assert!(rtt.is_some());
    server_handle.shutdown();
    thread.join().unwrap().unwrap();
    client.stats()
}

#[test]
fn a_full_send_buffer_delays_and_loses_nothing() {
    let stats = ping_through((0..5).map(|_| io::ErrorKind::WouldBlock.into()).collect());
    assert_eq!((stats.send_blocked, stats.send_dropped), (5, 0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_refused_send_is_a_lost_datagram_and_no_more() {
    let (eperm, eio, emsgsize, enobufs, einval) = (1, 5, 90, 105, 22);
    for errno in [eperm, eio, emsgsize, enobufs, einval] {
        let stats = ping_through(vec![io::Error::from_raw_os_error(errno)]);
        assert!(stats.send_dropped >= 1, "errno {errno}: {stats:?}");
    }
}
