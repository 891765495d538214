use std::time::Duration;

use bytes::Bytes;
use peerless_proto::yamux::{GoAway, YamuxError as HeaderError};
use thiserror::Error;

/// A stream of one multiplexed connection. Never reused within the connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MuxStream(pub(super) u32);

impl MuxStream {
    /// The stream with this identifier on the wire.
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The identifier on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What happened on a multiplexed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MuxEvent {
    /// The remote opened a stream.
    Opened(MuxStream),
    /// Data or the end of data may be read. Reported once; again after a read was [`Read::Blocked`].
    Readable(MuxStream),
    /// A write that was [`WriteError::Blocked`] may be tried again.
    Writable(MuxStream),
    /// All our data and the end of it went out with `poll_transmit`.
    Finished(MuxStream),
    /// The remote ended its half before and now wants no more of ours, for this reason. What it sent can still be read.
    Stopped(MuxStream, u32),
    /// The remote ended the stream at once, for this reason: the stream is gone, with any data not yet read. The reason is
    /// the error code of the libp2p specs (`yamux`, in the length of a window update with RST); 0 says nothing.
    Reset(MuxStream, u32),
    /// Opening a stream, refused with [`OpenError::Blocked`], may be tried again.
    Available,
    /// The session is over; the last event. Data received before can still be read.
    Closed(CloseReason),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// We called `close`.
    Local,
    /// The remote said go away, with this code.
    Remote(GoAway),
    /// The remote did not answer a ping in time.
    Unresponsive,
    /// The remote broke the protocol.
    Violation(YamuxError),
    /// The pipe underneath came to its end.
    Ended,
    /// The pipe underneath broke, for this reason.
    Broken(String),
}

/// What a read yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes, never empty.
    Data(Bytes),
    /// Nothing now; [`MuxEvent::Readable`] follows.
    Blocked,
    /// The remote sent everything it had to send.
    Finished,
}

/// Why nothing can be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No such stream: never opened, ended on both sides, or reset.
    #[error("unknown stream")]
    UnknownStream,
    /// We stopped reading this stream.
    #[error("reading was stopped")]
    Stopped,
    /// The session ended before the stream did.
    #[error("the session is closed")]
    Closed,
}

/// Why nothing can be written.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No credit or no room now; [`MuxEvent::Writable`] follows.
    #[error("no credit")]
    Blocked,
    /// No such stream: never opened, ended on both sides, or reset.
    #[error("unknown stream")]
    UnknownStream,
    /// We finished this stream before.
    #[error("the stream is finished")]
    Finished,
    /// The remote wants no more data.
    #[error("the remote stopped reading")]
    Stopped,
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
}

/// Why no stream can be opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Too many streams are open, or wait for the remote's acknowledgement; [`MuxEvent::Available`] follows.
    #[error("too many streams")]
    Blocked,
    /// All stream identifiers are used up.
    #[error("stream identifiers exhausted")]
    Exhausted,
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
}

/// How the remote broke the protocol. Every one of these is the remote's fault.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum YamuxError {
    /// A version or frame type the specification does not know.
    #[error("remote sent an invalid frame header: {0}")]
    Header(#[from] HeaderError),
    /// A stream opened with an identifier that is not the remote's to give.
    #[error("remote opened stream {0}, which is not its to open")]
    InvalidStream(u32),
    /// A stream opened with an identifier that was used before.
    #[error("remote opened stream {0} twice")]
    StreamReused(u32),
    /// More data than the receive window allows.
    #[error("remote overran the receive window of stream {0}")]
    WindowExceeded(u32),
    /// More credit than fits in 32 bits.
    #[error("remote overflowed the send window of stream {0}")]
    CreditOverflow(u32),
    /// Data for a stream that does not exist, beyond what can have been under way when it ended.
    #[error("remote sent data for unknown stream {0}")]
    StrayData(u32),
    /// Pings or refused streams faster than the answers can leave.
    #[error("remote asks for more replies than it reads")]
    ReplyFlood,
}

/// Limits and intervals of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamuxConfig {
    /// Streams the remote may have open at a time; more are reset. 512 by default.
    pub max_inbound_streams: usize,
    /// Streams we may have open at a time. 256 by default: some implementations end the session when both sides
    /// together have opened more than 512.
    pub max_outbound_streams: usize,
    /// Upper end of a stream's receive window in bytes. 16 MiB by default, never below 256 KiB.
    pub max_stream_window: u32,
    /// In bytes, 16 MiB by default: receive windows grow only while their sum stays below, and no input is
    /// wanted while as much is unread.
    pub max_connection_window: u32,
    /// Bytes accepted by `write` and not yet sent, over all streams. 256 KiB by default.
    pub max_queued: usize,
    /// Time between pings. 30 s by default.
    pub keepalive: Duration,
    /// How long the remote may be silent after a ping. 10 s by default.
    pub pong_timeout: Duration,
}

impl Default for YamuxConfig {
    fn default() -> Self {
        Self {
            max_inbound_streams: 512,
            max_outbound_streams: 256,
            max_stream_window: 16 << 20,
            max_connection_window: 16 << 20,
            max_queued: 256 << 10,
            keepalive: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(10),
        }
    }
}
