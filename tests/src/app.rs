//! What runs on a host beside its node: serves `/echo/1.0.0` and `/perf/1.0.0`, and is their client.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerless_core::{
    errors::{OpenError, StreamFault},
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{AppStreamEvent, Event, Node, Read, StreamError},
    time::Instant,
};

/// Echoes what comes until the end of the stream.
pub const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Counts what comes, then sends as much as was asked for (libp2p specs, perf).
pub const PERF: ProtocolName = ProtocolName::from_static("/perf/1.0.0");

const CHUNK: usize = 16 * 1024;

/// How far a client's stream has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that the node has taken from us.
    pub sent: u64,
    /// Bytes that have come back.
    pub received: u64,
    /// Whether a byte that came back was not the one expected.
    pub garbled: bool,
    /// When the remote's end of stream arrived.
    pub finished: Option<Instant>,
    /// Why the stream was lost, if it was.
    pub fault: Option<StreamFault>,
}

impl Transfer {
    /// Whether there is nothing more to come.
    pub fn is_over(&self) -> bool {
        self.finished.is_some() || self.fault.is_some()
    }
}

/// The servers and clients of one host.
#[derive(Debug)]
pub struct App {
    /// Whether streams are read at all; a host that never reads is a test of the others.
    pub reading: bool,
    servers: BTreeMap<StreamId, (ConnectionId, Server)>,
    clients: BTreeMap<StreamId, Client>,
}

impl Default for App {
    fn default() -> Self {
        Self { reading: true, servers: BTreeMap::new(), clients: BTreeMap::new() }
    }
}

impl App {
    /// Looks at an event of the node and serves the stream that it is about.
    pub fn handle_event(&mut self, now: Instant, node: &mut Node, event: &Event) {
        let (stream, event) = match event {
            Event::Stream { stream, event } => (stream, event),
            Event::Disconnected { connection, .. } => return self.forget(*connection),
            _ => return,
        };
        match event {
            AppStreamEvent::Accepted { protocol, connection, .. } => {
                let server = if *protocol == PERF { Server::perf() } else { Server::Echo(Bytes::new()) };
                self.servers.insert(*stream, (*connection, server));
            }
            AppStreamEvent::Reset(fault) => {
                self.servers.remove(stream);
                if let Some(client) = self.clients.get_mut(stream) {
                    client.transfer.fault.get_or_insert(fault.clone());
                }
            }
            _ => {}
        }
        self.pump(now, node, *stream);
    }

    /// Opens a stream that sends `bytes` and expects them back.
    pub fn echo(
        &mut self,
        now: Instant,
        node: &mut Node,
        connection: ConnectionId,
        bytes: u64,
    ) -> Result<StreamId, OpenError> {
        self.start(now, node, &ECHO, Client::new(connection, Bytes::new(), bytes, true))
    }

    /// Opens a stream that sends `upload` bytes and asks for `download`.
    pub fn perf(
        &mut self,
        now: Instant,
        node: &mut Node,
        connection: ConnectionId,
        upload: u64,
        download: u64,
    ) -> Result<StreamId, OpenError> {
        let header = Bytes::copy_from_slice(&download.to_be_bytes());
        self.start(now, node, &PERF, Client::new(connection, header, upload, false))
    }

    /// How far one of our client streams has come.
    pub fn transfer(&self, stream: StreamId) -> Option<&Transfer> {
        self.clients.get(&stream).map(|client| &client.transfer)
    }

    /// Streams that others opened and that are still being served.
    pub fn serving(&self) -> usize {
        self.servers.len()
    }

    fn start(
        &mut self,
        now: Instant,
        node: &mut Node,
        protocol: &ProtocolName,
        client: Client,
    ) -> Result<StreamId, OpenError> {
        let stream = node.open(now, client.connection, protocol)?;
        self.clients.insert(stream, client);
        self.pump(now, node, stream);
        Ok(stream)
    }

    /// The streams of a connection end with it.
    fn forget(&mut self, connection: ConnectionId) {
        self.servers.retain(|_, (of, _)| *of != connection);
        let lost = self.clients.values_mut().filter(|client| client.connection == connection);
        for transfer in lost.map(|client| &mut client.transfer).filter(|transfer| !transfer.is_over()) {
            transfer.fault = Some(StreamFault::ConnectionLost);
        }
    }

    fn pump(&mut self, now: Instant, node: &mut Node, stream: StreamId) {
        if let Some((_, server)) = self.servers.get_mut(&stream) {
            if self.reading && server.pump(now, node, stream).is_break() {
                self.servers.remove(&stream);
            }
        } else if let Some(client) = self.clients.get_mut(&stream) {
            client.pump(now, node, stream, self.reading);
        }
    }
}

/// Breaks when the stream is done with, or gone: with the fault, unless an event has told it.
type Flow<T = ()> = ControlFlow<Option<StreamFault>, T>;

#[derive(Debug)]
enum Server {
    Echo(Bytes),
    PerfIn { header: BytesMut },
    PerfOut(Source),
}

impl Server {
    fn perf() -> Self {
        Self::PerfIn { header: BytesMut::with_capacity(8) }
    }

    /// Breaks when the stream is done with.
    fn pump(&mut self, now: Instant, node: &mut Node, stream: StreamId) -> Flow {
        match self {
            Self::Echo(held) => loop {
                if !write(now, node, stream, held)? {
                    return Flow::Continue(());
                }
                match read(now, node, stream)? {
                    Read::Data(data) => *held = data,
                    Read::Blocked => return Flow::Continue(()),
                    Read::Finished => return finish(now, node, stream),
                }
            },
            Self::PerfIn { header } => loop {
                match read(now, node, stream)? {
                    Read::Data(data) => header.put(data.take(8 - header.len())),
                    Read::Blocked => return Flow::Continue(()),
                    Read::Finished if header.len() == 8 => {
                        *self = Self::PerfOut(Source::new(Bytes::new(), header.get_u64()));
                        return self.pump(now, node, stream);
                    }
                    Read::Finished => {
                        node.reset(now, stream);
                        return Flow::Break(None);
                    }
                }
            },
            Self::PerfOut(source) => {
                if source.pump(now, node, stream)? {
                    return finish(now, node, stream);
                }
                Flow::Continue(())
            }
        }
    }
}

#[derive(Debug)]
struct Client {
    connection: ConnectionId,
    source: Source,
    finished_sending: bool,
    verify: bool,
    transfer: Transfer,
}

impl Client {
    fn new(connection: ConnectionId, header: Bytes, upload: u64, verify: bool) -> Self {
        let source = Source::new(header, upload);
        Self { connection, source, finished_sending: false, verify, transfer: Transfer::default() }
    }

    fn pump(&mut self, now: Instant, node: &mut Node, stream: StreamId, reading: bool) {
        if self.transfer.is_over() {
            return;
        }
        if !self.finished_sending {
            match self.source.pump(now, node, stream) {
                Flow::Continue(done) => self.finished_sending = done && finish(now, node, stream).is_break(),
                Flow::Break(fault) => self.transfer.fault = fault,
            }
            self.transfer.sent = self.source.sent;
        }
        if !reading {
            return;
        }
        loop {
            match read(now, node, stream) {
                Flow::Continue(Read::Data(data)) => self.take(&data),
                Flow::Continue(Read::Finished) => {
                    self.transfer.finished = Some(now);
                    return;
                }
                Flow::Continue(Read::Blocked) => return,
                Flow::Break(fault) => {
                    self.transfer.fault = self.transfer.fault.take().or(fault);
                    return;
                }
            }
        }
    }

    fn take(&mut self, data: &[u8]) {
        let at = self.transfer.received;
        self.transfer.garbled |= self.verify && data.iter().zip(at..).any(|(byte, at)| *byte != pattern(at));
        self.transfer.received += data.len() as u64;
    }
}

/// Bytes to send: a header, then so much of the pattern.
#[derive(Debug)]
struct Source {
    held: Bytes,
    produced: u64,
    total: u64,
    sent: u64,
}

impl Source {
    fn new(header: Bytes, total: u64) -> Self {
        Self { held: header, produced: 0, total, sent: 0 }
    }

    /// Writes what the node takes; whether everything is written.
    fn pump(&mut self, now: Instant, node: &mut Node, stream: StreamId) -> Flow<bool> {
        loop {
            let before = self.held.len();
            let written = write(now, node, stream, &mut self.held);
            self.sent += (before - self.held.len()) as u64;
            if !written? {
                return Flow::Continue(false);
            }
            let end = self.total.min(self.produced + CHUNK as u64);
            if end == self.produced {
                return Flow::Continue(true);
            }
            self.held = (self.produced..end).map(pattern).collect();
            self.produced = end;
        }
    }
}

/// The byte at offset `at` of everything that clients send.
fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// Writes as much as the node takes: whether that was all. Breaks if the stream is gone.
fn write(now: Instant, node: &mut Node, stream: StreamId, data: &mut Bytes) -> Flow<bool> {
    while !data.is_empty() {
        match node.write(now, stream, data) {
            Ok(0) => return Flow::Continue(false),
            Ok(_) => {}
            Err(error) => return Flow::Break(fault(error)),
        }
    }
    Flow::Continue(true)
}

/// Breaks if the stream is gone.
fn read(now: Instant, node: &mut Node, stream: StreamId) -> Flow<Read> {
    match node.read(now, stream, CHUNK) {
        Ok(read) => Flow::Continue(read),
        Err(error) => Flow::Break(fault(error)),
    }
}

/// Ends our direction; always breaks, for the sender has nothing left to do.
fn finish(now: Instant, node: &mut Node, stream: StreamId) -> Flow {
    // A stream that is already gone has its own event.
    let _ = node.finish(now, stream);
    Flow::Break(None)
}

fn fault(error: StreamError) -> Option<StreamFault> {
    match error {
        StreamError::Lost(fault) => Some(fault),
        _ => None,
    }
}
