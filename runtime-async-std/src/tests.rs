//! Sends that fail, injected below the driver.

use std::io;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use peerless_core::{identity::Identity, names::ProtocolName, node::AppProtocol, rng::Rng};

use super::*;

const RAW: ProtocolName = ProtocolName::from_static("/raw/1.0.0");

/// As `build`, with the given faults for the next sends.
fn start(seed: u8, faults: Vec<io::Error>) -> Handle {
    let mut config = node::Config::new(Identity::generate(&mut Rng::new([seed; 32])));
    config.app_protocols = vec![AppProtocol { name: RAW, inbound_per_peer: 8 }];
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let (handle, mut driver) = build_driver(config, Config { listen, ..Config::default() }).unwrap();
    driver.sockets[0].faults = faults.into();
    run(driver.run());
    handle
}

/// Sends a megabyte from a node whose sends fail now and then, and returns what that node counts.
fn send_through(faults: Vec<io::Error>) -> Stats {
    const SIZE: usize = 1 << 20;
    async_std::task::block_on(async {
        let server = start(1, Vec::new());
        let address = server.with(|node, _| node.addresses().advertised().remove(0));
        let client = start(2, faults);
        let connection = client.dial(Some(server.peer()), &[address]).await.unwrap();
        let mut stream = client.open(connection, &RAW).await.unwrap();
        let send = async {
            stream.write_all(&vec![7; SIZE]).await.unwrap();
            stream.close().await.unwrap();
        };
        let receive = async {
            let mut received = Vec::new();
            server.accept().await.unwrap().read_to_end(&mut received).await.unwrap();
            assert!(received == [7; SIZE], "{} bytes came", received.len());
        };
        future::zip(send, receive).await;
        let stats = client.stats();
        future::zip(client.shutdown(), server.shutdown()).await;
        stats
    })
}

#[test]
fn a_full_buffer_delays_and_loses_nothing() {
    let full = || io::Error::from(io::ErrorKind::WouldBlock);
    let stats = send_through((0..20).map(|_| full()).collect());
    assert_eq!(stats.send_dropped, 0, "{stats:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_refused_send_is_a_lost_datagram_and_no_more() {
    let (eperm, eio, emsgsize, enobufs, einval) = (1, 5, 90, 105, 22);
    for errno in [eperm, eio, emsgsize, enobufs, einval] {
        let stats = send_through((0..2).map(|_| io::Error::from_raw_os_error(errno)).collect());
        assert!(stats.send_dropped >= 2, "errno {errno}: {stats:?}");
    }
}
