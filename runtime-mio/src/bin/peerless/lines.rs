//! Lines on their way out: a bounded queue, and a writer with a thread of its own, so that a reader who stalls holds
//! nobody up.
//!
//! What finds no room is dropped and counted, and the next line that gets through is preceded by one that says how many
//! were. When writing fails, lines are kept until another one comes, with which it is tried again.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, ErrorKind, Write},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Most lines that wait.
const MAX_LINES: usize = 1024;
/// Most bytes that wait, unless a single line has more.
const MAX_BYTES: usize = 1 << 20;
/// Pause before a descriptor that would block is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// How long lines that nobody waits for may take to get out at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The queue to one place. It lives as long as the process.
pub(crate) struct Lines {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: AtomicU64,
    /// How a reader is told that so many lines were dropped.
    notice: fn(u64) -> String,
    /// Told when writing begins to fail.
    failed: Box<dyn Fn(&io::Error) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    lines: usize,
    bytes: usize,
    /// One more is with the writer.
    is_writing: bool,
    /// The last write failed, and no line has come since.
    is_failing: bool,
    /// Whether the process was told to end.
    is_interrupted: bool,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Here so many had no room.
    Dropped(u64),
}

impl Lines {
    /// Writes to `sink` what is put in.
    pub(crate) fn start(
        sink: impl Write + Send + 'static,
        notice: fn(u64) -> String,
        failed: impl Fn(&io::Error) + Send + Sync + 'static,
    ) -> io::Result<&'static Self> {
        let lines: &'static Self = Box::leak(Box::new(Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            dropped: AtomicU64::new(0),
            notice,
            failed: Box::new(failed),
        }));
        thread::Builder::new().name("lines".into()).spawn(move || lines.write_to(sink))?;
        Ok(lines)
    }

    /// Puts in a line, or drops it if there is no room. Never waits.
    pub(crate) fn offer(&self, line: &str) {
        let mut queue = self.lock();
        let has_room = queue.has_room();
        if has_room {
            queue.push(line);
        } else {
            queue.drop_one();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Puts in a line that must not get lost, whether there is room or not. Never waits: whoever has many of them asks
    /// [`room`](Self::room) first.
    pub(crate) fn put(&self, line: &str) {
        self.lock().push(line);
        self.changed.notify_all();
    }

    /// Whether there is room for more lines.
    pub(crate) fn room(&self) -> Room {
        let queue = self.lock();
        if queue.is_failing {
            Room::Never
        } else if queue.has_room() {
            Room::Yes
        } else {
            Room::NotYet
        }
    }

    /// How many lines were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The process is to end: nobody waits for readers any more.
    pub(crate) fn interrupt(&self) {
        self.lock().is_interrupted = true;
        self.changed.notify_all();
    }

    /// Waits until all lines are out, or writing fails. `patiently` is as long as the reader takes if no signal comes;
    /// else it is for a second at most.
    #[expect(clippy::disallowed_methods, reason = "runtimes read the clock")]
    pub(crate) fn flush(&self, patiently: bool) {
        let mut queue = self.lock();
        let mut end = None;
        while !queue.is_failing && (queue.is_writing || !queue.entries.is_empty()) {
            queue = if patiently && !queue.is_interrupted {
                self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else {
                let now = Instant::now();
                let left = end.get_or_insert(now + LAST_WORDS).saturating_duration_since(now);
                if left.is_zero() {
                    return;
                }
                self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: impl Write) {
        let mut was_failing = false;
        loop {
            let mut line = self.next();
            let result = write_all(&mut sink, &mut line);
            let mut queue = self.lock();
            queue.is_writing = false;
            queue.is_failing = result.is_err();
            if result.is_err() {
                queue.count_in(&line);
                queue.entries.push_front(Entry::Line(line));
            }
            drop(queue);
            self.changed.notify_all();
            if let Err(error) = &result
                && !was_failing
            {
                (self.failed)(error);
            }
            was_failing = result.is_err();
        }
    }

    /// The next bytes to write; waits for them.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if !queue.is_failing
                && let Some(entry) = queue.entries.pop_front()
            {
                queue.is_writing = true;
                return match entry {
                    Entry::Line(line) => {
                        queue.lines -= 1;
                        queue.bytes -= line.len();
                        line
                    }
                    Entry::Dropped(count) => terminated(&(self.notice)(count)),
                };
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Yes,
    /// When the reader has read more.
    NotYet,
    /// Writing fails.
    Never,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.lines < MAX_LINES && self.bytes < MAX_BYTES
    }

    fn push(&mut self, line: &str) {
        let line = terminated(line);
        self.count_in(&line);
        self.entries.push_back(Entry::Line(line));
        self.is_failing = false;
    }

    fn drop_one(&mut self) {
        match self.entries.back_mut() {
            Some(Entry::Dropped(count)) => *count += 1,
            _ => self.entries.push_back(Entry::Dropped(1)),
        }
        self.is_failing = false;
    }

    fn count_in(&mut self, line: &[u8]) {
        self.lines += 1;
        self.bytes += line.len();
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

fn terminated(line: &str) -> Vec<u8> {
    format!("{line}\n").into_bytes()
}

/// Writes all of `bytes`; after a failure what is left of them.
fn write_all(sink: &mut impl Write, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut at = 0;
    let result = loop {
        if at == bytes.len() {
            break sink.flush();
        }
        match sink.write(&bytes[at..]) {
            Ok(0) => break Err(ErrorKind::WriteZero.into()),
            Ok(count) => at += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody else has made the terminal or pipe that we share non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => break Err(error),
        }
    };
    bytes.drain(..at);
    result
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// Takes a line for each permit, and fails while it is told to.
    struct Sink {
        permits: mpsc::Receiver<Result<(), ErrorKind>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without permits it stalls for ever.
            self.permits.recv().unwrap_or_else(|_| {
                loop {
                    thread::park()
                }
            })?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Permits = mpsc::Sender<Result<(), ErrorKind>>;

    fn lines() -> (&'static Lines, Permits, Arc<Mutex<Vec<u8>>>) {
        let ((permits, receiver), written) = (mpsc::channel(), Arc::default());
        let sink = Sink { permits: receiver, written: Arc::clone(&written) };
        (Lines::start(sink, |n| format!("{n} dropped"), |_| {}).unwrap(), permits, written)
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_has_no_room_is_dropped_and_the_next_line_says_how_many() {
        let (lines, permits, written) = lines();
        lines.offer("first");
        while lines.lock().lines > 0 {
            thread::yield_now();
        }
        (0..MAX_LINES + 3).for_each(|n| lines.offer(&n.to_string()));
        assert_eq!((lines.dropped(), lines.room()), (3, Room::NotYet));
        lines.put("a result");
        (0..MAX_LINES + 3).for_each(|_| permits.send(Ok(())).unwrap());
        lines.flush(true);
        let text = text(&written);
        assert!(text.starts_with("first\n0\n1\n"), "{text}");
        assert!(text.ends_with("\n1022\n1023\n3 dropped\na result\n"), "{text}");
        assert_eq!(lines.room(), Room::Yes);
    }

    #[test]
    fn nobody_is_waited_for_who_does_not_read_after_a_signal() {
        let (lines, _permits, written) = lines();
        lines.put("never read");
        let flushed = thread::Builder::new().spawn(|| lines.flush(true)).unwrap();
        lines.interrupt();
        flushed.join().unwrap();
        lines.flush(false);
        assert_eq!(text(&written), "");
    }

    #[test]
    fn lines_that_could_not_be_written_are_kept_and_tried_again_with_the_next() {
        let (lines, permits, written) = lines();
        permits.send(Err(ErrorKind::StorageFull)).unwrap();
        lines.put("a");
        lines.flush(true);
        assert_eq!((text(&written).as_str(), lines.room()), ("", Room::Never));
        (0..2).for_each(|_| permits.send(Ok(())).unwrap());
        lines.put("b");
        lines.flush(true);
        assert_eq!((text(&written).as_str(), lines.dropped()), ("a\nb\n", 0));
    }
}
