//! What `peerless listen` serves on raw streams: `/perf/1.0.0` (libp2p specs, perf) and `/echo/1.0.0`.
//!
//! A stream holds one chunk at most: what cannot be written is not followed by a read, so the sender is held up.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerless_core::{
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{AppStreamEvent, Event, Node, Read, StreamError},
    time::Instant,
};

/// An 8-byte big-endian download size and an upload up to FIN one way; then that many bytes the other way.
pub(crate) const PERF: ProtocolName = ProtocolName::from_static("/perf/1.0.0");
/// The same bytes back, up to FIN.
pub(crate) const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
/// Inbound streams of each protocol that one peer may have open.
pub(crate) const STREAMS_PER_PEER: usize = 256;
/// Bytes read or written at once.
pub(crate) const CHUNK: usize = 64 * 1024;

/// What a perf stream is filled with.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// The next bytes of a perf stream that has `left` to send.
pub(crate) fn filling(left: u64) -> Bytes {
    Bytes::from_static(&ZEROS[..left.min(CHUNK as u64) as usize])
}

/// The streams being served.
#[derive(Debug, Default)]
pub(crate) struct App {
    streams: BTreeMap<StreamId, (ConnectionId, Service)>,
}

#[derive(Debug)]
enum Service {
    /// Holds what was read and not yet written back.
    Echo(Bytes),
    /// Has read that much of the download size.
    PerfSize([u8; 8], usize),
    /// Knows the size, and reads to the end of the upload.
    PerfUpload(u64),
    /// Has that much left to send.
    PerfDownload(u64),
}

/// What a stream can do next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Again,
    Wait,
    Done,
}

impl App {
    /// Follows the event if it is of a stream that is served.
    pub(crate) fn handle(&mut self, node: &mut Node, now: Instant, event: &Event) {
        match event {
            Event::Stream { stream, event } => self.stream(node, now, *stream, event),
            Event::Disconnected { connection, .. } => self.streams.retain(|_, (of, _)| of != connection),
            _ => {}
        }
    }

    fn stream(&mut self, node: &mut Node, now: Instant, stream: StreamId, event: &AppStreamEvent) {
        match event {
            AppStreamEvent::Accepted { connection, protocol, .. } => {
                let service = if *protocol == ECHO {
                    Service::Echo(Bytes::new())
                } else {
                    Service::PerfSize([0; 8], 0)
                };
                self.streams.insert(stream, (*connection, service));
            }
            AppStreamEvent::Reset(_) => {
                self.streams.remove(&stream);
                return;
            }
            _ => {}
        }
        let Some((_, service)) = self.streams.get_mut(&stream) else { return };
        let done = loop {
            match service.step(node, now, stream) {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return,
                Ok(Step::Done) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = done {
            tracing::debug!(%stream, %error, "stream given up");
            node.reset(now, stream);
        }
        self.streams.remove(&stream);
    }
}

impl Service {
    fn step(&mut self, node: &mut Node, now: Instant, stream: StreamId) -> Result<Step, StreamError> {
        match self {
            Self::Echo(held) if !held.is_empty() => {
                Ok(if node.write(now, stream, held)? == 0 { Step::Wait } else { Step::Again })
            }
            Self::Echo(held) => match node.read(now, stream, CHUNK)? {
                Read::Data(data) => {
                    *held = data;
                    Ok(Step::Again)
                }
                Read::Blocked => Ok(Step::Wait),
                Read::Finished => finish(node, now, stream),
            },
            Self::PerfSize(size, filled) => match node.read(now, stream, size.len() - *filled)? {
                Read::Data(data) => {
                    size[*filled..*filled + data.len()].copy_from_slice(&data);
                    *filled += data.len();
                    if *filled == size.len() {
                        *self = Self::PerfUpload(u64::from_be_bytes(*size));
                    }
                    Ok(Step::Again)
                }
                Read::Blocked => Ok(Step::Wait),
                // No size, no download.
                Read::Finished => finish(node, now, stream),
            },
            Self::PerfUpload(size) => match node.read(now, stream, CHUNK)? {
                Read::Data(_) => Ok(Step::Again),
                Read::Blocked => Ok(Step::Wait),
                Read::Finished => {
                    *self = Self::PerfDownload(*size);
                    Ok(Step::Again)
                }
            },
            Self::PerfDownload(0) => finish(node, now, stream),
            Self::PerfDownload(left) => {
                let written = node.write(now, stream, &mut filling(*left))?;
                *left -= written as u64;
                Ok(if written == 0 { Step::Wait } else { Step::Again })
            }
        }
    }
}

fn finish(node: &mut Node, now: Instant, stream: StreamId) -> Result<Step, StreamError> {
    node.finish(now, stream)?;
    Ok(Step::Done)
}
