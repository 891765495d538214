//! Between the messages of the wire and what the machines think in; and messages in a few words, for transcripts.

use std::time::Duration;

use bytes::Bytes;
use libp2p_identity::PeerId;
use peerless_proto::{
    envelope::Envelope,
    keys::decode_peer_id,
    pb::{self, relay as msg},
    voucher::Voucher,
};

use super::STOP;
use crate::{
    errors::RelayStatus,
    names::{CircuitLimit, ProtocolName},
    time::UnixTime,
};

/// The longest circuit duration taken from a message. js-libp2p states milliseconds as if they were seconds.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

pub(super) fn hop_answer(status: RelayStatus) -> msg::HopMessage {
    let kind = Some(msg::HopType::Status as i32);
    msg::HopMessage { r#type: kind, status: Some(status.code()), ..Default::default() }
}

pub(super) fn stop_answer(status: RelayStatus) -> msg::StopMessage {
    let kind = Some(msg::StopType::Status as i32);
    msg::StopMessage { r#type: kind, status: Some(status.code()), ..Default::default() }
}

pub(super) fn encode(message: &impl pb::Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The peer a message names, if it names one.
pub(super) fn peer_of(peer: Option<&msg::Peer>) -> Option<PeerId> {
    decode_peer_id(peer?.id.as_deref()?).ok()
}

/// `None` if there is no limit. Durations are rounded up to seconds.
pub(super) fn limit_to_wire(limit: CircuitLimit) -> Option<msg::Limit> {
    let seconds = |d: Duration| u32::try_from(d.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
    (limit != CircuitLimit::default())
        .then(|| msg::Limit { duration: limit.duration.map(seconds), data: limit.data })
}

pub(super) fn limit_from_wire(limit: Option<&msg::Limit>) -> CircuitLimit {
    let duration = limit.and_then(|limit| limit.duration).filter(|seconds| *seconds > 0);
    CircuitLimit {
        duration: duration.map(|seconds| Duration::from_secs(seconds.into()).min(MAX_DURATION)),
        data: limit.and_then(|limit| limit.data).filter(|bytes| *bytes > 0),
    }
}

/// A message of either protocol in a few words.
pub(super) fn describe(protocol: &ProtocolName, frame: &[u8], unix: UnixTime) -> String {
    let text = if *protocol == STOP { describe_stop(frame) } else { describe_hop(frame, unix) };
    let name = if *protocol == STOP { "stop" } else { "hop" };
    format!("{name} {}", text.unwrap_or_else(|| "malformed".into()))
}

fn describe_hop(frame: &[u8], unix: UnixTime) -> Option<String> {
    let message: msg::HopMessage = pb::decode(frame).ok()?;
    let mut words = match message.kind()? {
        msg::HopType::Reserve => vec!["RESERVE".to_string()],
        msg::HopType::Connect => vec!["CONNECT".into(), describe_peer(message.peer.as_ref())],
        msg::HopType::Status => vec!["STATUS".into(), RelayStatus::from(message.status).to_string()],
    };
    if let Some(reservation) = &message.reservation {
        words.push(format!("expire={}", describe_expiry(reservation.expire.unwrap_or(0), unix.as_secs())));
    }
    words.extend(describe_limit(message.limit.as_ref()));
    if let Some(voucher) = message.reservation.and_then(|reservation| reservation.voucher) {
        let opened = Envelope::decode(&voucher).ok().and_then(|envelope| Voucher::open(&envelope).ok());
        words.push(match opened {
            Some(voucher) => format!("voucher({},{})", voucher.peer, voucher.relay),
            None => "voucher(bad)".into(),
        });
    }
    Some(words.join(" "))
}

fn describe_stop(frame: &[u8]) -> Option<String> {
    let message: msg::StopMessage = pb::decode(frame).ok()?;
    let mut words = match message.kind()? {
        msg::StopType::Connect => vec!["CONNECT".into(), describe_peer(message.peer.as_ref())],
        msg::StopType::Status => vec!["STATUS".to_string(), RelayStatus::from(message.status).to_string()],
    };
    words.extend(describe_limit(message.limit.as_ref()));
    Some(words.join(" "))
}

fn describe_peer(peer: Option<&msg::Peer>) -> String {
    peer_of(peer).map_or_else(|| "nobody".into(), |peer| peer.to_base58())
}

fn describe_limit(limit: Option<&msg::Limit>) -> Option<String> {
    let limit = limit?;
    let duration = match limit.duration {
        None | Some(0) => "none".into(),
        Some(seconds) => format!("{seconds}s"),
    };
    let data = match limit.data {
        None | Some(0) => "none".into(),
        Some(bytes) if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        Some(bytes) if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        Some(bytes) => format!("{bytes}B"),
    };
    Some(format!("limit={duration}/{data}"))
}

/// How far `expire` is from now, in the largest unit that needs no fraction.
fn describe_expiry(expire: u64, now: u64) -> String {
    let sign = if expire >= now { '+' } else { '-' };
    match expire.abs_diff(now) {
        seconds if seconds % 3600 == 0 && seconds > 0 => format!("{sign}{}h", seconds / 3600),
        seconds if seconds % 60 == 0 && seconds > 0 => format!("{sign}{}m", seconds / 60),
        seconds => format!("{sign}{seconds}s"),
    }
}
