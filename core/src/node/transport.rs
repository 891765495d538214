//! Byte pipes under the streams: QUIC connections and circuits behind one face.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::circuits::Circuits;
use crate::{
    errors::{OpenError, StreamFault},
    ids::{CircuitId, ConnectionId, ConnectionShare, JobId, QuicId, StreamId},
    quic::{self, Quic},
    rng::{HashKeys, Map},
    streams::{Read, Taken, WriteFault, windows::Window},
    time::Instant,
    upgrade,
};

/// The application error code of resets and stops that have nothing to say.
pub(crate) const RESET_CODE: u64 = 0;

/// The least number of a stream that waits for the peer to grant it; QUIC's own are below it (RFC 9000 section 16).
const WAITING: u64 = 1 << 62;

/// Most streams of one connection that may wait so.
const MAX_WAITING: u64 = 1024;

/// What a connection runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Quic(QuicId),
    Circuit(CircuitId),
}

/// What a QUIC connection is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuicUse {
    /// An attempt of a dial.
    Dialing(JobId),
    /// A connection.
    Connected(ConnectionId),
    /// Closed by us; its end concerns nobody.
    Abandoned,
}

/// What the transport keeps of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) via: Via,
    /// What it takes of the limited resources.
    pub(crate) share: ConnectionShare,
    /// Its streams by their number within it; behind them those that wait to be granted, in the order they were opened.
    pub(crate) streams: BTreeMap<u64, StreamId>,
    /// How many of them are inbound and have not agreed on a protocol.
    pub(crate) negotiating: usize,
    /// Why the remote gave streams up that their owners have not been told of; of those of circuits, whose muxer forgets
    /// them at once.
    pub(crate) resets: BTreeMap<u64, u64>,
    /// How much the peer may have under way, where that follows what circuits need.
    pub(crate) window: Option<Window>,
    /// Whether the remote's library may miss the end of a stream that comes before its handler listens; until identify
    /// tells which it is.
    pub(crate) may_miss_ends: bool,
}

/// All byte pipes of a node.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) now: Instant,
    pub(crate) quic: Quic,
    pub(crate) circuits: Circuits,
    pub(crate) links: Map<ConnectionId, Link>,
    /// What a QUIC connection is to us. Inbound ones are not here before they have a peer.
    pub(crate) by_quic: Map<QuicId, QuicUse>,
    /// Circuits that have something to do.
    pub(crate) busy_circuits: VecDeque<CircuitId>,
}

impl Link {
    /// The number of one more stream that waits to be granted.
    fn next_waiting(&self) -> Option<u64> {
        let mut waiting = self.streams.range(WAITING..).map(|(number, _)| *number);
        let Some(first) = waiting.next() else { return Some(WAITING) };
        let next = waiting.next_back().unwrap_or(first) + 1;
        (next - first < MAX_WAITING).then_some(next)
    }
}

impl Transport {
    pub(crate) fn new(now: Instant, quic: Quic, mut keys: impl FnMut() -> HashKeys) -> Self {
        Self {
            now,
            quic,
            circuits: Circuits::default(),
            links: Map::with_hasher(keys()),
            by_quic: Map::with_hasher(keys()),
            busy_circuits: VecDeque::new(),
        }
    }

    /// Opens a stream; returns its number within the connection. A stream that the peer does not grant yet has a number
    /// that [`Transport::granted`] replaces: until then nothing can be read from it and it takes no bytes.
    pub(crate) fn open(&mut self, connection: ConnectionId) -> Result<u64, OpenError> {
        match self.via(connection).ok_or(OpenError::NoConnection)? {
            Via::Quic(id) => match self.quic.open(self.now, id) {
                Ok(number) => Ok(number),
                Err(quic::OpenError::Blocked) => {
                    let link = self.links.get(&connection).ok_or(OpenError::NoConnection)?;
                    link.next_waiting().ok_or(OpenError::StreamLimit)
                }
                Err(_) => Err(OpenError::NoConnection),
            },
            Via::Circuit(id) => {
                let mux = self.circuit(id).ok_or(OpenError::NoConnection)?;
                mux.open().map(|stream| u64::from(stream.get())).map_err(|error| match error {
                    upgrade::OpenError::Closed => OpenError::NoConnection,
                    _ => OpenError::StreamLimit,
                })
            }
        }
    }

    /// The first of the streams that wait, and the number that it has from now on, if the peer grants one.
    pub(crate) fn granted(&mut self, connection: ConnectionId) -> Option<(StreamId, u64)> {
        let Some(Via::Quic(id)) = self.via(connection) else { return None };
        let link = self.links.get_mut(&connection)?;
        let (&waiting, &stream) = link.streams.range(WAITING..).next()?;
        let number = self.quic.open(self.now, id).ok()?;
        link.streams.remove(&waiting);
        link.streams.insert(number, stream);
        Some((stream, number))
    }

    /// Takes up to `max` bytes.
    pub(crate) fn read(
        &mut self,
        connection: ConnectionId,
        number: u64,
        max: usize,
    ) -> Result<Read, StreamFault> {
        match self.via(connection).ok_or(StreamFault::ConnectionLost)? {
            Via::Quic(_) if number >= WAITING => Ok(Read::Blocked),
            Via::Quic(id) => match self.quic.read(self.now, id, number, max) {
                Ok(quic::Read::Data(data)) => Ok(Read::Data(data)),
                Ok(quic::Read::Blocked) => Ok(Read::Blocked),
                Ok(quic::Read::Finished) => Ok(Read::Finished),
                Err(quic::ReadError::Reset(code)) => Err(StreamFault::Remote(code)),
                Err(_) => Err(StreamFault::ConnectionLost),
            },
            Via::Circuit(id) => {
                let stream = mux_stream(number);
                let mux = self.circuit(id).ok_or(StreamFault::ConnectionLost)?;
                match mux.read(stream, max) {
                    Ok(upgrade::Read::Data(data)) => Ok(Read::Data(data)),
                    Ok(upgrade::Read::Blocked) => Ok(Read::Blocked),
                    Ok(upgrade::Read::Finished) => Ok(Read::Finished),
                    Err(_) => Err(self.reset_by_remote(connection, number)),
                }
            }
        }
    }

    /// Hands over up to `most` bytes, chunk by chunk.
    pub(crate) fn take(
        &mut self,
        connection: ConnectionId,
        number: u64,
        most: usize,
        mut each: impl FnMut(Bytes),
    ) -> Result<Taken, StreamFault> {
        if let Some(Via::Quic(id)) = self.via(connection).filter(|_| number < WAITING) {
            return match self.quic.take(self.now, id, number, most, each) {
                Ok(quic::Taken::Most) => Ok(Taken::Most),
                Ok(quic::Taken::Blocked) => Ok(Taken::Blocked),
                Ok(quic::Taken::Finished) => Ok(Taken::Finished),
                Err(quic::ReadError::Reset(code)) => Err(StreamFault::Remote(code)),
                Err(_) => Err(StreamFault::ConnectionLost),
            };
        }
        let mut left = most;
        while left > 0 {
            match self.read(connection, number, left)? {
                Read::Data(chunk) => {
                    left -= chunk.len();
                    each(chunk);
                }
                Read::Blocked => return Ok(Taken::Blocked),
                Read::Finished => return Ok(Taken::Finished),
            }
        }
        Ok(Taken::Most)
    }

    /// Takes a prefix off `data`; 0 means blocked.
    pub(crate) fn write(
        &mut self,
        connection: ConnectionId,
        number: u64,
        data: &mut Bytes,
    ) -> Result<usize, WriteFault> {
        const LOST: WriteFault = WriteFault::Lost(StreamFault::ConnectionLost);
        match self.via(connection).ok_or(LOST)? {
            Via::Quic(_) if number >= WAITING => Ok(0),
            Via::Quic(id) => match self.quic.write(self.now, id, number, data) {
                Ok(taken) => Ok(taken),
                Err(quic::WriteError::Blocked) => Ok(0),
                Err(quic::WriteError::Stopped(code)) => Err(WriteFault::Stopped(code)),
                Err(_) => Err(LOST),
            },
            Via::Circuit(id) => {
                let mux = self.circuit(id).ok_or(LOST)?;
                match mux.write(mux_stream(number), data) {
                    Ok(taken) => Ok(taken),
                    Err(upgrade::WriteError::Blocked) => Ok(0),
                    Err(upgrade::WriteError::Stopped) => Err(WriteFault::Stopped(RESET_CODE)),
                    Err(_) => Err(WriteFault::Lost(self.reset_by_remote(connection, number))),
                }
            }
        }
    }

    /// Ends our direction.
    pub(crate) fn finish(&mut self, connection: ConnectionId, number: u64) {
        match self.via(connection) {
            // A stream that cannot be finished has been stopped or reset, which its owner learns.
            Some(Via::Quic(id)) => _ = self.quic.finish(self.now, id, number),
            Some(Via::Circuit(id)) => {
                if let Some(mux) = self.circuit(id) {
                    _ = mux.finish(mux_stream(number));
                }
            }
            None => {}
        }
    }

    /// Gives up the remote's direction, with a code that tells the remote why if the transport has a place for it.
    pub(crate) fn stop(&mut self, connection: ConnectionId, number: u64, code: u64) {
        match self.via(connection) {
            Some(Via::Quic(id)) => self.quic.stop(self.now, id, number, code),
            Some(Via::Circuit(id)) => {
                if let Some(mux) = self.circuit(id) {
                    mux.stop(mux_stream(number));
                }
            }
            None => {}
        }
    }

    /// The smoothed round-trip time, where there is one.
    pub(crate) fn rtt(&self, connection: ConnectionId) -> Option<Duration> {
        match self.via(connection)? {
            Via::Quic(id) => self.quic.rtt(id),
            Via::Circuit(_) => None,
        }
    }

    /// Gives up our direction, where the directions end apart.
    pub(crate) fn reset_ours(&mut self, connection: ConnectionId, number: u64) {
        match self.via(connection) {
            Some(Via::Quic(id)) => self.quic.reset(self.now, id, number, RESET_CODE),
            Some(Via::Circuit(_)) => self.reset(connection, number, RESET_CODE),
            None => {}
        }
    }

    /// Gives up both directions, with a code that tells the remote why if the transport has a place for it.
    pub(crate) fn reset(&mut self, connection: ConnectionId, number: u64, code: u64) {
        match self.via(connection) {
            Some(Via::Quic(id)) => {
                self.quic.reset(self.now, id, number, code);
                self.quic.stop(self.now, id, number, code);
            }
            Some(Via::Circuit(id)) => {
                if let Some(mux) = self.circuit(id) {
                    mux.reset_with(mux_stream(number), u32::try_from(code).unwrap_or(0));
                }
            }
            None => {}
        }
    }

    /// The remote gave up a stream of a circuit.
    pub(crate) fn note_reset(&mut self, connection: ConnectionId, number: u64, code: u64) {
        if let Some(link) = self.links.get_mut(&connection).filter(|link| link.streams.contains_key(&number))
        {
            link.resets.insert(number, code);
        }
    }

    fn reset_by_remote(&self, connection: ConnectionId, number: u64) -> StreamFault {
        let code = self.links.get(&connection).and_then(|link| link.resets.get(&number));
        StreamFault::Remote(code.copied().unwrap_or(RESET_CODE))
    }

    /// Which stream has this number, if it is known to the stream layer.
    pub(crate) fn stream(&self, connection: ConnectionId, number: u64) -> Option<StreamId> {
        self.links.get(&connection)?.streams.get(&number).copied()
    }

    /// The circuit's multiplexed connection, which will be looked after in this turn.
    fn circuit(&mut self, id: CircuitId) -> Option<&mut upgrade::SecuredConnection> {
        let circuit = self.circuits.get_mut(id)?;
        if !std::mem::replace(&mut circuit.scheduled, true) {
            self.busy_circuits.push_back(id);
        }
        Some(&mut circuit.mux)
    }

    fn via(&self, connection: ConnectionId) -> Option<Via> {
        self.links.get(&connection).map(|link| link.via)
    }
}

/// Numbers of circuit streams come from the muxer, where they have 32 bits.
fn mux_stream(number: u64) -> upgrade::MuxStream {
    upgrade::MuxStream::new(number as u32)
}
