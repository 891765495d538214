//! Local servers for few clients at a time, none of which may dawdle: each has a thread, every exchange an end, and when
//! there are too many the first that came makes room for the one that comes.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

/// Pause after no client could be accepted, for instance because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a client that has its answer may go on talking, and how many bytes.
const LINGER: Duration = Duration::from_secs(1);
const MAX_UNREAD: usize = 32 << 20;

/// A connection to a client.
pub(crate) trait Client: Send + Sync + 'static {
    /// Reads some bytes, and waits for `left` at most.
    fn read_within(&self, bytes: &mut [u8], left: Duration) -> io::Result<usize>;
    /// Writes some bytes, and waits for `left` at most.
    fn write_within(&self, bytes: &[u8], left: Duration) -> io::Result<usize>;
    /// Says that nothing more is written.
    fn finish(&self);
    /// Ends what is being read and written.
    fn hang_up(&self);
}

macro_rules! client {
    ($stream:ty) => {
        impl Client for $stream {
            fn read_within(&self, bytes: &mut [u8], left: Duration) -> io::Result<usize> {
                self.set_read_timeout(Some(left))?;
                (&*self).read(bytes)
            }

            fn write_within(&self, bytes: &[u8], left: Duration) -> io::Result<usize> {
                self.set_write_timeout(Some(left))?;
                (&*self).write(bytes)
            }

            fn finish(&self) {
                // It may have ended.
                let _ = self.shutdown(Shutdown::Write);
            }

            fn hang_up(&self) {
                // It may have ended.
                let _ = self.shutdown(Shutdown::Both);
            }
        }
    };
}

client!(TcpStream);
#[cfg(unix)]
client!(std::os::unix::net::UnixStream);

/// Converses with whom `accept` gives, with `most` at a time, on threads of its own until the process ends. `name` is that
/// of the threads.
pub(crate) fn serve<C: Client>(
    name: &'static str,
    most: usize,
    accept: impl Fn() -> io::Result<C> + Send + 'static,
    converse: impl Fn(&C) -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let converse = Arc::new(converse);
    let serve = move || {
        let mut served: VecDeque<Weak<C>> = VecDeque::new();
        loop {
            let Ok(client) = accept() else {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            served.retain(|client| client.strong_count() > 0);
            if served.len() >= most
                && let Some(first) = served.pop_front().and_then(|first| first.upgrade())
            {
                first.hang_up();
            }
            // Each thread holds a clone, also those that have not noticed that their client was hung up on.
            if Arc::strong_count(&converse) > 2 * most {
                continue;
            }
            let client = Arc::new(client);
            served.push_back(Arc::downgrade(&client));
            let converse = Arc::clone(&converse);
            let conversation = move || {
                if let Err(error) = converse(&client) {
                    tracing::debug!(%error, name, "a client got no answer");
                }
            };
            if let Err(error) = thread::Builder::new().name(name.into()).spawn(conversation) {
                tracing::warn!(%error, name, "no thread for a client");
            }
        }
    };
    thread::Builder::new().name(name.into()).spawn(serve)?;
    Ok(())
}

/// Writes all of `bytes` and ends. What the client still has to say is read and thrown away for a moment: if it were left, the
/// system would tell the client of an error, and that before it has read the answer.
pub(crate) fn answer(client: &impl Client, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
    write(client, bytes, deadline)?;
    client.finish();
    let (end, mut heard, mut buffer) = (Deadline::after(LINGER), 0, [0; 64 << 10]);
    while heard < MAX_UNREAD {
        // It has its answer, whatever happens now.
        let Ok(left) = end.left() else { break };
        match client.read_within(&mut buffer, left) {
            Ok(0) | Err(_) => break,
            Ok(n) => heard += n,
        }
    }
    Ok(())
}

fn write(client: &impl Client, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
    while !bytes.is_empty() {
        match client.write_within(bytes, deadline.left()?)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// When the other end has had its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

#[expect(clippy::disallowed_methods, reason = "runtimes read the clock")]
impl Deadline {
    pub(crate) fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// Fails if nothing is left.
    pub(crate) fn left(self) -> io::Result<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}
