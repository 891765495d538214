//! Streams as [`AsyncRead`] and [`AsyncWrite`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use peerless_core::{
    PeerId,
    errors::StreamFault,
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{AppStreamEvent, Node, Read, StreamError},
    time::Instant,
};

use crate::handle::Handle;

/// Most bytes copied for one write.
const CHUNK: usize = 64 << 10;

/// What is known of a stream between the calls of its owner. No bytes: those stay in the node, whose windows hold up the
/// remote, so a stream that nobody reads stalls itself alone.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) connection: ConnectionId,
    /// A write found no room, and none has been announced since.
    full: bool,
    lost: Option<StreamFault>,
    /// The reader's and the writer's.
    wakers: [Option<Waker>; 2],
}

impl StreamState {
    pub(crate) fn new(connection: ConnectionId) -> Self {
        Self { connection, full: false, lost: None, wakers: [None, None] }
    }

    pub(crate) fn on_event(&mut self, event: &AppStreamEvent) {
        match event {
            AppStreamEvent::Writable => self.full = false,
            AppStreamEvent::Reset(fault) => self.lost = Some(fault.clone()),
            _ => {}
        }
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn wait<R>(&mut self, side: usize, cx: &mut Context<'_>) -> Poll<R> {
        self.wakers[side] = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Which stream it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Its id in the node.
    pub id: StreamId,
    /// The connection it belongs to.
    pub connection: ConnectionId,
    /// The authenticated remote.
    pub peer: PeerId,
    /// The protocol it was opened for.
    pub protocol: ProtocolName,
}

/// A stream with a peer: bytes both ways, in order.
///
/// Reads and writes go straight to the node's windows. [`close`](AsyncWrite::poll_close) ends our direction behind what
/// was written; the remote then reads the end. A stream that is dropped before that is reset. One that is dropped after
/// delivers what was written, and refuses what the remote still sends.
#[derive(Debug)]
pub struct Stream {
    handle: Handle,
    info: StreamInfo,
    read_ended: bool,
    write_ended: bool,
}

impl Stream {
    pub(crate) fn new(handle: Handle, info: StreamInfo) -> Self {
        Self { handle, info, read_ended: false, write_ended: false }
    }

    /// Which stream it is.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// A step on the node and what is known of this stream, unless that is lost.
    fn poll<R>(
        &self,
        step: impl FnOnce(&mut Node, &mut StreamState, Instant) -> Poll<Result<R, StreamError>>,
    ) -> Poll<io::Result<R>> {
        self.handle.shared().step(|state, now| {
            let stream = state.streams.get_mut(&self.info.id);
            let Some(stream) = stream else { return Poll::Ready(Err(StreamError::NoStream.into())) };
            let lost = stream.lost.clone().map(|fault| Poll::Ready(Err(StreamError::Lost(fault))));
            let result = lost.unwrap_or_else(|| step(&mut state.node, stream, now));
            if let Poll::Ready(Err(StreamError::Lost(fault))) = &result {
                stream.lost = Some(fault.clone());
            }
            if result.is_ready() {
                state.wake_driver();
            }
            result.map_err(io::Error::from)
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.read_ended || buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let read = self.poll(|node, stream, now| match node.read(now, self.info.id, buf.len())? {
            Read::Data(data) => {
                buf[..data.len()].copy_from_slice(&data);
                Poll::Ready(Ok(data.len()))
            }
            Read::Blocked => stream.wait(0, cx),
            Read::Finished => Poll::Ready(Ok(0)),
        });
        self.read_ended = matches!(read, Poll::Ready(Ok(0)));
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|node, stream, now| {
            let mut data = Bytes::copy_from_slice(&buf[..buf.len().min(CHUNK)]);
            let written = if stream.full { 0 } else { node.write(now, self.info.id, &mut data)? };
            stream.full = written == 0 && !buf.is_empty();
            if stream.full { stream.wait(1, cx) } else { Poll::Ready(Ok(written)) }
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
        self.poll(|node, _, now| Poll::Ready(node.finish(now, self.info.id)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let id = self.info.id;
        self.handle.shared().command(|state, now| {
            state.streams.remove(&id);
            if self.write_ended { state.node.stop(now, id) } else { state.node.reset(now, id) }
        });
    }
}
