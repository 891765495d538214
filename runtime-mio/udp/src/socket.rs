//! One UDP socket: batches in, segmented batches out, and an error that never stalls.

use std::{
    array,
    io::{self, ErrorKind, IoSliceMut},
    net::{Ipv6Addr, SocketAddr, UdpSocket},
};

use bytes::BytesMut;
use peerless_core::{
    ids::SocketId,
    node::{Bound, Datagram, Ecn, Transmit},
};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};

/// Room for one received buffer: the most that the kernel joins into one, whatever the number of segments.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Most payload bytes of one send, segmented or not: a UDP length less the headers of IPv6 and UDP.
pub const MAX_SEND: usize = 65_535 - 40 - 8;
/// The usual full-size datagram on Ethernet.
const USUAL_SEGMENT: usize = 1452;

/// Where received batches are put before each datagram gets its own buffer.
#[derive(Debug)]
pub struct ReceiveBuffers {
    bytes: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        let bytes = vec![0; RECEIVE_BUFFER * BATCH_SIZE].into();
        Self { bytes, meta: array::from_fn(|_| RecvMeta::default()) }
    }
}

/// A transmit on its way, and how many of its bytes the kernel has taken.
#[derive(Debug)]
pub struct Pending {
    /// What is sent.
    pub transmit: Transmit,
    /// Bytes that have been handed to the kernel, or were refused by it.
    pub sent: usize,
}

impl Pending {
    /// Nothing of it has been sent.
    pub fn new(transmit: Transmit) -> Self {
        Self { transmit, sent: 0 }
    }
}

/// What became of a [`Pending`], in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The kernel has them.
    pub sent: u64,
    /// The system would not take them.
    pub dropped: u64,
    /// The kernel's buffer is full; the rest must wait.
    pub blocked: bool,
}

/// A bound socket of the runtime's kind `S`.
#[derive(Debug)]
pub struct Socket<S> {
    /// The socket, to wait with.
    pub io: S,
    id: SocketId,
    state: UdpSocketState,
    local: SocketAddr,
    /// Whether there may be something to receive.
    pub readable: bool,
}

impl<S> Socket<S>
where
    for<'a> UdpSockRef<'a>: From<&'a S>,
{
    /// Binds to `address`, IPv6 sockets to IPv6 alone, and asks for kernel buffers of `buffer` bytes. The socket does not
    /// block; `wrap` makes the runtime's kind of socket of it.
    ///
    /// # Errors
    /// The system has no such socket, or the address cannot be bound.
    pub fn bind(
        id: SocketId,
        address: SocketAddr,
        buffer: usize,
        wrap: impl FnOnce(UdpSocket) -> io::Result<S>,
    ) -> io::Result<Self> {
        let raw = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.set_nonblocking(true)?;
        raw.bind(&address.into())?;
        let raw = UdpSocket::from(raw);
        let local = raw.local_addr()?;
        let io = wrap(raw)?;
        let state = UdpSocketState::new((&io).into())?;
        for resized in [
            state.set_recv_buffer_size((&io).into(), buffer),
            state.set_send_buffer_size((&io).into(), buffer),
        ] {
            if let Err(error) = resized {
                tracing::debug!(%error, buffer, "the socket keeps its buffer size");
            }
        }
        Ok(Self { io, id, state, local, readable: true })
    }

    /// The address that it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Bytes of the buffers to receive and to send that the system gave.
    pub fn buffers(&self) -> (usize, usize) {
        // Linux reserves, and reports, twice what it was asked for (socket(7)).
        let factor = if cfg!(target_os = "linux") { 2 } else { 1 };
        let of = |size: io::Result<usize>| size.map_or(usize::MAX, |size| size / factor);
        (
            of(self.state.recv_buffer_size((&self.io).into())),
            of(self.state.send_buffer_size((&self.io).into())),
        )
    }

    /// What the node is told of the socket. If the system does not tell its addresses, a wildcard socket has none.
    pub fn bound(&self) -> Bound {
        crate::bound(self.local).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the network interfaces");
            Bound { local: self.local, reachable: Vec::new() }
        })
    }

    /// Most segments of the usual size that one send may carry.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEND / USUAL_SEGMENT)
    }

    /// Receives one batch, by a call that `attempt` makes, and gives each datagram to `take`. Returns how many came, empty
    /// ones included. It is no longer [`readable`](Self::readable) when there is nothing more for now.
    pub fn receive(
        &mut self,
        buffers: &mut ReceiveBuffers,
        attempt: impl FnOnce(&S, &mut dyn FnMut() -> io::Result<usize>) -> io::Result<usize>,
        mut take: impl FnMut(Datagram),
    ) -> usize {
        let (io, state, meta) = (&self.io, &self.state, &mut buffers.meta);
        let mut chunks = buffers.bytes.chunks_exact_mut(RECEIVE_BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let batch = match attempt(io, &mut || state.recv(io.into(), &mut slices, meta)) {
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

    /// Sends what is left of `pending`, whose bytes are `bytes`, by calls that `attempt` makes.
    pub fn send(
        &mut self,
        pending: &mut Pending,
        bytes: &[u8],
        mut attempt: impl FnMut(&S, &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
    ) -> Sent {
        let mut result = Sent::default();
        while pending.sent < pending.transmit.size {
            let max_segments = self.state.max_gso_segments();
            let (length, datagrams) = pending.transmit.next_batch(pending.sent, max_segments);
            let transmit = quinn_udp::Transmit {
                destination: pending.transmit.destination,
                ecn: pending.transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                contents: &bytes[pending.sent..pending.sent + length],
                segment_size: pending.transmit.segment_size,
                src_ip: pending.transmit.src_ip,
            };
            let (io, state) = (&self.io, &self.state);
            match attempt(io, &mut || state.try_send(io.into(), &transmit)) {
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

/// Binds what is to be bound, with `bind`. `[::]` may fail on a machine without IPv6, as long as another socket is there.
///
/// # Errors
/// An address could not be bound; the error names it.
pub fn bind_all<T>(
    listen: &[SocketAddr],
    mut bind: impl FnMut(SocketId, SocketAddr) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let mut sockets = Vec::new();
    for address in listen {
        match bind(SocketId(sockets.len() as u32), *address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if !sockets.is_empty() && is_no_ipv6(address, &error) => {
                tracing::info!(%error, "no IPv6 here");
            }
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("cannot bind to udp {address}: {error}")));
            }
        }
    }
    Ok(sockets)
}

fn is_no_ipv6(address: &SocketAddr, error: &io::Error) -> bool {
    address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != ErrorKind::AddrInUse
}

#[cfg(test)]
mod tests;
