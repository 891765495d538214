//! One UDP socket: batches in, segmented batches out, and an error that never stalls.

use std::{
    array,
    io::{self, ErrorKind, IoSliceMut},
    net::SocketAddr,
};

use bytes::BytesMut;
use mio::{Interest, Registry, Token};
use peerless_core::{
    ids::SocketId,
    node::{Bound, Datagram, Ecn, Transmit},
};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

/// Room for one received buffer: the most that the kernel joins into one, whatever the number of segments.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Most payload bytes of one send, segmented or not: a UDP length less the headers of IPv6 and UDP.
const MAX_SEND: usize = 65_535 - 40 - 8;
/// The usual full-size datagram on Ethernet.
const USUAL_SEGMENT: usize = 1452;

/// Where received batches are put before each datagram gets its own buffer.
pub(crate) struct ReceiveBuffers {
    bytes: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
}

impl ReceiveBuffers {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; RECEIVE_BUFFER * BATCH_SIZE].into(),
            meta: array::from_fn(|_| RecvMeta::default()),
        }
    }
}

/// A transmit on its way, and how much of it has been handed to the kernel.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) transmit: Transmit,
    pub(crate) sent: usize,
}

/// What became of a [`Pending`], in datagrams.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    /// The system would not take them.
    pub(crate) dropped: u64,
    /// The kernel's buffer is full; the rest must wait.
    pub(crate) blocked: bool,
}

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    id: SocketId,
    io: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// There may be something to receive.
    pub(crate) readable: bool,
    /// What the next sends fail with.
    #[cfg(test)]
    pub(crate) faults: std::collections::VecDeque<io::Error>,
}

impl Socket {
    /// Binds to `address`, IPv6 sockets to IPv6 alone, and asks for kernel buffers of `buffer` bytes.
    pub(crate) fn bind(id: SocketId, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        let io = mio::net::UdpSocket::from_std(raw.into());
        let state = UdpSocketState::new((&io).into())?;
        for resized in [
            state.set_recv_buffer_size((&io).into(), buffer),
            state.set_send_buffer_size((&io).into(), buffer),
        ] {
            if let Err(error) = resized {
                tracing::debug!(%error, buffer, "the socket keeps its buffer size");
            }
        }
        let local = io.local_addr()?;
        Ok(Self {
            id,
            io,
            state,
            local,
            readable: true,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.io, token, Interest::READABLE)
    }

    /// Asks to be told when there is room to send (or no more: each datagram that leaves would wake us up).
    pub(crate) fn watch_writable(&mut self, registry: &Registry, token: Token, on: bool) -> io::Result<()> {
        let interest = if on { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        registry.reregister(&mut self.io, token, interest)
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// What the node is told of the socket: for a wildcard address also the machine's addresses.
    pub(crate) fn bound(&self) -> Bound {
        let mut reachable = Vec::new();
        if self.local.ip().is_unspecified() {
            match if_addrs::get_if_addrs() {
                Ok(interfaces) => reachable.extend(interfaces.iter().map(if_addrs::Interface::ip)),
                Err(error) => tracing::warn!(%error, "cannot list the network interfaces"),
            }
        }
        Bound { local: self.local, reachable }
    }

    /// Most segments of the usual size that one send may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEND / USUAL_SEGMENT)
    }

    /// Receives one batch, and gives each datagram to `take`. Returns how many came, empty ones included; zero when
    /// there is nothing more for now.
    pub(crate) fn receive(&mut self, buffers: &mut ReceiveBuffers, mut take: impl FnMut(Datagram)) -> usize {
        let mut chunks = buffers.bytes.chunks_exact_mut(RECEIVE_BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let result = self.io.try_io(|| self.state.recv((&self.io).into(), &mut slices, &mut buffers.meta));
        let batch = match result {
            Ok(batch) => batch,
            Err(error) => {
                // A reset tells of an earlier send, and nothing of what waits to be received.
                self.readable =
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused);
                if !self.readable && error.kind() != ErrorKind::WouldBlock {
                    tracing::warn!(%error, socket = %self.local, "receiving failed");
                }
                return usize::from(self.readable);
            }
        };
        let mut count = 0;
        for (meta, bytes) in buffers.meta[..batch].iter().zip(buffers.bytes.chunks_exact(RECEIVE_BUFFER)) {
            count += meta.len.div_ceil(meta.stride.max(1)).max(1);
            for data in bytes[..meta.len.min(RECEIVE_BUFFER)].chunks(meta.stride.max(1)) {
                take(Datagram {
                    socket: self.id,
                    remote: meta.addr,
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                    // A buffer of its own: a slice of the batch would keep all of it alive.
                    data: BytesMut::from(data),
                });
            }
        }
        count
    }

    /// Sends what is left of `pending`, whose bytes are `bytes`.
    pub(crate) fn send(&mut self, pending: &mut Pending, bytes: &[u8]) -> Sent {
        let size = pending.transmit.size;
        let mut result = Sent::default();
        while pending.sent < size {
            let max_segments = self.state.max_gso_segments();
            let (length, datagrams) = pending.transmit.next_batch(pending.sent, max_segments);
            match self.try_send(pending, &bytes[pending.sent..pending.sent + length]) {
                Ok(()) => {
                    pending.sent += length;
                    result.sent += datagrams as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    result.blocked = true;
                    return result;
                }
                // quinn-udp took segmentation to be the fault: once more, segment by segment.
                Err(_) if datagrams > 1 && self.state.max_gso_segments() < max_segments => {}
                Err(error) => {
                    self.after_failure(&error, pending);
                    result.dropped = pending.transmit.next_batch(pending.sent, usize::MAX).1 as u64;
                    return result;
                }
            }
        }
        result
    }

    fn try_send(&mut self, pending: &Pending, contents: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(fault) = self.faults.pop_front() {
            return Err(fault);
        }
        let transmit = quinn_udp::Transmit {
            destination: pending.transmit.destination,
            ecn: pending.transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents,
            segment_size: pending.transmit.segment_size,
            src_ip: pending.transmit.src_ip,
        };
        self.io.try_io(|| self.state.try_send((&self.io).into(), &transmit))
    }

    /// A datagram that the system refuses is lost, as any other may be. If a lone one is invalid, the address was at
    /// fault and not segmentation or ECN, which quinn-udp has switched off for good: a peer must not be able to cause
    /// that, so begin anew.
    fn after_failure(&mut self, error: &io::Error, pending: &Pending) {
        tracing::debug!(%error, destination = %pending.transmit.destination, "sending failed");
        if error.kind() == ErrorKind::InvalidInput
            && let Ok(state) = UdpSocketState::new((&self.io).into())
        {
            self.state = state;
        }
    }
}

#[cfg(test)]
mod tests;
