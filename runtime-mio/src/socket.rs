//! A UDP socket that [`mio`] waits for.

use std::{io, net::SocketAddr};

use mio::{Interest, Registry, Token};
use peerless_core::{
    ids::SocketId,
    node::{Bound, Datagram},
};
use peerless_udp::{Pending, ReceiveBuffers, Sent};

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    udp: peerless_udp::Socket<mio::net::UdpSocket>,
    /// What the next sends fail with.
    #[cfg(test)]
    pub(crate) faults: std::collections::VecDeque<io::Error>,
}

impl Socket {
    pub(crate) fn bind(id: SocketId, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let wrap = |socket| Ok(mio::net::UdpSocket::from_std(socket));
        Ok(Self {
            udp: peerless_udp::Socket::bind(id, address, buffer, wrap)?,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.udp.io, token, Interest::READABLE)
    }

    /// Asks to be told when there is room to send (or no more: each datagram that leaves would wake us up).
    pub(crate) fn watch_writable(&mut self, registry: &Registry, token: Token, on: bool) -> io::Result<()> {
        let interest = if on { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        registry.reregister(&mut self.udp.io, token, interest)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.udp.local()
    }

    pub(crate) fn buffers(&self) -> (usize, usize) {
        self.udp.buffers()
    }

    pub(crate) fn bound(&self) -> Bound {
        self.udp.bound()
    }

    pub(crate) fn max_segments(&self) -> usize {
        self.udp.max_segments()
    }

    /// Whether there may be something to receive.
    pub(crate) fn is_readable(&self) -> bool {
        self.udp.readable
    }

    /// There may be something to receive.
    pub(crate) fn set_readable(&mut self) {
        self.udp.readable = true;
    }

    /// Receives one batch, and gives each datagram to `take`. Returns how many came, empty ones included.
    pub(crate) fn receive(&mut self, buffers: &mut ReceiveBuffers, take: impl FnMut(Datagram)) -> usize {
        self.udp.receive(buffers, |io, receive| io.try_io(receive), take)
    }

    /// Sends what is left of `pending`, whose bytes are `bytes`.
    pub(crate) fn send(&mut self, pending: &mut Pending, bytes: &[u8]) -> Sent {
        #[cfg(test)]
        let faults = &mut self.faults;
        self.udp.send(pending, bytes, |io, send| {
            #[cfg(test)]
            if let Some(fault) = faults.pop_front() {
                return Err(fault);
            }
            io.try_io(send)
        })
    }
}
