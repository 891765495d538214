//! One UDP socket: batches in, segmented batches out, and an error that never stalls.

use std::{
    array, fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    task::{Context, Poll},
};

use async_io::Async;
use bytes::BytesMut;
use peerless_core::{
    ids::SocketId,
    node::{Bound, Datagram, Ecn, Transmit},
};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Type};

/// Room for one received buffer: the most that the kernel joins into one.
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
        let bytes = vec![0; RECEIVE_BUFFER * BATCH_SIZE].into();
        Self { bytes, meta: array::from_fn(|_| RecvMeta::default()) }
    }
}

impl fmt::Debug for ReceiveBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiveBuffers")
    }
}

/// A transmit on its way, and how much of it the kernel has taken.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) transmit: Transmit,
    pub(crate) sent: usize,
}

impl Pending {
    /// The end of the next piece that may go out in one call: as many whole segments as the kernel takes at once.
    fn next_end(&self, max_segments: usize) -> usize {
        let size = self.transmit.size;
        let Some(segment) = self.transmit.segment_size.filter(|s| *s > 0) else { return size };
        let segments = max_segments.min(MAX_SEND / segment).max(1);
        size.min(self.sent.saturating_add(segments.saturating_mul(segment)))
    }

    /// How many datagrams lie between what is sent and `end`.
    fn datagrams(&self, end: usize) -> u64 {
        let segment = self.transmit.segment_size.unwrap_or(self.transmit.size).max(1);
        (end - self.sent).div_ceil(segment) as u64
    }
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
    io: Async<UdpSocket>,
    state: UdpSocketState,
    local: SocketAddr,
    /// There may be something to receive.
    readable: bool,
    /// What the next sends fail with.
    #[cfg(test)]
    pub(crate) faults: std::collections::VecDeque<io::Error>,
}

impl Socket {
    /// Binds to `address`, IPv6 sockets to IPv6 alone, and asks for kernel buffers of `buffer` bytes.
    pub(crate) fn bind(id: SocketId, address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let raw = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            raw.set_only_v6(true)?;
        }
        raw.bind(&address.into())?;
        let io = Async::new(UdpSocket::from(raw))?;
        let state = UdpSocketState::new(io.get_ref().into())?;
        for resized in [
            state.set_recv_buffer_size(io.get_ref().into(), buffer),
            state.set_send_buffer_size(io.get_ref().into(), buffer),
        ] {
            if let Err(error) = resized {
                tracing::debug!(%error, buffer, "the socket keeps its buffer size");
            }
        }
        let local = io.get_ref().local_addr()?;
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

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// What the node is told of the socket: for a wildcard address also the machine's addresses of that family.
    pub(crate) fn bound(&self) -> Bound {
        let mut reachable = Vec::new();
        if self.local.ip().is_unspecified() {
            let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot list the network interfaces");
                Vec::new()
            });
            let ips = interfaces.iter().map(if_addrs::Interface::ip);
            reachable.extend(ips.filter(|ip| ip.is_ipv4() == self.local.is_ipv4() && !is_link_local(*ip)));
            reachable.sort();
            reachable.dedup();
        }
        Bound { local: self.local, reachable }
    }

    /// Most segments of the usual size that one send may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEND / USUAL_SEGMENT)
    }

    /// Ready if there may be something to receive; else wakes the task when there is.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.readable {
            std::task::ready!(self.io.poll_readable(cx)).unwrap_or_else(|error| self.note(&error));
            self.readable = true;
        }
        Poll::Ready(())
    }

    /// Ready if there may be room to send; else wakes the task when there is.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_writable(cx).map(|result| result.unwrap_or_else(|error| self.note(&error)))
    }

    fn note(&self, error: &io::Error) {
        tracing::warn!(%error, socket = %self.local, "waiting for the socket failed");
    }

    /// Receives one batch, and gives each datagram to `take`. Returns how many came, empty ones included; zero when
    /// there is nothing more for now.
    pub(crate) fn receive(&mut self, buffers: &mut ReceiveBuffers, mut take: impl FnMut(Datagram)) -> usize {
        let mut chunks = buffers.bytes.chunks_exact_mut(RECEIVE_BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let batch = match self.state.recv(self.io.get_ref().into(), &mut slices, &mut buffers.meta) {
            Ok(batch) => batch,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return 0;
                }
                // Errors of an earlier send, or a signal: they say nothing of what waits to be received.
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted => return 1,
                _ => {
                    tracing::warn!(%error, socket = %self.local, "receiving failed");
                    self.readable = false;
                    return 0;
                }
            },
        };
        let mut count = 0;
        for (meta, bytes) in buffers.meta[..batch].iter().zip(buffers.bytes.chunks_exact(RECEIVE_BUFFER)) {
            let stride = meta.stride.max(1);
            count += meta.len.div_ceil(stride).max(1);
            for data in bytes[..meta.len.min(RECEIVE_BUFFER)].chunks(stride) {
                take(Datagram {
                    socket: self.id,
                    remote: meta.addr,
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.map(from_codepoint),
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
        if !is_sendable(&pending.transmit.destination) {
            result.dropped = pending.datagrams(size);
            return result;
        }
        while pending.sent < size {
            let max_segments = self.state.max_gso_segments();
            let end = pending.next_end(max_segments);
            let datagrams = pending.datagrams(end);
            match self.try_send(&pending.transmit, &bytes[pending.sent..end]) {
                Ok(()) => {
                    pending.sent = end;
                    result.sent += datagrams;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    result.blocked = true;
                    return result;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // quinn-udp took segmentation to be the fault: once more, segment by segment.
                Err(_) if datagrams > 1 && self.state.max_gso_segments() < max_segments => {}
                Err(error) => {
                    self.after_failure(&error, &pending.transmit);
                    result.dropped = pending.datagrams(size);
                    return result;
                }
            }
        }
        result
    }

    fn try_send(&mut self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(fault) = self.faults.pop_front() {
            return Err(fault);
        }
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.map(to_codepoint),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.state.try_send(self.io.get_ref().into(), &transmit)
    }

    /// A datagram that the system refuses is lost, as any other may be. If a lone one is invalid, the address was at
    /// fault and not segmentation or ECN, which quinn-udp has switched off for good: a peer must not be able to cause
    /// that, so begin anew.
    fn after_failure(&mut self, error: &io::Error, transmit: &Transmit) {
        tracing::debug!(%error, destination = %transmit.destination, "sending failed");
        if error.kind() == io::ErrorKind::InvalidInput
            && let Ok(state) = UdpSocketState::new(self.io.get_ref().into())
        {
            self.state = state;
        }
    }
}

/// Whether the system can know where to send it.
fn is_sendable(destination: &SocketAddr) -> bool {
    let scoped = match destination {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.scope_id() != 0 || !is_link_local(destination.ip()),
    };
    scoped && destination.port() != 0 && !destination.ip().is_unspecified()
}

/// IPv6 link-local addresses mean nothing without a zone, which multiaddrs of QUIC do not carry.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn from_codepoint(ecn: EcnCodepoint) -> Ecn {
    match ecn {
        EcnCodepoint::Ect0 => Ecn::Ect0,
        EcnCodepoint::Ect1 => Ecn::Ect1,
        EcnCodepoint::Ce => Ecn::Ce,
    }
}

fn to_codepoint(ecn: Ecn) -> EcnCodepoint {
    match ecn {
        Ecn::Ect0 => EcnCodepoint::Ect0,
        Ecn::Ect1 => EcnCodepoint::Ect1,
        Ecn::Ce => EcnCodepoint::Ce,
    }
}
