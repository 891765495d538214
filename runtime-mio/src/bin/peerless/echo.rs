//! `peerless echo`.

use bytes::Bytes;
use peerless_core::{
    ids::{ConnectionId, StreamId},
    node::Read,
    rng::{Rng, RngCore},
};

use crate::{
    Failure, allowance,
    app::{CHUNK, ECHO},
    cli::{Common, EchoArgs},
    report::{Line, Reporter},
    session::{Session, Setup},
};

/// Bytes if no flag says otherwise.
const DEFAULT_BYTES: u64 = 1 << 20;

/// Sends random bytes; fails unless the same come back, and no others.
pub(crate) fn run(common: &Common, args: &EchoArgs, report: Reporter) -> Result<(), Failure> {
    let setup = Setup { protocols: vec![(ECHO, 0)], ..Setup::default() };
    let mut session = Session::open(common, setup, report)?;
    let outcome = match session.connect(std::slice::from_ref(&args.address)) {
        Ok(connection) => {
            let bytes = allowance::choose(&session, connection, args.bytes, DEFAULT_BYTES, 1, report);
            echo(&mut session, connection, bytes)
        }
        Err(failure) => Err(failure),
    };
    if let Ok(Verdict { bytes, ok }) = outcome {
        report.result(&Line::Echo { bytes, ok });
    }
    match session.close(outcome)? {
        Verdict { ok: true, .. } => Ok(()),
        Verdict { bytes, .. } => {
            Err(Failure::Failed(format!("{bytes} bytes came back, and not as they were sent")))
        }
    }
}

/// What came back, and whether it is what was sent.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    bytes: u64,
    ok: bool,
}

fn echo(session: &mut Session, connection: ConnectionId, bytes: u64) -> Result<Verdict, Failure> {
    let stream = session.open_stream(connection, &ECHO)?;
    let mut exchange = Exchange {
        stream,
        to_send: Pattern::new(bytes),
        chunk: Bytes::new(),
        finished: false,
        expected: Pattern::new(bytes),
    };
    loop {
        if let Some(verdict) = exchange.pump(session)? {
            return Ok(verdict);
        }
        session.next_stream(connection)?;
    }
}

struct Exchange {
    stream: StreamId,
    to_send: Pattern,
    chunk: Bytes,
    finished: bool,
    expected: Pattern,
}

impl Exchange {
    /// Writes and reads as much as is possible now; the verdict when that is all there is.
    fn pump(&mut self, session: &mut Session) -> Result<Option<Verdict>, Failure> {
        let lost = |error| Failure::Failed(format!("the stream was lost: {error}"));
        let (node, now) = session.runtime.node_mut();
        while !self.finished {
            if self.chunk.is_empty() {
                self.chunk = self.to_send.next(CHUNK).into();
            }
            if self.chunk.is_empty() {
                node.finish(now, self.stream).map_err(lost)?;
                self.finished = true;
            } else if node.write(now, self.stream, &mut self.chunk).map_err(lost)? == 0 {
                break;
            }
        }
        loop {
            let ok = match node.read(now, self.stream, CHUNK).map_err(lost)? {
                Read::Blocked => return Ok(None),
                Read::Data(data) if data == self.expected.next(data.len()) => continue,
                Read::Data(_) => false,
                Read::Finished => self.expected.left == 0,
            };
            return Ok(Some(Verdict { bytes: self.expected.given, ok }));
        }
    }
}

/// Pseudo-random bytes, the same for both ends of the comparison.
struct Pattern {
    rng: Rng,
    word: [u8; 8],
    given: u64,
    left: u64,
}

impl Pattern {
    fn new(left: u64) -> Self {
        Self { rng: Rng::new([0xec; 32]), word: [0; 8], given: 0, left }
    }

    /// The next `max` bytes, or all that is left. However it is cut, the whole is the same.
    fn next(&mut self, max: usize) -> Vec<u8> {
        let len = self.left.min(max as u64);
        let mut bytes = Vec::with_capacity(len as usize);
        while (bytes.len() as u64) < len {
            let at = (self.given % 8) as usize;
            if at == 0 {
                self.word = self.rng.next_u64().to_le_bytes();
            }
            let some = &self.word[at..8.min(at + len as usize - bytes.len())];
            bytes.extend_from_slice(some);
            self.given += some.len() as u64;
        }
        self.left -= len;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_the_same_however_it_is_cut() {
        let whole = Pattern::new(1000).next(usize::MAX);
        for cut in [1, 3, 8, 13, 64, 999] {
            let mut pattern = Pattern::new(1000);
            let mut cuts = Vec::new();
            while pattern.left > 0 {
                cuts.extend(pattern.next(cut));
            }
            assert_eq!((cuts, pattern.given), (whole.clone(), 1000));
        }
        assert_eq!(whole.len(), 1000);
        assert_ne!(whole[..8], whole[8..16]);
        assert!(Pattern::new(0).next(10).is_empty());
    }
}
