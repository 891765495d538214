//! Streams as [`Read`] and [`Write`].

use std::{
    io::{self, Read, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use peerless_core::{
    PeerId,
    errors::StreamFault,
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{AppStreamEvent, Node, Read as NodeRead, StreamError},
    time::Instant,
};

use super::Handle;

/// Most bytes copied for one write.
const CHUNK: usize = 64 << 10;

/// Indices of what is kept for each direction.
const READ: usize = 0;
const WRITE: usize = 1;

/// What is known of a stream besides the bytes, which stay in the node: its windows hold up the remote, so a stream that
/// nobody reads stalls itself alone.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) connection: ConnectionId,
    lost: Option<StreamFault>,
    /// How often it may have become readable, and writable.
    changes: [u64; 2],
    pub(super) changed: Arc<Condvar>,
}

impl StreamState {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self { connection, lost: None, changes: [0; 2], changed: Arc::default() }
    }

    pub(super) fn on_event(&mut self, event: &AppStreamEvent) {
        match event {
            AppStreamEvent::Readable => self.changes[READ] += 1,
            AppStreamEvent::Writable => self.changes[WRITE] += 1,
            AppStreamEvent::Reset(fault) => {
                self.lost = Some(fault.clone());
                self.changes = self.changes.map(|count| count + 1);
            }
            _ => return,
        }
        self.changed.notify_all();
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

/// A stream, and what tells that it has changed.
pub(super) type Opened = (StreamInfo, Arc<Condvar>);

/// A stream with a peer: bytes both ways, in order.
///
/// Reads and writes go straight to the node's windows, and wait for them. Both work through a reference too, so that one
/// thread may read while another writes. A stream that is dropped before it was [finished](Self::finish) is reset. One
/// that is dropped after delivers what was written, and refuses what the remote still sends.
///
/// Errors are of these kinds: `TimedOut` (nothing is lost: try again), `ConnectionReset` (the remote gave the stream up),
/// `BrokenPipe` (written to after its end, or the remote reads no more), `ConnectionAborted` (the connection or the node
/// ended), `Unsupported` (the remote does not speak the protocol), `InvalidData` (it broke the negotiation).
#[derive(Debug)]
pub struct Stream {
    handle: Handle,
    info: StreamInfo,
    changed: Arc<Condvar>,
    timeouts: Mutex<[Option<Duration>; 2]>,
    read_ended: AtomicBool,
    write_ended: AtomicBool,
}

impl Stream {
    pub(super) fn new(handle: Handle, (info, changed): Opened) -> Self {
        let (timeouts, read_ended, write_ended) = Default::default();
        Self { handle, info, changed, timeouts, read_ended, write_ended }
    }

    /// Which stream it is.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// How long a read waits for something to come; `None`, the default, is as long as it takes.
    ///
    /// # Errors
    /// The timeout is zero (kind [`io::ErrorKind::InvalidInput`]).
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(READ, timeout)
    }

    /// How long a write waits for room; `None`, the default, is as long as it takes.
    ///
    /// # Errors
    /// The timeout is zero (kind [`io::ErrorKind::InvalidInput`]).
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(WRITE, timeout)
    }

    /// Ends our direction behind what was written; the remote then reads the end. It waits for nothing, and a second time
    /// changes nothing.
    ///
    /// # Errors
    /// The stream is lost, or the remote wants no more.
    pub fn finish(&self) -> io::Result<()> {
        let (id, again) = (self.info.id, self.write_ended.swap(true, Ordering::Relaxed));
        if again {
            return Ok(());
        }
        self.run(WRITE, move |node, now| node.finish(now, id).map(Some))
    }

    /// Gives both directions up, what was written and has not arrived included.
    pub fn reset(self) {
        self.write_ended.store(false, Ordering::Relaxed);
    }

    fn set_timeout(&self, side: usize, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a timeout must be longer than zero"));
        }
        self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)[side] = timeout;
        Ok(())
    }

    /// Repeats a step on the node until it is done (`Some`); in between waits until the stream has changed.
    fn run<R: Send + 'static>(
        &self,
        side: usize,
        step: impl Fn(&mut Node, Instant) -> Result<Option<R>, StreamError> + Clone + Send + 'static,
    ) -> io::Result<R> {
        let (shared, id) = (&self.handle.0.shared, self.info.id);
        let timeout = self.timeouts.lock().unwrap_or_else(PoisonError::into_inner)[side];
        let deadline = timeout.map(|timeout| shared.clock.now() + timeout);
        loop {
            // Counted before the step, so that what changes after it is not missed.
            let known = shared.lock().streams.get(&id).map(|s| (s.lost.clone(), s.changes[side]));
            let (lost, seen) = known.ok_or(StreamError::NoStream)?;
            if let Some(fault) = lost {
                return Err(StreamError::Lost(fault).into());
            }
            let result = self.handle.0.runtime.call(step.clone())?;
            if let Err(StreamError::Lost(fault)) = &result {
                // It was not told as an event, and is not told again.
                let lost = AppStreamEvent::Reset(fault.clone());
                shared.lock().streams.get_mut(&id).into_iter().for_each(|stream| stream.on_event(&lost));
            }
            if let Some(done) = result? {
                return Ok(done);
            }
            let left = deadline.map(|at| at.saturating_duration_since(shared.clock.now()));
            let has_changed = |state: &mut super::State| {
                state.streams.get(&id).is_none_or(|stream| stream.changes[side] != seen).then_some(())
            };
            shared.wait(&self.changed, left, has_changed).ok_or(io::ErrorKind::TimedOut)?;
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || self.read_ended.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let (id, max) = (self.info.id, buf.len());
        let read = self.run(READ, move |node, now| {
            Ok(match node.read(now, id, max)? {
                NodeRead::Data(data) => Some(data),
                NodeRead::Blocked => None,
                NodeRead::Finished => Some(Bytes::new()),
            })
        })?;
        self.read_ended.store(read.is_empty(), Ordering::Relaxed);
        buf[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }
}

impl Write for &Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let (id, data) = (self.info.id, Bytes::copy_from_slice(&buf[..buf.len().min(CHUNK)]));
        let written = move |node: &mut Node, now| node.write(now, id, &mut data.clone());
        self.run(WRITE, move |node, now| Ok(Some(written(node, now)?).filter(|written| *written > 0)))
    }

    /// Waits for nothing: what was written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (id, is_finished) = (self.info.id, *self.write_ended.get_mut());
        self.handle.0.shared.lock().streams.remove(&id);
        // A node that is gone has no streams.
        let _ = self.handle.0.runtime.send_wait(Box::new(move |node, now| {
            if is_finished { node.stop(now, id) } else { node.reset(now, id) }
        }));
    }
}
