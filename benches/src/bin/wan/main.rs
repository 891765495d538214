//! A wide-area path before a UDP server: a proxy whose datagrams take time, have a rate, wait in a queue, and get lost. Each
//! client has a path of its own. Prints where it listens, as NDJSON, and runs until it is killed.

// A bench is what reads clocks and waits.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use serde_json::json;

mod path;

use path::{Direction, Path};

/// Most clients, each of which takes a socket.
const MAX_CLIENTS: usize = 1024;
/// Datagrams taken from a socket before the others have their turn.
const AT_ONCE: usize = 256;
const FRONT: Token = Token(0);

#[derive(Parser)]
#[command(name = "wan", about = "A wide-area path before a UDP server")]
struct Options {
    /// Where the server is
    #[arg(long, value_name = "IP:PORT")]
    to: SocketAddr,
    /// Where clients come
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Milliseconds that a datagram takes in either direction
    #[arg(long, default_value_t = 0.0)]
    delay: f64,
    /// Mbit/s of each client's path in either direction; 0 is no limit
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Bytes that may wait for a path with a rate
    #[arg(long, default_value_t = 1 << 20)]
    queue: usize,
    /// Share of datagrams that are lost, 0.0 to 1.0
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
}

fn main() -> ExitCode {
    match Proxy::new(&Options::parse()).and_then(Proxy::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}", json!({ "event": "error", "message": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

/// A client: the socket to the server that is its own, and its path there and back.
struct Client {
    address: SocketAddr,
    back: UdpSocket,
    paths: [Path; 2],
}

struct Proxy {
    poll: Poll,
    front: UdpSocket,
    server: SocketAddr,
    path: Path,
    clients: Vec<Client>,
    by_address: BTreeMap<SocketAddr, usize>,
    /// Datagrams under way, by when they arrive and in which order they came.
    under_way: BTreeMap<(Instant, u64), (usize, Direction, Vec<u8>)>,
    next: u64,
}

impl Proxy {
    fn new(options: &Options) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut front = bind(options.listen)?;
        poll.registry().register(&mut front, FRONT, Interest::READABLE)?;
        println!("{}", json!({ "event": "listening", "address": front.local_addr()?.to_string() }));
        let delay = Duration::from_secs_f64(options.delay.max(0.0) / 1e3);
        Ok(Self {
            poll,
            front,
            server: options.to,
            path: Path::new(delay, options.rate * 1e6 / 8.0, options.queue, options.loss),
            clients: Vec::new(),
            by_address: BTreeMap::new(),
            under_way: BTreeMap::new(),
            next: 0,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            let next = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let mut ready: Vec<Token> = events.iter().map(|event| event.token()).collect();
            // Until nothing is left to be received: mio tells of a socket once.
            while !ready.is_empty() {
                ready.retain(|token| self.receive(*token));
                self.deliver();
            }
            self.deliver();
        }
    }

    /// Takes what has come. Returns whether there may be more.
    fn receive(&mut self, token: Token) -> bool {
        let mut buffer = [0; 2048];
        for _ in 0..AT_ONCE {
            let received = match token {
                FRONT => self.front.recv_from(&mut buffer),
                Token(nth) => self.clients[nth - 1].back.recv(&mut buffer).map(|size| (size, self.server)),
            };
            let (size, from) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // What an earlier datagram led to, such as a port that nobody listens at.
                Err(_) => continue,
            };
            let (client, direction) = match token {
                FRONT => match self.client(from) {
                    Some(client) => (client, Direction::There),
                    None => continue,
                },
                Token(nth) => (nth - 1, Direction::Back),
            };
            let path = &mut self.clients[client].paths[direction as usize];
            if let Some(at) = path.arrival(Instant::now(), size) {
                self.under_way.insert((at, self.next), (client, direction, buffer[..size].to_vec()));
                self.next += 1;
            }
        }
        true
    }

    fn client(&mut self, address: SocketAddr) -> Option<usize> {
        if let Some(client) = self.by_address.get(&address) {
            return Some(*client);
        }
        let nth = self.clients.len();
        let local = if self.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let mut back = bind(local.parse().ok()?).ok().filter(|_| nth < MAX_CLIENTS)?;
        back.connect(self.server).ok()?;
        self.poll.registry().register(&mut back, Token(nth + 1), Interest::READABLE).ok()?;
        let paths = [2 * nth as u64, 2 * nth as u64 + 1].map(|seed| self.path.clone().seeded(seed));
        self.clients.push(Client { address, back, paths });
        self.by_address.insert(address, nth);
        Some(nth)
    }

    /// Hands over what has arrived.
    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let (client, direction, data) = entry.remove();
            let client = &self.clients[client];
            // A socket that takes nothing loses it, as any queue does.
            let _ = match direction {
                Direction::There => client.back.send(&data),
                Direction::Back => self.front.send_to(&data, client.address),
            };
        }
    }
}

/// A socket with buffers as large as the system allows: the path is to be what loses, not they.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(16 << 20)?;
    socket.set_send_buffer_size(16 << 20)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
