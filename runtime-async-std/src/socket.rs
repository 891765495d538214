//! A UDP socket that `async-io` waits for.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    task::Context,
};

use async_io::Async;
use peerless_core::{
    ids::SocketId,
    node::{Bound, Datagram},
};
use peerless_udp::{Pending, ReceiveBuffers, Sent};

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    udp: peerless_udp::Socket<Async<UdpSocket>>,
    /// What the next sends fail with.
    #[cfg(test)]
    pub(crate) faults: std::collections::VecDeque<io::Error>,
}

impl Socket {
    pub(crate) fn bind(id: SocketId, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        Ok(Self {
            udp: peerless_udp::Socket::bind(id, address, buffer, Async::new_nonblocking)?,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.udp.local()
    }

    pub(crate) fn bound(&self) -> Bound {
        self.udp.bound()
    }

    pub(crate) fn max_segments(&self) -> usize {
        self.udp.max_segments()
    }

    /// Whether there may be something to receive; if not, the task is woken when there is.
    pub(crate) fn is_readable(&mut self, cx: &mut Context<'_>) -> bool {
        self.udp.readable = self.udp.readable || self.udp.io.poll_readable(cx).is_ready();
        self.udp.readable
    }

    /// Whether there may be room to send; if not, the task is woken when there is.
    pub(crate) fn is_writable(&self, cx: &mut Context<'_>) -> bool {
        self.udp.io.poll_writable(cx).is_ready()
    }

    /// Receives one batch, and gives each datagram to `take`. Returns how many came, empty ones included.
    pub(crate) fn receive(&mut self, buffers: &mut ReceiveBuffers, take: impl FnMut(Datagram)) -> usize {
        self.udp.receive(buffers, |_, receive| receive(), take)
    }

    /// Sends what is left of `pending`, whose bytes are `bytes`.
    pub(crate) fn send(&mut self, pending: &mut Pending, bytes: &[u8]) -> Sent {
        #[cfg(test)]
        let faults = &mut self.faults;
        self.udp.send(pending, bytes, |_, send| {
            #[cfg(test)]
            if let Some(fault) = faults.pop_front() {
                return Err(fault);
            }
            send()
        })
    }
}
