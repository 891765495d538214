use std::{thread, time::Duration};

use std::net::IpAddr;

use super::*;

fn bind() -> Socket<UdpSocket> {
    bind_to("127.0.0.1:0", 1 << 20)
}

fn bind_to(address: &str, buffer: usize) -> Socket<UdpSocket> {
    Socket::bind(SocketId(0), address.parse().unwrap(), buffer, Ok).unwrap()
}

fn send(socket: &mut Socket<UdpSocket>, pending: &mut Pending, bytes: &[u8]) -> Sent {
    socket.send(pending, bytes, |_, send| send())
}

fn pending(destination: SocketAddr, size: usize, segment_size: Option<usize>) -> Pending {
    let transmit = Transmit { socket: SocketId(0), destination, ecn: None, size, segment_size, src_ip: None };
    Pending::new(transmit)
}

fn sent(sent: u64, dropped: u64) -> Sent {
    Sent { sent, dropped, blocked: false }
}

/// Receives until `count` datagrams came, empty ones included.
fn receive(socket: &mut Socket<UdpSocket>, count: usize) -> Vec<Datagram> {
    let (mut buffers, mut received, mut seen) = (ReceiveBuffers::default(), Vec::new(), 0);
    for _ in 0..200 {
        seen += socket.receive(&mut buffers, |_, receive| receive(), |datagram| received.push(datagram));
        if seen >= count {
            return received;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{seen} of {count} datagrams came");
}

#[test]
fn a_segmented_batch_arrives_as_datagrams_of_their_own() {
    let (mut a, mut b) = (bind(), bind());
    let bytes: Vec<u8> = (0..10_100).map(|n| (n / 1000) as u8).collect();
    let mut batch = pending(b.local(), bytes.len(), Some(1000));
    batch.transmit.ecn = Some(Ecn::Ect0);
    assert_eq!(send(&mut a, &mut batch, &bytes), sent(11, 0));
    let received = receive(&mut b, 11);
    assert_eq!(received.len(), 11);
    for (n, datagram) in received.iter().enumerate() {
        assert_eq!(datagram.data[..], bytes[n * 1000..bytes.len().min(n * 1000 + 1000)]);
        assert_eq!((datagram.remote, datagram.local_ip), (a.local(), Some(b.local().ip())));
        assert_eq!(datagram.ecn, Some(Ecn::Ect0));
    }
}

#[test]
fn a_batch_larger_than_the_kernel_takes_goes_out_in_pieces() {
    let (mut a, mut b) = (bind(), bind());
    let bytes = vec![7; 90_000];
    assert_eq!(send(&mut a, &mut pending(b.local(), 90_000, Some(1500)), &bytes), sent(60, 0));
    assert!(receive(&mut b, 60).iter().all(|datagram| datagram.data[..] == bytes[..1500]));
}

#[test]
fn empty_datagrams_count_and_are_not_passed_on() {
    let mut b = bind();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for payload in [&b""[..], b"x", b""] {
        sender.send_to(payload, b.local()).unwrap();
    }
    let received = receive(&mut b, 3);
    assert_eq!(received.iter().map(|d| &d.data[..]).collect::<Vec<_>>(), [b"x"]);
}

#[test]
fn what_the_system_refuses_is_dropped_and_costs_no_offload() {
    let (mut a, mut b) = (bind(), bind());
    let before = a.max_segments();
    let bytes = vec![1; 70_000];
    // Too long for any datagram.
    assert_eq!(send(&mut a, &mut pending(b.local(), 70_000, None), &bytes), sent(0, 1));
    // An address that is not ours, as after a change of network.
    let mut foreign = pending(b.local(), 5000, Some(1000));
    foreign.transmit.src_ip = Some("192.0.2.1".parse().unwrap());
    assert_eq!(send(&mut a, &mut foreign, &bytes), sent(0, 5));
    // Addresses that lead nowhere.
    for nowhere in ["127.0.0.1:0", "[fe80::1]:9"] {
        let mut nowhere = pending(nowhere.parse().unwrap(), 10, None);
        assert_eq!(send(&mut a, &mut nowhere, &bytes), sent(0, 1));
    }
    assert_eq!(a.max_segments(), before);
    assert_eq!(send(&mut a, &mut pending(b.local(), 3000, Some(1000)), &bytes), sent(3, 0));
    assert_eq!(receive(&mut b, 3).len(), 3);
}

#[test]
fn a_wildcard_socket_is_reachable_at_the_interfaces() {
    let wildcard = bind_to("0.0.0.0:0", 1 << 16);
    let reachable = wildcard.bound().reachable;
    assert!(reachable.contains(&"127.0.0.1".parse().unwrap()));
    assert_eq!(bind().bound().reachable, Vec::<IpAddr>::new(), "the machine has the address");
    // That the machine has it no more is told by what it has.
    let gone = crate::bound("192.0.2.1:4001".parse().unwrap()).unwrap().reachable;
    assert!(gone.contains(&"127.0.0.1".parse().unwrap()) && !gone.contains(&"192.0.2.1".parse().unwrap()));
}
