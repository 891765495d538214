//! Many nodes in one process, each with a socket, that connect and then only answer.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Instant as StdInstant,
};

use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use peerless_core::{
    Multiaddr,
    ids::SocketId,
    node::{Bound, Datagram, Event, Node, Start},
    time::{Instant, UnixTime},
};
use serde_json::json;

const SOCKET: SocketId = SocketId(0);
/// Handshakes under way at the same time, well below what a node takes.
const AT_ONCE: usize = 50;

struct Member {
    node: Node,
    socket: UdpSocket,
    due: Option<Instant>,
}

/// Connects so many nodes, says so, and goes on for ever.
pub(crate) fn run(to: &Multiaddr, count: usize) -> Result<(), String> {
    let clock = StdInstant::now();
    let now = || Instant::ZERO + clock.elapsed();
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let failed = |error: io::Error| error.to_string();
    let mut poll = Poll::new().map_err(failed)?;
    let mut members = Vec::new();
    for n in 0..count {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
        // Different in each process, so that nobody is taken for somebody else.
        seed[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        let mut socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        poll.registry().register(&mut socket, Token(n), Interest::READABLE).map_err(failed)?;
        let mut config = super::config(seed, 0);
        config.accept_inbound = false;
        let start = Start { now: now(), unix: UnixTime::from_duration(unix), seed };
        let mut node = Node::new(config, start).map_err(|error| error.to_string())?;
        node.handle_socket(now(), SOCKET, Some(Bound { local, reachable: Vec::new() }));
        members.push(Member { node, socket, due: None });
    }
    let (mut connected, mut dialling) = (0, 0);
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; 65_536]);
    loop {
        // So many handshakes at a time.
        while dialling < count.min(connected + AT_ONCE) {
            members[dialling].node.dial(now(), None, std::slice::from_ref(to));
            members[dialling].turn(now())?;
            dialling += 1;
        }
        let next = members.iter().filter_map(|member| member.due).min();
        poll.poll(&mut events, next.map(|at| at.saturating_duration_since(now()))).map_err(failed)?;
        let before = connected;
        for event in &events {
            let member = &mut members[event.token().0];
            while let Ok((length, remote)) = member.socket.recv_from(&mut buffer) {
                member.receive(now(), remote, &buffer[..length]);
            }
            connected += member.turn(now())?;
        }
        let at = now();
        for member in members.iter_mut().filter(|member| member.due.is_some_and(|due| due <= at)) {
            member.node.handle_timeout(at);
            connected += member.turn(at)?;
        }
        if connected == count && before < count {
            println!("{}", json!({ "event": "connected" }));
        }
    }
}

impl Member {
    fn receive(&mut self, now: Instant, remote: SocketAddr, data: &[u8]) {
        let datagram = Datagram { socket: SOCKET, remote, local_ip: None, ecn: None, data: data.into() };
        self.node.handle_datagram(now, datagram);
    }

    /// Sends, and looks whether it is connected: how many dials got there.
    fn turn(&mut self, now: Instant) -> Result<usize, String> {
        let (mut bytes, mut connected) = (Vec::new(), 0);
        loop {
            while let Some(transmit) = self.node.poll_transmit(now, 1, &mut bytes) {
                // What cannot be sent is lost, as any datagram may be.
                let _ = self.socket.send_to(&bytes[..transmit.size], transmit.destination);
            }
            match self.node.poll_event() {
                None => break,
                Some(Event::Dialed { .. }) => connected += 1,
                Some(Event::DialFailed { error, .. }) => return Err(error.to_string()),
                Some(Event::Disconnected { reason, .. }) => return Err(reason.to_string()),
                Some(_) => {}
            }
        }
        self.due = self.node.deadline().map(|deadline| deadline.at);
        Ok(connected)
    }
}
