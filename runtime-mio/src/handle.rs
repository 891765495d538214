//! Commands from other threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use mio::Waker;
use peerless_core::{node::Node, time::Instant};

/// What a [`Handle`] sends to the thread of the runtime.
pub(crate) type Command = Box<dyn FnOnce(&mut Node, Instant) + Send>;

/// Reaches a [`Runtime`](crate::Runtime) from any thread. Cheap to clone; it does not keep the runtime alive.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
    pub(crate) stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

/// Why a command was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// As many commands wait as [`RuntimeConfig::command_queue`](crate::RuntimeConfig::command_queue) allows.
    #[error("too many commands wait for the runtime")]
    Full,
    /// The runtime is gone.
    #[error("the runtime is gone")]
    Gone,
    /// The runtime did not come to the command in time. It may run it yet.
    #[error("the runtime does not answer")]
    TimedOut,
}

impl Handle {
    /// The handle, and the end where its commands come out.
    pub(crate) fn new(waker: Arc<Waker>, queue: usize) -> (Self, Receiver<Command>) {
        let (commands, receiver) = sync_channel(queue.max(1));
        (Self { commands, stop: Arc::default(), waker }, receiver)
    }

    /// Runs `command` on the runtime's thread, soon, and does not wait for it.
    ///
    /// # Errors
    /// The queue is full, or the runtime is gone; the command was not run and will not be.
    pub fn send(&self, command: impl FnOnce(&mut Node, Instant) + Send + 'static) -> Result<(), HandleError> {
        self.commands.try_send(Box::new(command)).map_err(|error| match error {
            TrySendError::Full(_) => HandleError::Full,
            TrySendError::Disconnected(_) => HandleError::Gone,
        })?;
        self.wake();
        Ok(())
    }

    /// As [`send`](Self::send), but waits until there is room in the queue.
    pub(crate) fn send_wait(&self, command: Command) -> Result<(), HandleError> {
        self.commands.send(command).map_err(|_| HandleError::Gone)?;
        self.wake();
        Ok(())
    }

    /// Runs `command` on the runtime's thread and waits for what it returns. Must not be called on that thread.
    ///
    /// # Errors
    /// The runtime went away before it came to the command.
    pub fn call<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Node, Instant) -> R + Send + 'static,
    ) -> Result<R, HandleError> {
        let (command, result) = answered(command);
        self.send_wait(command)?;
        result.recv().map_err(|_| HandleError::Gone)
    }

    /// As [`call`](Self::call), but waits for `timeout` at most.
    ///
    /// # Errors
    /// As `call`, [`HandleError::TimedOut`], and [`HandleError::Full`].
    pub fn call_within<R: Send + 'static>(
        &self,
        timeout: Duration,
        command: impl FnOnce(&mut Node, Instant) -> R + Send + 'static,
    ) -> Result<R, HandleError> {
        let (command, result) = answered(command);
        self.send(command)?;
        result.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => HandleError::TimedOut,
            RecvTimeoutError::Disconnected => HandleError::Gone,
        })
    }

    /// Begins a graceful shutdown, as [`Runtime::shutdown`](crate::Runtime::shutdown) does. Never fails and never
    /// blocks, so that it may be called when a signal comes.
    pub fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "the runtime cannot be woken; it goes on at its next deadline");
        }
    }
}

/// A command, and where what it returns comes out.
fn answered<R: Send + 'static>(
    command: impl FnOnce(&mut Node, Instant) -> R + Send + 'static,
) -> (Command, Receiver<R>) {
    let (reply, result) = sync_channel(1);
    // A caller that has gone away does not want it.
    (Box::new(move |node, now| _ = reply.send(command(node, now))), result)
}
