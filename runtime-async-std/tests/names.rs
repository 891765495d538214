//! Addresses that are published in DNS, and a name server that is ours.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail, and have threads")]

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
};

use futures_lite::future;
use peerless_async_std::{Config, Handle, spawn};
use peerless_core::{Multiaddr, identity::Identity, node, rng::Rng};
use simple_dns::{CLASS, Name, Packet, ResourceRecord, rdata::RData};

fn start(seed: u8, name_servers: Vec<SocketAddr>) -> Handle {
    let node = node::Config::new(Identity::generate(&mut Rng::new([seed; 32])));
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    spawn(node, Config { listen, name_servers, ..Config::default() }).unwrap()
}

fn address(handle: &Handle) -> Multiaddr {
    handle.with(|node, _| node.addresses().advertised().remove(0)).with_p2p(handle.peer()).unwrap()
}

/// A name server that knows these texts, or answers with garbage if there are none at all.
fn server(zone: Vec<(&'static str, String)>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let mut packet = Packet::parse(&buffer[..length]).unwrap().into_reply();
            let asked = packet.questions[0].qname.clone();
            for (name, text) in zone.iter().filter(|(name, _)| Name::new_unchecked(name) == asked) {
                let data = RData::TXT(text.as_str().try_into().unwrap());
                packet.answers.push(ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 60, data));
            }
            let message = packet.build_bytes_vec().unwrap();
            socket.send_to(if zone.is_empty() { b"garbage" } else { &message }, from).unwrap();
        }
    });
    at
}

#[test]
fn published_addresses_lead_to_the_peer_that_is_asked_for() {
    async_std::task::block_on(async {
        let (ours, theirs) = (start(1, Vec::new()), start(2, Vec::new()));
        let peer = ours.peer();
        let name_server = server(vec![
            ("_dnsaddr.example.test", "v=spf1".to_owned()),
            ("_dnsaddr.example.test", format!("dnsaddr={}", address(&theirs))),
            ("_dnsaddr.example.test", format!("dnsaddr=/dnsaddr/more.example.test/p2p/{peer}")),
            ("_dnsaddr.more.example.test", format!("dnsaddr={}", address(&ours))),
        ]);
        let client = start(3, vec![name_server]);
        let list = format!("/dnsaddr/example.test/p2p/{peer}").parse().unwrap();
        client.dial(None, &[list]).await.unwrap();
        let peers =
            client.with(|node, _| node.connections().iter().map(|info| info.peer).collect::<Vec<_>>());
        assert_eq!(peers, [peer]);
        future::zip(client.shutdown(), future::zip(ours.shutdown(), theirs.shutdown())).await;
    });
}

#[test]
fn what_a_name_server_does_wrong_is_told() {
    async_std::task::block_on(async {
        let client = start(4, vec![server(Vec::new())]);
        let error = client.dial(None, &["/dnsaddr/example.test".parse().unwrap()]).await.unwrap_err();
        assert!(error.to_string().contains("the answer is no DNS message"), "{error}");
        client.shutdown().await;
    });
}
