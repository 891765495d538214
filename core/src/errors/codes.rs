//! With which codes connections are closed and streams reset.

use super::{CloseReason, SpliceEnd, StreamFault};
use crate::codes;

impl CloseReason {
    /// The application error code with which we close for this reason.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Duplicate | Self::Replaced => codes::connection::SUPPLANTED,
            // As go-libp2p says that a connection was garbage-collected.
            Self::Pruned => 0x1005,
            _ => 0,
        }
    }
}

impl StreamFault {
    /// The code with which a stream is reset that is lost for this reason.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Unsupported | Self::NegotiationTimeout => codes::stream::NEGOTIATION_FAILED,
            Self::Limit(_) | Self::WriteQueueFull => codes::stream::LIMIT_EXCEEDED,
            Self::Malformed(_) => codes::stream::PROTOCOL_VIOLATION,
            Self::Remote(_) | Self::ConnectionLost => 0,
        }
    }
}

impl SpliceEnd {
    /// The code with which what is left of the streams is reset. What the one side said is passed on to the other.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Limit | Self::Local => codes::stream::LIMIT_EXCEEDED,
            Self::Idle => codes::stream::GARBAGE_COLLECTED,
            Self::A(StreamFault::Remote(code)) | Self::B(StreamFault::Remote(code)) => *code,
            Self::Finished | Self::A(_) | Self::B(_) => 0,
        }
    }
}
