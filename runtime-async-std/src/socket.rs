//! One UDP socket: batches in, segmented batches out, and an error that never stalls.

use std::{
    array,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    task::Context,
};

use async_io::Async;
use bytes::BytesMut;
use peerless_core::{
    ids::SocketId,
    node::{Bound, Datagram, Ecn, Transmit},
};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, Type};

use crate::Stats;

/// Room for one received buffer: the most that the kernel joins into one.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Room for all that one call receives.
pub(crate) const RECEIVE_BUFFERS: usize = RECEIVE_BUFFER * BATCH_SIZE;
/// Most datagrams of the usual size on Ethernet that fit into one send.
const MAX_SEGMENTS: usize = 65_000 / 1452;

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    id: SocketId,
    pub(crate) io: Async<UdpSocket>,
    state: UdpSocketState,
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
        // As far as the system allows.
        let _ = state.set_recv_buffer_size(io.get_ref().into(), buffer);
        let _ = state.set_send_buffer_size(io.get_ref().into(), buffer);
        Ok(Self {
            id,
            io,
            state,
            readable: true,
            #[cfg(test)]
            faults: Default::default(),
        })
    }

    /// What the node is told of the socket: for a wildcard address also the machine's addresses.
    pub(crate) fn bound(&self) -> io::Result<Bound> {
        let local = self.io.get_ref().local_addr()?;
        let interfaces = if local.ip().is_unspecified() { if_addrs::get_if_addrs()? } else { Vec::new() };
        Ok(Bound { local, reachable: interfaces.iter().map(|interface| interface.ip()).collect() })
    }

    /// Most datagrams that one send may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments().min(MAX_SEGMENTS)
    }

    /// Whether there may be something to receive; if not, the task is woken when there is.
    pub(crate) fn is_readable(&mut self, cx: &mut Context<'_>) -> bool {
        self.readable = self.readable || self.io.poll_readable(cx).is_ready();
        self.readable
    }

    /// Receives one batch; what comes back empty may be the end of what there is for now.
    pub(crate) fn receive(&mut self, buffers: &mut [u8]) -> Vec<Datagram> {
        let mut chunks = buffers.chunks_exact_mut(RECEIVE_BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let batch =
            self.state.recv(self.io.get_ref().into(), &mut slices, &mut meta).unwrap_or_else(|error| {
                // Resets and refusals are of an earlier send: they say nothing of what waits to be received.
                use io::ErrorKind::{ConnectionRefused, ConnectionReset};
                self.readable = matches!(error.kind(), ConnectionReset | ConnectionRefused);
                0
            });
        let mut datagrams = Vec::new();
        for (meta, bytes) in meta[..batch].iter().zip(buffers.chunks_exact(RECEIVE_BUFFER)) {
            for data in bytes[..meta.len.min(RECEIVE_BUFFER)].chunks(meta.stride.max(1)) {
                let (socket, remote, local_ip) = (self.id, meta.addr, meta.dst_ip);
                let ecn = meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8));
                // A buffer of its own: a slice of the batch would keep all of it alive.
                let data = BytesMut::from(data);
                datagrams.push(Datagram { socket, remote, local_ip, ecn, data });
            }
        }
        datagrams
    }

    /// Sends what is left of a transmit and its bytes after those sent already. Returns whether it has to wait for room.
    /// What the system refuses is lost, as any datagram may be.
    pub(crate) fn send(
        &mut self,
        transmit: &Transmit,
        sent: &mut usize,
        bytes: &[u8],
        stats: &mut Stats,
    ) -> bool {
        while *sent < transmit.size {
            let max_segments = self.state.max_gso_segments();
            let (size, datagrams) = transmit.next_batch(*sent, max_segments);
            match self.try_send(transmit, &bytes[*sent..*sent + size]) {
                Ok(()) => stats.sent += datagrams as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // quinn-udp took segmentation to be the fault: once more, segment by segment.
                Err(_) if datagrams > 1 && self.state.max_gso_segments() < max_segments => continue,
                Err(error) => {
                    tracing::debug!(%error, destination = %transmit.destination, "sending failed");
                    stats.send_dropped += datagrams as u64;
                    // If a datagram is invalid, its address was at fault and not segmentation or ECN, which quinn-udp
                    // has switched off for good: a peer must not be able to cause that, so begin anew.
                    let invalid = error.kind() == io::ErrorKind::InvalidInput;
                    let renew = || UdpSocketState::new(self.io.get_ref().into()).ok();
                    invalid.then(renew).flatten().into_iter().for_each(|new| self.state = new);
                }
            }
            *sent += size;
        }
        false
    }

    fn try_send(&mut self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(fault) = self.faults.pop_front() {
            return Err(fault);
        }
        let Transmit { destination, ecn, segment_size, src_ip, .. } = *transmit;
        let ecn = ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        let transmit = quinn_udp::Transmit { destination, ecn, contents, segment_size, src_ip };
        self.state.try_send(self.io.get_ref().into(), &transmit)
    }
}
