//! One connection, the table of them, and the words for how one ends.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes};
use libp2p_identity::PeerId;
use quinn_proto::{
    ConnectionError, ConnectionEvent, ConnectionHandle, Dir, FinishError, StreamId, TransportError,
    TransportErrorCode, VarInt,
};

use super::{PathStats, Read, ReadError, Taken, WriteError, clock::StdInstant, congestion};
use crate::{
    errors::CloseReason,
    ids::{Id as _, QuicId, SocketId},
    time::Instant,
};

/// Largest chunk that quinn-proto is given: it holds a chunk until all of it is acknowledged.
const MAX_CHUNK: usize = 64 * 1024;

/// As much of a remote's closing words as is kept, in bytes.
const MAX_REASON: usize = 128;

pub(super) struct Connection {
    pub(super) quinn: quinn_proto::Connection,
    /// The socket it was last heard on.
    pub(super) socket: SocketId,
    /// Where the other side was when that was last reported.
    pub(super) remote: SocketAddr,
    pub(super) outbound: bool,
    pub(super) phase: Phase,
    /// Whether it is queued to have its events taken.
    pub(super) touched: bool,
    /// Whether it is queued to be asked for packets.
    pub(super) dirty: bool,
    /// Whether it is queued to have its deadline looked up.
    pub(super) stale_timer: bool,
}

pub(super) enum Phase {
    Handshaking {
        deadline: Instant,
        expected: Option<PeerId>,
        /// Why we refused the peer, if we did.
        refusal: Option<Box<dyn Fn() -> Option<CloseReason> + Send>>,
    },
    Connected(PeerId),
    /// Its end has been reported.
    Closing,
}

impl Connection {
    pub(super) fn new(
        quinn: quinn_proto::Connection,
        socket: SocketId,
        remote: SocketAddr,
        outbound: bool,
        phase: Phase,
    ) -> Self {
        Self { quinn, socket, remote, outbound, phase, touched: false, dirty: false, stale_timer: false }
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.phase {
            Phase::Connected(peer) => Some(peer),
            Phase::Handshaking { .. } | Phase::Closing => None,
        }
    }

    /// Takes what a datagram brought. Returns whether it is from the peer beyond doubt and came on another socket than those
    /// before it: not every datagram with a connection's id is of its peer, and only one that could be decrypted is.
    pub(super) fn handle(&mut self, event: ConnectionEvent, socket: SocketId) -> bool {
        let before = (self.socket != socket).then(|| frames_received(&self.quinn));
        self.quinn.handle_event(event);
        before.is_some_and(|before| frames_received(&self.quinn) > before)
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }

    /// When the handshake must be complete, if it is under way.
    pub(super) fn handshake_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Handshaking { deadline, .. } => Some(deadline),
            Phase::Connected(_) | Phase::Closing => None,
        }
    }

    /// Closes with an application error code; whatever the congestion window says, the peer is told at once.
    pub(super) fn close(&mut self, at: StdInstant, code: u64, reason: &[u8]) {
        self.quinn.close(at, varint(code), Bytes::copy_from_slice(reason));
        congestion::open_window(&self.quinn);
    }

    /// Grants the peer more streams, `most` at most, if it has more than a quarter of them open: early enough that those
    /// it opens until it hears of it do not use up the rest. Returns whether it is to be told.
    pub(super) fn grant_streams(&mut self, most: u32) -> bool {
        let granted = self.quinn.max_concurrent_streams(Dir::Bi);
        let is_short = 4 * self.quinn.streams().remote_open_streams(Dir::Bi) > granted;
        if !is_short || granted >= u64::from(most) {
            return false;
        }
        self.quinn.set_max_concurrent_streams(Dir::Bi, varint((2 * granted).min(most.into())));
        true
    }

    /// How many bytes may be under way to us from now on.
    pub(super) fn set_window(&mut self, bytes: u64) {
        self.quinn.set_receive_window(varint(bytes));
    }

    /// What has been read, and whether the peer is to be told of it.
    pub(super) fn read(&mut self, stream: u64, max: usize) -> (Result<Read, ReadError>, bool) {
        let Some(id) = bidirectional(stream) else { return (Err(ReadError::Gone), false) };
        let mut stream = self.quinn.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return (Err(ReadError::Gone), false) };
        let read = match chunks.next(max.max(1)) {
            Ok(Some(chunk)) => Ok(Read::Data(chunk.bytes)),
            Ok(None) => Ok(Read::Finished),
            Err(quinn_proto::ReadError::Blocked) => Ok(Read::Blocked),
            Err(quinn_proto::ReadError::Reset(code)) => Err(ReadError::Reset(code.into_inner())),
        };
        (read, chunks.finalize().should_transmit())
    }

    /// Reads up to `most` bytes chunk by chunk, and whether the peer is to be told of it. quinn-proto looks the stream up and
    /// counts what was read once for all of them.
    pub(super) fn take(
        &mut self,
        stream: u64,
        most: usize,
        mut each: impl FnMut(Bytes),
    ) -> (Result<Taken, ReadError>, bool) {
        let Some(id) = bidirectional(stream) else { return (Err(ReadError::Gone), false) };
        let mut stream = self.quinn.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return (Err(ReadError::Gone), false) };
        let mut left = most;
        let taken = loop {
            if left == 0 {
                break Ok(Taken::Most);
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    each(chunk.bytes);
                }
                Ok(None) => break Ok(Taken::Finished),
                Err(quinn_proto::ReadError::Blocked) => break Ok(Taken::Blocked),
                Err(quinn_proto::ReadError::Reset(code)) => break Err(ReadError::Reset(code.into_inner())),
            }
        };
        (taken, chunks.finalize().should_transmit())
    }

    /// Takes what there is room for off the front of `data`. If that is not all, quinn-proto has been told that there is
    /// more: it says that a stream is writable only to those that it has refused.
    pub(super) fn write(&mut self, stream: u64, data: &mut Bytes) -> Result<usize, WriteError> {
        let id = bidirectional(stream).ok_or(WriteError::Gone)?;
        let mut written = 0;
        while !data.is_empty() {
            let piece = if data.len() > MAX_CHUNK { data.slice(..MAX_CHUNK) } else { data.clone() };
            match self.quinn.send_stream(id).write_chunks(&mut [piece]) {
                Ok(taken) => {
                    data.advance(taken.bytes);
                    written += taken.bytes;
                }
                Err(quinn_proto::WriteError::Blocked) if written > 0 => break,
                Err(error) => return Err(write_error(error)),
            }
        }
        Ok(written)
    }

    pub(super) fn path_stats(&self) -> PathStats {
        let quinn_proto::ConnectionStats { udp_tx, udp_rx, path, .. } = self.quinn.stats();
        PathStats {
            rtt: path.rtt,
            mtu: path.current_mtu,
            congestion_window: path.cwnd,
            in_flight: congestion::in_flight(&self.quinn),
            congestion_events: path.congestion_events,
            lost_packets: path.lost_packets,
            lost_bytes: path.lost_bytes,
            datagrams_sent: udp_tx.datagrams,
            bytes_sent: udp_tx.bytes,
            datagrams_received: udp_rx.datagrams,
            bytes_received: udp_rx.bytes,
        }
    }

    pub(super) fn finish(&mut self, stream: u64) -> Result<(), WriteError> {
        let id = bidirectional(stream).ok_or(WriteError::Gone)?;
        self.quinn.send_stream(id).finish().map_err(|error| match error {
            FinishError::Stopped(code) => WriteError::Stopped(code.into_inner()),
            FinishError::ClosedStream => WriteError::Gone,
        })
    }

    pub(super) fn reset(&mut self, stream: u64, code: u64) {
        if let Some(id) = bidirectional(stream) {
            // An error says that nothing is left to reset.
            let _ = self.quinn.send_stream(id).reset(varint(code));
        }
    }

    pub(super) fn stop(&mut self, stream: u64, code: u64) {
        if let Some(id) = bidirectional(stream) {
            // An error says that nothing is left to stop.
            let _ = self.quinn.recv_stream(id).stop(varint(code));
        }
    }
}

/// How many frames have come in packets that could be decrypted, of the kinds that packets cannot do without.
fn frames_received(quinn: &quinn_proto::Connection) -> u64 {
    let f = quinn.stats().frame_rx;
    let control = f.ping + f.acks + f.crypto + f.connection_close + f.path_challenge + f.path_response;
    let flow = f.max_data + f.max_stream_data + f.max_streams_bidi + f.max_streams_uni;
    let blocked = f.data_blocked + f.stream_data_blocked + f.streams_blocked_bidi + f.streams_blocked_uni;
    let ids = f.new_connection_id + f.retire_connection_id + f.new_token + u64::from(f.handshake_done);
    let streams = f.stream + f.reset_stream + f.stop_sending;
    control + flow + blocked + ids + streams + f.ack_frequency + f.immediate_ack + f.datagram
}

/// quinn-proto panics on the half that a unidirectional stream does not have.
fn bidirectional(stream: u64) -> Option<StreamId> {
    VarInt::from_u64(stream).ok().map(StreamId::from).filter(|id| id.dir() == Dir::Bi)
}

/// Application error codes above the largest integer of QUIC become it.
fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn write_error(error: quinn_proto::WriteError) -> WriteError {
    match error {
        quinn_proto::WriteError::Blocked => WriteError::Blocked,
        quinn_proto::WriteError::Stopped(code) => WriteError::Stopped(code.into_inner()),
        quinn_proto::WriteError::ClosedStream => WriteError::Gone,
    }
}

/// Why a connection ended, in our words.
pub(super) fn close_reason(error: &ConnectionError, was_connected: bool) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            CloseReason::Remote { code: close.error_code.into_inner(), text: shorten(&close.reason) }
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED && !was_connected =>
        {
            CloseReason::ConnectionRefused
        }
        ConnectionError::ConnectionClosed(close) => {
            let text = format!("{} (says the remote: {})", close.error_code, shorten(&close.reason));
            during_handshake(close.error_code, was_connected, text)
        }
        ConnectionError::TransportError(error) => {
            let TransportError { code, .. } = error;
            during_handshake(*code, was_connected, error.to_string())
        }
        ConnectionError::Reset => CloseReason::Reset,
        ConnectionError::TimedOut => CloseReason::TimedOut,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::VersionMismatch => CloseReason::Handshake("no QUIC version in common".into()),
        ConnectionError::CidsExhausted => CloseReason::Transport("no connection ids left".into()),
    }
}

fn during_handshake(code: TransportErrorCode, was_connected: bool, text: String) -> CloseReason {
    /// `CRYPTO_ERROR`, RFC 9000 section 20.1.
    const CRYPTO: std::ops::Range<u64> = 0x100..0x200;
    if CRYPTO.contains(&u64::from(code)) || !was_connected {
        CloseReason::Handshake(text)
    } else {
        CloseReason::Transport(text)
    }
}

/// A remote's words, cut to size and stripped of control characters.
fn shorten(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_REASON)]);
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Connections by quinn-proto's own handles.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    /// Boxed, for it takes kilobytes, which an empty slot need not hold and a growing table need not move.
    connection: Option<Box<Connection>>,
}

impl Table {
    pub(super) fn insert(&mut self, handle: ConnectionHandle, connection: Connection) -> QuicId {
        if handle.0 >= self.slots.len() {
            self.slots.resize_with(handle.0 + 1, Slot::default);
        }
        let slot = &mut self.slots[handle.0];
        debug_assert!(
            slot.connection.is_none(),
            "quinn-proto reuses a handle only after we have let go of it"
        );
        slot.connection = Some(Box::new(connection));
        self.len += 1;
        QuicId::from_parts(handle.0 as u32, slot.generation)
    }

    pub(super) fn remove(&mut self, id: QuicId) -> Option<Box<Connection>> {
        let slot =
            self.slots.get_mut(id.index() as usize).filter(|slot| slot.generation == id.generation())?;
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.len -= 1;
        Some(connection)
    }

    pub(super) fn get(&self, id: QuicId) -> Option<&Connection> {
        let slot = self.slots.get(id.index() as usize)?;
        slot.connection.as_deref().filter(|_| slot.generation == id.generation())
    }

    pub(super) fn get_mut(&mut self, id: QuicId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index() as usize)?;
        slot.connection.as_deref_mut().filter(|_| slot.generation == id.generation())
    }

    /// The id of a connection that quinn-proto routed to.
    pub(super) fn id(&self, handle: ConnectionHandle) -> Option<QuicId> {
        let slot = self.slots.get(handle.0)?;
        slot.connection.is_some().then(|| QuicId::from_parts(handle.0 as u32, slot.generation))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = QuicId> + '_ {
        (0..self.slots.len()).filter_map(|index| self.id(ConnectionHandle(index)))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// quinn-proto's handle of a connection.
pub(super) fn handle(id: QuicId) -> ConnectionHandle {
    ConnectionHandle(id.index() as usize)
}
