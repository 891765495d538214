//! Streams as [`AsyncRead`] and [`AsyncWrite`].

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use peerless_core::{
    PeerId,
    behaviour::ProtocolName,
    event::{AppStreamEvent, StreamFault},
    ids::{ConnectionId, StreamId},
    node::{Node, Read, StreamError},
    time::Instant,
};

use crate::{
    driver::{Inbound, State},
    handle::Handle,
    wait::{Wakes, set},
};

/// Most bytes copied for one write.
const CHUNK: usize = 64 << 10;

/// What is known of a stream between the calls of its owner. No bytes: those stay in the node, whose windows hold up the
/// remote, so a stream that nobody reads stalls itself alone.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) connection: ConnectionId,
    agreed: bool,
    /// A write found no room, and none has been announced since.
    full: bool,
    lost: Option<StreamFault>,
    agreement: Option<Waker>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl StreamState {
    pub(crate) fn accepted(connection: ConnectionId) -> Self {
        Self { agreed: true, ..Self::opened(connection) }
    }

    pub(crate) fn opened(connection: ConnectionId) -> Self {
        let (agreement, reader, writer) = (None, None, None);
        Self { connection, agreed: false, full: false, lost: None, agreement, reader, writer }
    }

    pub(crate) fn on_event(&mut self, event: &AppStreamEvent, wakes: &mut Wakes) {
        match event {
            AppStreamEvent::Agreed => {
                self.agreed = true;
                wakes.extend(self.agreement.take());
            }
            AppStreamEvent::Readable => wakes.extend(self.reader.take()),
            AppStreamEvent::Writable => {
                self.full = false;
                wakes.extend(self.writer.take());
            }
            AppStreamEvent::Reset(fault) => self.lose(fault.clone(), wakes),
            _ => {}
        }
    }

    pub(crate) fn lose(&mut self, fault: StreamFault, wakes: &mut Wakes) {
        self.lost.get_or_insert(fault);
        wakes.extend([self.agreement.take(), self.reader.take(), self.writer.take()].into_iter().flatten());
    }

    pub(crate) fn wakers(&self) -> usize {
        [&self.agreement, &self.reader, &self.writer].into_iter().flatten().count()
    }
}

/// A stream with a peer: bytes both ways, in order.
///
/// Reads and writes go straight to the node's windows. [`close`](AsyncWrite::poll_close) ends our direction behind what
/// was written; the remote then reads the end. A stream that is dropped before that is reset. One that is dropped after
/// delivers what was written, and refuses what the remote still sends.
#[derive(Debug)]
pub struct Stream {
    handle: Handle,
    inbound: Inbound,
    read_ended: bool,
    write_ended: bool,
}

impl Stream {
    pub(crate) fn new(handle: Handle, inbound: Inbound) -> Self {
        Self { handle, inbound, read_ended: false, write_ended: false }
    }

    /// Its id in the node.
    pub fn id(&self) -> StreamId {
        self.inbound.stream
    }

    /// The connection it belongs to.
    pub fn connection(&self) -> ConnectionId {
        self.inbound.connection
    }

    /// The authenticated remote.
    pub fn peer(&self) -> PeerId {
        self.inbound.peer
    }

    /// The protocol it was opened for.
    pub fn protocol(&self) -> &ProtocolName {
        &self.inbound.protocol
    }

    /// Waits until the remote has agreed to the protocol. Needless before writing.
    ///
    /// # Errors
    /// The remote does not speak the protocol ([`io::ErrorKind::Unsupported`]), or the stream is lost.
    pub async fn agreed(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            self.poll(|_, stream, _, _| match stream.agreed {
                true => Poll::Ready(Ok(())),
                false => {
                    set(&mut stream.agreement, cx);
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// A step on the node and what is known of this stream, unless that is lost. The step says whether the driver has
    /// something to do then.
    fn poll<R>(
        &self,
        step: impl FnOnce(&mut Node, &mut StreamState, Instant, &mut bool) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        self.handle.shared().step(|state, now| {
            let State { node, streams, .. } = state;
            let Some(stream) = streams.get_mut(&self.inbound.stream) else {
                return Poll::Ready(Err(to_io(&StreamError::NoStream)));
            };
            if let Some(fault) = &stream.lost {
                return Poll::Ready(Err(fault_to_io(fault)));
            }
            let mut moved = false;
            let result = step(node, stream, now, &mut moved);
            if moved {
                state.wake_driver();
            }
            result
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.read_ended || buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let id = self.inbound.stream;
        let read = self.poll(|node, stream, now, moved| match node.read(now, id, buf.len()) {
            Ok(Read::Data(data)) => {
                *moved = true;
                buf[..data.len()].copy_from_slice(&data);
                Poll::Ready(Ok(data.len()))
            }
            Ok(Read::Blocked) => {
                set(&mut stream.reader, cx);
                Poll::Pending
            }
            Ok(Read::Finished) => Poll::Ready(Ok(0)),
            Err(error) => Poll::Ready(Err(stream.fail(&error))),
        });
        self.read_ended = matches!(read, Poll::Ready(Ok(0)));
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_ended {
            return Poll::Ready(Err(to_io(&StreamError::Finished)));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let id = self.inbound.stream;
        self.poll(|node, stream, now, moved| {
            let mut written = Ok(0);
            if !stream.full {
                let mut data = Bytes::copy_from_slice(&buf[..buf.len().min(CHUNK)]);
                written = node.write(now, id, &mut data);
                *moved = true;
            }
            match written {
                Ok(0) => {
                    stream.full = true;
                    set(&mut stream.writer, cx);
                    Poll::Pending
                }
                Ok(written) => Poll::Ready(Ok(written)),
                Err(error) => Poll::Ready(Err(stream.fail(&error))),
            }
        })
    }

    /// Ready at once: what was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready at once: the end follows what was written.
    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.write_ended, true) {
            return Poll::Ready(Ok(()));
        }
        let id = self.inbound.stream;
        self.poll(|node, stream, now, moved| {
            *moved = true;
            Poll::Ready(node.finish(now, id).map_err(|error| stream.fail(&error)))
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let id = self.inbound.stream;
        self.handle.shared().command(|state, now| {
            state.streams.remove(&id);
            match self.write_ended {
                true => state.node.stop(now, id),
                false => state.node.reset(now, id),
            }
        });
    }
}

impl StreamState {
    fn fail(&mut self, error: &StreamError) -> io::Error {
        if let StreamError::Lost(fault) = error {
            self.lost = Some(fault.clone());
        }
        to_io(error)
    }
}

fn to_io(error: &StreamError) -> io::Error {
    let kind = match error {
        StreamError::Lost(fault) => return fault_to_io(fault),
        // Our direction has ended, and perhaps the other one too, so that the node has forgotten the stream.
        _ => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error.clone())
}

fn fault_to_io(fault: &StreamFault) -> io::Error {
    let kind = match fault {
        StreamFault::Remote(_) => io::ErrorKind::ConnectionReset,
        StreamFault::ConnectionLost => io::ErrorKind::ConnectionAborted,
        StreamFault::Unsupported => io::ErrorKind::Unsupported,
        StreamFault::NegotiationTimeout => io::ErrorKind::TimedOut,
        StreamFault::Malformed(_) => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, fault.clone())
}
