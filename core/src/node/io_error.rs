//! Errors of commands as [`io::Error`]s, for runtimes that read and write streams as the system's are. The error itself
//! is inside: [`io::Error::get_ref`] and `downcast_ref` bring it back.

use std::io::{self, ErrorKind};

use super::StreamError;
use crate::{
    errors::{AttemptError, CloseReason, DialError, OpenError, Refusal, StreamFault, UpgradeError},
    protocols::{ping, relay::client::ReserveError, rendezvous::client as rendezvous},
};

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Lost(fault) => stream_fault(fault),
            StreamError::NoStream | StreamError::Finished | StreamError::Stopped(_) => ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

/// The kind is that of the last attempt.
impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        Self::new(dial_error(&error), error)
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        Self::new(open_error(&error), error)
    }
}

impl From<ReserveError> for io::Error {
    fn from(error: ReserveError) -> Self {
        let kind = match &error {
            ReserveError::NoPeer => ErrorKind::InvalidInput,
            ReserveError::Unreachable(error) => dial_error(error),
            ReserveError::Disconnected(reason) => close_reason(reason),
            ReserveError::Open(error) => open_error(error),
            ReserveError::Stream(fault) => stream_fault(fault),
            ReserveError::Refused(_) => ErrorKind::ConnectionRefused,
            ReserveError::Malformed(_) | ReserveError::Voucher(_) => ErrorKind::InvalidData,
            ReserveError::TimedOut | ReserveError::Expired => ErrorKind::TimedOut,
            ReserveError::Cancelled => ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl From<rendezvous::Error> for io::Error {
    fn from(error: rendezvous::Error) -> Self {
        use rendezvous::Error;
        let kind = match &error {
            Error::Unreachable(error) => dial_error(error),
            Error::Disconnected(reason) => close_reason(reason),
            Error::Open(error) => open_error(error),
            Error::Stream(fault) => stream_fault(fault),
            Error::Refused { .. } => ErrorKind::ConnectionRefused,
            Error::Malformed(_) => ErrorKind::InvalidData,
            Error::TimedOut | Error::Expired => ErrorKind::TimedOut,
            Error::Cancelled => ErrorKind::ConnectionAborted,
            Error::NoAddress => ErrorKind::AddrNotAvailable,
            Error::TooMany(_) => ErrorKind::QuotaExceeded,
            Error::NoPeer
            | Error::Own
            | Error::Namespace(_)
            | Error::Ttl(_)
            | Error::ForeignCookie
            | Error::Record(_) => ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl From<ping::Failure> for io::Error {
    fn from(error: ping::Failure) -> Self {
        let kind = match &error {
            ping::Failure::Timeout => ErrorKind::TimedOut,
            ping::Failure::Mismatch => ErrorKind::InvalidData,
            ping::Failure::Open(error) => open_error(error),
            ping::Failure::Stream(fault) => stream_fault(fault),
        };
        Self::new(kind, error)
    }
}

fn stream_fault(fault: &StreamFault) -> ErrorKind {
    match fault {
        StreamFault::Remote(_) => ErrorKind::ConnectionReset,
        StreamFault::ConnectionLost => ErrorKind::ConnectionAborted,
        StreamFault::Unsupported => ErrorKind::Unsupported,
        StreamFault::NegotiationTimeout => ErrorKind::TimedOut,
        StreamFault::Limit(_) => ErrorKind::QuotaExceeded,
        StreamFault::Malformed(_) | StreamFault::WriteQueueFull => ErrorKind::InvalidData,
    }
}

fn open_error(error: &OpenError) -> ErrorKind {
    match error {
        OpenError::NoConnection => ErrorKind::NotConnected,
        OpenError::StreamLimit | OpenError::Limit(_) => ErrorKind::QuotaExceeded,
        OpenError::UnknownProtocol(_) => ErrorKind::InvalidInput,
    }
}

fn dial_error(error: &DialError) -> ErrorKind {
    error.attempts.last().map_or(ErrorKind::InvalidInput, |(_, error)| match error {
        AttemptError::Unsupported(_)
        | AttemptError::OtherPeer { .. }
        | AttemptError::Own
        | AttemptError::Hostless(_) => ErrorKind::InvalidInput,
        AttemptError::Refused(refusal) => refused(refusal),
        AttemptError::NotDirect | AttemptError::NoSocket => ErrorKind::AddrNotAvailable,
        AttemptError::BackedOff { .. } | AttemptError::BlackHole => ErrorKind::HostUnreachable,
        AttemptError::QueueFull => ErrorKind::QuotaExceeded,
        AttemptError::Unresolved(_) => ErrorKind::NotFound,
        AttemptError::Failed(reason) => close_reason(reason),
        AttemptError::NoRelay | AttemptError::RelayUnreachable(_) | AttemptError::TargetUnknown => {
            ErrorKind::HostUnreachable
        }
        AttemptError::RelayRefused(_) | AttemptError::RelayLimit => ErrorKind::ConnectionRefused,
        AttemptError::CircuitLimit => ErrorKind::QuotaExceeded,
        AttemptError::RelayFault(_) => ErrorKind::InvalidData,
        AttemptError::TimedOut => ErrorKind::TimedOut,
        AttemptError::ShuttingDown => ErrorKind::ConnectionAborted,
    })
}

fn refused(refusal: &Refusal) -> ErrorKind {
    match refusal {
        Refusal::Denied(_) => ErrorKind::PermissionDenied,
        Refusal::Limit(_) => ErrorKind::QuotaExceeded,
        Refusal::ShuttingDown => ErrorKind::ConnectionAborted,
    }
}

fn close_reason(reason: &CloseReason) -> ErrorKind {
    match reason {
        CloseReason::Local | CloseReason::Pruned | CloseReason::Duplicate | CloseReason::Replaced => {
            ErrorKind::ConnectionAborted
        }
        CloseReason::Remote { .. } | CloseReason::Reset | CloseReason::CircuitFinished => {
            ErrorKind::ConnectionReset
        }
        CloseReason::CircuitLimit(_) => ErrorKind::QuotaExceeded,
        CloseReason::TimedOut => ErrorKind::TimedOut,
        CloseReason::ConnectionRefused => ErrorKind::ConnectionRefused,
        CloseReason::WrongPeer { .. } | CloseReason::Upgrade(UpgradeError::WrongPeer { .. }) => {
            ErrorKind::PermissionDenied
        }
        CloseReason::Refused(refusal) | CloseReason::Upgrade(UpgradeError::Refused(refusal)) => {
            refused(refusal)
        }
        CloseReason::Circuit(fault) | CloseReason::Upgrade(UpgradeError::Carrier(fault)) => {
            stream_fault(fault)
        }
        CloseReason::Upgrade(UpgradeError::TimedOut(_)) => ErrorKind::TimedOut,
        CloseReason::Handshake(_)
        | CloseReason::Transport(_)
        | CloseReason::Muxer(_)
        | CloseReason::Upgrade(_) => ErrorKind::InvalidData,
    }
}
