//! A peer without manners: a bare QUIC connection on a bare host, for bytes that no node would send.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use peerless_core::{
    ids::{QuicId, SocketId},
    node::Datagram,
    quic::{Config, Everybody, Quic, QuicEvent, Read, ReadError, StreamNote},
};

use crate::{
    host::HostId,
    link::Packet,
    plain::PlainCrypto,
    world::{World, ms},
};

const SOCKET: SocketId = SocketId(0);

/// The QUIC pipe alone, with one connection.
#[derive(Debug)]
pub struct RawPeer {
    host: HostId,
    quic: Quic,
    connection: Option<QuicId>,
    events: Vec<QuicEvent>,
}

impl RawPeer {
    /// Starts a bare host of this name and connects it to the node of `target`. Panics if that fails.
    pub fn connect(w: &mut World, name: &str, target: HostId) -> Self {
        let host = w.host(name).bare();
        let crypto = Arc::new(PlainCrypto::new(w[host].peer()));
        // What it does not read is in the memory of this process too, and is not what tests are about.
        let config = Config::default().with_stream_window(2 << 20);
        let mut quic = Quic::new(config, crypto, &w.fork(name), [0; 32], false, w.now());
        quic.handle_socket(w.now(), SOCKET, Some(w[host].socket_address()));
        let to = w[target].socket_address();
        let id = quic.connect(w.now(), to, None).expect("the address can be dialled");
        let mut peer = Self { host, quic, connection: Some(id), events: Vec::new() };
        peer.run(w, ms(200));
        assert!(peer.quic.info(id).is_some_and(|info| info.peer.is_some()), "{name} cannot connect");
        peer
    }

    /// Its host.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The streams that the target has opened, in their order.
    pub fn opened(&self) -> Vec<u64> {
        let opened = self.events.iter().filter_map(|event| match event {
            QuicEvent::Stream { stream, event: StreamNote::Opened, .. } => Some(*stream),
            _ => None,
        });
        opened.collect()
    }

    /// Opens a stream and writes `data` to it. The peer grants one.
    pub fn open(&mut self, w: &World, data: impl Into<Bytes>) -> u64 {
        let stream = self.try_open(w).expect("the peer grants a stream");
        self.write(w, stream, data);
        stream
    }

    /// Opens a stream, unless the connection is gone or no stream is granted.
    pub fn try_open(&mut self, w: &World) -> Option<u64> {
        self.quic.open(w.now(), self.connection?).ok()
    }

    /// Writes to a stream; returns how many bytes there was room for. They leave with the next [`RawPeer::run`].
    pub fn write(&mut self, w: &World, stream: u64, data: impl Into<Bytes>) -> usize {
        let Some(id) = self.connection else { return 0 };
        self.quic.write(w.now(), id, stream, &mut data.into()).unwrap_or(0)
    }

    /// Ends our direction of a stream.
    pub fn finish(&mut self, w: &World, stream: u64) {
        if let Some(id) = self.connection {
            self.quic.finish(w.now(), id, stream).expect("it can be finished");
        }
    }

    /// Reads what there is to read, without waiting.
    pub fn read(&mut self, w: &World, stream: u64) -> Result<Read, ReadError> {
        self.quic.read(w.now(), self.connection.ok_or(ReadError::Gone)?, stream, 64 * 1024)
    }

    /// Whether the target asked us to write no more to this stream.
    pub fn was_stopped(&self, stream: u64) -> bool {
        self.events.iter().any(|event| {
            matches!(event, QuicEvent::Stream { stream: s, event: StreamNote::Stopped(_), .. } if *s == stream)
        })
    }

    /// Whether the connection is still there.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Lets the world go on, in steps of a millisecond after each of which this peer reacts.
    pub fn run(&mut self, w: &mut World, duration: Duration) {
        let end = w.now() + duration;
        while w.now() < end {
            self.flush(w);
            w.run_for(ms(1));
            self.react(w);
        }
        self.flush(w);
    }

    fn react(&mut self, w: &mut World) {
        for Packet { from, to, ecn, data } in w.receive(self.host) {
            let data = BytesMut::from(&data[..]);
            let datagram = Datagram { socket: SOCKET, remote: from, local_ip: Some(to.ip()), ecn, data };
            self.quic.handle_datagram(w.now(), datagram, &mut Everybody);
        }
        if self.quic.deadline().is_some_and(|deadline| deadline.is_due(w.now())) {
            self.quic.handle_timeout(w.now());
        }
        while let Some(event) = self.quic.poll_event() {
            if matches!(event, QuicEvent::Closed { .. }) {
                self.connection = None;
            }
            self.events.push(event);
        }
    }

    fn flush(&mut self, w: &mut World) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.quic.poll_transmit(w.now(), 1, &mut buffer) {
            w.send_from(self.host, transmit.destination, Bytes::copy_from_slice(&buffer[..transmit.size]));
        }
    }
}
