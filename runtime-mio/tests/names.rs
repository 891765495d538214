//! Addresses that are published in DNS, and a name server that is ours.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests fail, have threads and read clocks"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use peerless_core::{Multiaddr, identity::Identity, node, rng::Rng};
use peerless_mio::{
    RuntimeConfig,
    blocking::{Handle, spawn},
};

/// More than anything here takes on a slow machine.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

fn start(seed: u8, name_servers: Vec<SocketAddr>) -> Handle {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let node = node::Config::new(Identity::generate(&mut Rng::new([seed; 32])));
    spawn(node, RuntimeConfig { listen, name_servers, ..RuntimeConfig::default() }).unwrap()
}

fn address(handle: &Handle) -> Multiaddr {
    handle.advertised().unwrap().remove(0).with_p2p(handle.peer()).unwrap()
}

/// A name server that answers a question with whatever `answer` makes of it. Returns how often it was asked, too.
fn server(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            for message in answer(&buffer[..length]) {
                socket.send_to(&message, from).unwrap();
            }
        }
    });
    (at, asked)
}

/// The name in a question, and where the question ends.
fn name_of(question: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        name += std::str::from_utf8(&question[at + 1..end]).unwrap();
        name.push('.');
        at = end;
    }
    (name, at + 5)
}

/// An answer with these flags and texts.
fn reply(question: &[u8], flags: u16, texts: &[String]) -> Vec<u8> {
    let (_, end) = name_of(question);
    let mut message = question[..2].to_vec();
    message.extend(flags.to_be_bytes());
    message.extend([0, 1, 0, texts.len() as u8, 0, 0, 0, 0]);
    message.extend(&question[12..end]);
    for text in texts {
        // The name again, TXT, IN, a minute.
        message.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        let strings: Vec<_> = text.as_bytes().chunks(40).collect();
        message.extend(((text.len() + strings.len()) as u16).to_be_bytes());
        for string in strings {
            message.push(string.len() as u8);
            message.extend(string);
        }
    }
    message
}

const ANSWER: u16 = 0x8180;
const CUT_OFF: u16 = 0x8380;
const SERVER_FAILURE: u16 = 0x8182;
const NO_SUCH_NAME: u16 = 0x8183;

#[test]
fn published_addresses_lead_to_the_peer_that_is_asked_for() {
    let (ours, theirs) = (start(1, Vec::new()), start(2, Vec::new()));
    let (peer, there, elsewhere) = (ours.peer(), address(&ours), address(&theirs));
    let (broken, _) = server(|question| vec![reply(question, SERVER_FAILURE, &[])]);
    let (good, asked) = server(move |question| {
        let texts = match name_of(question).0.as_str() {
            "_dnsaddr.example.test." => vec![
                "v=spf1".to_owned(),
                format!("dnsaddr={elsewhere}"),
                format!("dnsaddr=/dnsaddr/more.example.test/p2p/{peer}"),
            ],
            "_dnsaddr.more.example.test." => vec![format!("dnsaddr={there}")],
            name => panic!("{name} was asked for"),
        };
        // What somebody else sent in the hope to be first is passed over.
        let mut forged = reply(question, ANSWER, &["dnsaddr=/ip4/192.0.2.1/udp/1/quic-v1".into()]);
        forged[0] ^= 1;
        vec![b"garbage".to_vec(), forged, reply(question, ANSWER, &texts)]
    });
    let client = start(3, vec![broken, good]);
    let list: Multiaddr = format!("/dnsaddr/example.test/p2p/{peer}").parse().unwrap();
    client.dial(None, &[list], PATIENCE).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let peers =
        client.runtime().call(|node, _| node.connections().iter().map(|info| info.peer).collect::<Vec<_>>());
    assert_eq!(peers, Ok(vec![peer]));
}

#[test]
fn an_answer_that_is_cut_off_is_asked_for_again_over_tcp() {
    let ours = start(4, Vec::new());
    let there = address(&ours);
    let (at, asked) = server(|question| vec![reply(question, CUT_OFF, &[])]);
    let listener = TcpListener::bind(at).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).unwrap();
        let mut texts: Vec<_> = (0..100).map(|n| format!("{n}: {}", "x".repeat(150))).collect();
        texts.push(format!("dnsaddr={there}"));
        let message = reply(&question, ANSWER, &texts);
        stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
        // In two pieces, as it may come.
        stream.write_all(&message[..700]).unwrap();
        thread::sleep(Duration::from_millis(50));
        stream.write_all(&message[700..]).unwrap();
    });
    let client = start(5, vec![at]);
    client.dial(Some(ours.peer()), &["/dnsaddr/example.test".parse().unwrap()], PATIENCE).unwrap();
    thread.join().unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_name_server_does_wrong_is_told() {
    let wrong_id = |question: &[u8]| {
        let mut message = reply(question, ANSWER, &["dnsaddr=/ip4/192.0.2.1/udp/1/quic-v1".into()]);
        message[1] ^= 1;
        vec![message]
    };
    let failure = |question: &[u8]| vec![reply(question, SERVER_FAILURE, &[])];
    let no_name = |question: &[u8]| vec![reply(question, NO_SUCH_NAME, &[])];
    let cases = [
        ("no DNS message", server(|_| vec![vec![0xff; 100]]), 2),
        ("to another question", server(wrong_id), 2),
        ("no answer within 2s", server(|_| Vec::new()), 2),
        ("the server failed: ServerFailure", server(failure), 2),
        ("there is no such name", server(no_name), 1),
    ];
    let threads = cases.into_iter().zip(10..).map(|((words, (at, asked), times), seed)| {
        thread::spawn(move || {
            let client = start(seed, vec![at]);
            let list = "/dnsaddr/example.test".parse().unwrap();
            let error = client.dial(None, &[list], PATIENCE).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
            assert_eq!(asked.load(Ordering::SeqCst), times, "{words}");
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}
