//! What the pipe reports, and how its commands fail.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use libp2p_identity::PeerId;

use crate::{
    errors::CloseReason,
    ids::{QuicId, SocketId},
};

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuicEvent {
    /// The handshake is complete and the peer is who it says.
    Connected {
        /// The connection.
        id: QuicId,
        /// Who is there.
        peer: PeerId,
        /// Where it is.
        remote: SocketAddr,
        /// Whether we dialled.
        outbound: bool,
    },
    /// The connection is gone and its id is stale. The last event of a connection.
    Closed {
        /// The connection.
        id: QuicId,
        /// Where the other side was last.
        remote: SocketAddr,
        /// Why.
        reason: CloseReason,
        /// Whether [`Connected`](Self::Connected) had been reported.
        was_connected: bool,
    },
    /// The other side is now at another address.
    PathChanged {
        /// The connection.
        id: QuicId,
        /// Where it is now.
        remote: SocketAddr,
    },
    /// Something happened to a stream.
    Stream {
        /// The connection.
        id: QuicId,
        /// The stream's number in QUIC.
        stream: u64,
        /// What.
        event: StreamNote,
    },
    /// After a blocked [`open`](super::Quic::open): the peer grants more streams.
    StreamsAvailable {
        /// The connection.
        id: QuicId,
    },
}

/// Something that happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamNote {
    /// The remote opened it. There may be something to read at once, which is not reported again.
    Opened,
    /// There is something to read: data, the end, or a reset.
    Readable,
    /// There is room to write again, or an error to find, after a write that was blocked.
    Writable,
    /// All we wrote, and the end, has been acknowledged.
    Finished,
    /// The remote asks us to write no more, for this reason.
    Stopped(u64),
}

/// What [`read`](super::Quic::read) found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes, at least one.
    Data(Bytes),
    /// Nothing for now; [`StreamNote::Readable`] follows.
    Blocked,
    /// The remote wrote all it had to write. The reading half is gone.
    Finished,
}

/// Why no more was read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is as much as was asked for.
    Most,
    /// There is no more for now; [`StreamNote::Readable`] follows.
    Blocked,
    /// The remote wrote all it had to write. The reading half is gone.
    Finished,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The remote gave the stream up. The reading half is gone.
    #[error("the remote reset the stream (code {0})")]
    Reset(u64),
    /// There is no such connection, or no such reading half.
    #[error("no such stream")]
    Gone,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No room for now; [`StreamNote::Writable`] follows.
    #[error("blocked")]
    Blocked,
    /// The remote asked us to write no more.
    #[error("the remote stopped the stream (code {0})")]
    Stopped(u64),
    /// There is no such connection, or no such writing half.
    #[error("no such stream")]
    Gone,
}

/// Why no stream was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer grants no more for now; [`QuicEvent::StreamsAvailable`] follows.
    #[error("the peer grants no more streams")]
    Blocked,
    /// There is no such connection.
    #[error("no such connection")]
    Gone,
}

/// Why nothing was dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No socket of that address family.
    #[error("no socket of that address family")]
    NoSocket,
    /// Not an address to send to.
    #[error("not an address to send to: {0}")]
    Address(SocketAddr),
    /// The handshake could not be begun.
    #[error("the handshake could not be begun: {0}")]
    Handshake(String),
}

/// What is known about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where the other side is.
    pub remote: SocketAddr,
    /// The socket it was last heard on.
    pub socket: SocketId,
    /// Our address, if known: it is for inbound connections whose datagrams told.
    pub local_ip: Option<IpAddr>,
    /// Whether we dialled.
    pub outbound: bool,
    /// Who is there, once the handshake is complete.
    pub peer: Option<PeerId>,
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// The largest UDP payload known to pass, in bytes.
    pub mtu: u16,
}
