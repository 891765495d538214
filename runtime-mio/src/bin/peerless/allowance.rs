//! How many bytes a transfer may have, where a relay says what it lets through.

use peerless_core::ids::ConnectionId;

use crate::{
    notice::Notice,
    report::{Line, Reporter},
    session::Session,
};

/// What handshakes, identify and pings take of a circuit.
const OVERHEAD: u64 = 16 << 10;
/// What negotiating the protocol of a stream and ending it take.
const PER_STREAM: u64 = 256;

/// The bytes that are `wanted`, or as many of `default` as the relay lets through. Says so if that is less than the default,
/// or than what is wanted.
pub(crate) fn choose(
    session: &Session,
    connection: ConnectionId,
    wanted: Option<u64>,
    default: u64,
    streams: u64,
    report: Reporter,
) -> u64 {
    let bytes = wanted.unwrap_or(default);
    let Some(limit) = session.circuit_limit(connection) else { return bytes };
    let fitting = fitting(limit, streams);
    if bytes <= fitting {
        return bytes;
    }
    let bytes = wanted.unwrap_or(fitting);
    report.result(&Line::Notice(Notice::CircuitLimit { limit, bytes, fits: wanted.is_none() }));
    bytes
}

/// How many bytes of payload surely get through a circuit that carries `limit`.
fn fitting(limit: u64, streams: u64) -> u64 {
    let left = limit.saturating_sub(streams.saturating_mul(PER_STREAM)).saturating_sub(OVERHEAD);
    // Records and frames have headers, a fiftieth at most, and the other direction is acknowledged.
    left / 16 * 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_leaves_room_for_everything_else() {
        assert_eq!(fitting(128 << 10, 1), (112 * 1024 - 256) / 16 * 15);
        assert_eq!([fitting(0, 1), fitting(16 << 10, 1), fitting(u64::MAX, u64::MAX)], [0; 3]);
    }
}
