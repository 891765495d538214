//! Datagrams as they pass between the embedder and the node.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;

use crate::ids::SocketId;

/// A datagram that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Who sent it, as far as its source address can be believed.
    pub remote: SocketAddr,
    /// The address it was sent to, if the embedder knows.
    pub local_ip: Option<IpAddr>,
    /// Its congestion mark; `None` is Not-ECT.
    pub ecn: Option<Ecn>,
    /// Its bytes, in a buffer of their own: a slice of a larger one would pin the whole of it for as long as a stream
    /// holds a byte.
    pub data: BytesMut,
}

/// Datagrams to send; their bytes are the first `size` of the buffer that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send from.
    pub socket: SocketId,
    /// Where to.
    pub destination: SocketAddr,
    /// The congestion mark to send with; `None` is Not-ECT.
    pub ecn: Option<Ecn>,
    /// Number of bytes.
    pub size: usize,
    /// If there are several datagrams: the size of each but the last, which may be shorter.
    pub segment_size: Option<usize>,
    /// The address to send from, if it matters.
    pub src_ip: Option<IpAddr>,
}

impl Transmit {
    /// Of what follows the first `sent` bytes: how many bytes, and how many datagrams, to hand to the system in one call
    /// that takes `max_segments` datagrams of the same size.
    pub fn next_batch(&self, sent: usize, max_segments: usize) -> (usize, usize) {
        /// A UDP length less the headers of IPv6 and UDP.
        const MAX: usize = 65_535 - 40 - 8;
        let left = self.size.saturating_sub(sent);
        let segment = self.segment_size.unwrap_or(left).max(1);
        let bytes = left.min(segment.saturating_mul(max_segments.min(MAX / segment).max(1)));
        (bytes, bytes.div_ceil(segment))
    }
}

/// A mark of Explicit Congestion Notification (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// ECT(1).
    Ect1 = 0b01,
    /// ECT(0), what QUIC sends.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// The mark in the lower two bits of an IP traffic class; `None` is Not-ECT.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 0b11 {
            0b01 => Some(Self::Ect1),
            0b10 => Some(Self::Ect0),
            0b11 => Some(Self::Ce),
            _ => None,
        }
    }

    pub(super) fn to_quinn(self) -> EcnCodepoint {
        match self {
            Self::Ect0 => EcnCodepoint::Ect0,
            Self::Ect1 => EcnCodepoint::Ect1,
            Self::Ce => EcnCodepoint::Ce,
        }
    }

    pub(super) fn from_quinn(ecn: EcnCodepoint) -> Self {
        match ecn {
            EcnCodepoint::Ect0 => Self::Ect0,
            EcnCodepoint::Ect1 => Self::Ect1,
            EcnCodepoint::Ce => Self::Ce,
        }
    }
}

impl Transmit {
    pub(super) fn new(socket: SocketId, transmit: &quinn_proto::Transmit) -> Self {
        Self {
            socket,
            destination: transmit.destination,
            ecn: transmit.ecn.map(Ecn::from_quinn),
            size: transmit.size,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        }
    }
}
