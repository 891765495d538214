//! `peerless perf`.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use peerless_core::{
    ids::{ConnectionId, StreamId},
    node::Read,
};

use crate::{
    Failure, allowance,
    app::{CHUNK, PERF, filling},
    cli::{Common, PerfArgs},
    report::{Line, Reporter},
    session::{Session, Setup},
};

/// Bytes each way if no flag says otherwise.
const DEFAULT_BYTES: u64 = 10 << 20;

/// Sends, then receives, and fails unless every byte was counted at the other end.
pub(crate) fn run(common: &Common, args: &PerfArgs, report: Reporter) -> Result<(), Failure> {
    let setup = Setup { protocols: vec![(PERF, 0)], ..Setup::default() };
    let mut session = Session::open(common, setup, report)?;
    let outcome = session.connect(std::slice::from_ref(&args.address)).and_then(|connection| {
        let wants_both = args.upload.is_none() && args.download.is_none();
        for (direction, wanted) in [("upload", args.upload), ("download", args.download)] {
            if !wants_both && wanted.unwrap_or(0) == 0 {
                continue;
            }
            let bytes = allowance::choose(&session, connection, wanted, DEFAULT_BYTES, args.streams, report);
            let [upload, download] = if direction == "upload" { [bytes, 0] } else { [0, bytes] };
            let bar = progress(report, direction, bytes);
            let took = transfer(&mut session, connection, [upload, download], args.streams, &bar);
            bar.finish_and_clear();
            let seconds = took?.as_secs_f64();
            let bits_per_second = bytes as f64 * 8.0 / seconds.max(1e-9);
            report.result(&Line::Perf { direction, bytes, seconds, bits_per_second });
        }
        Ok(())
    });
    session.close(outcome)
}

/// Only where somebody sees it.
fn progress(report: Reporter, direction: &'static str, bytes: u64) -> ProgressBar {
    if !report.is_human() || !std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
        .expect("the template is well-formed");
    ProgressBar::new(bytes).with_style(style).with_prefix(direction)
}

/// Moves bytes both ways, shared by `streams` streams, and returns how long it took. The remote ends each stream only
/// when it has read all of it, so an upload is complete when all have ended.
fn transfer(
    session: &mut Session,
    connection: ConnectionId,
    [upload, download]: [u64; 2],
    streams: u64,
    bar: &ProgressBar,
) -> Result<Duration, Failure> {
    let started = session.runtime.now();
    let mut flows = BTreeMap::new();
    for n in 0..streams {
        let share = |total: u64| total / streams + u64::from(n < total % streams);
        if share(upload) + share(download) > 0 {
            let stream = session.open_stream(connection, &PERF)?;
            flows.insert(stream, Flow::new(share(upload), share(download)));
        }
    }
    let mut next = flows.keys().copied().collect::<Vec<_>>();
    loop {
        for stream in next {
            let Some(flow) = flows.get_mut(&stream) else { continue };
            if flow.pump(session, stream, bar)? {
                flows.remove(&stream);
            }
        }
        if flows.is_empty() {
            return Ok(session.runtime.now().saturating_duration_since(started));
        }
        next = vec![session.next_stream(connection)?];
    }
}

/// One stream's share.
struct Flow {
    /// The download size, then the upload's bytes.
    out: Bytes,
    upload_left: u64,
    finished: bool,
    download_left: u64,
}

impl Flow {
    fn new(upload_left: u64, download_left: u64) -> Self {
        let out = Bytes::copy_from_slice(&download_left.to_be_bytes());
        Self { out, upload_left, finished: false, download_left }
    }

    /// Writes and reads as much as is possible now. Returns whether that was all.
    fn pump(&mut self, session: &mut Session, stream: StreamId, bar: &ProgressBar) -> Result<bool, Failure> {
        let lost = |error| Failure::Failed(format!("the stream was lost: {error}"));
        let (node, now) = session.runtime.node_mut();
        while !self.finished {
            if self.out.is_empty() {
                self.out = filling(self.upload_left);
                self.upload_left -= self.out.len() as u64;
                bar.inc(self.out.len() as u64);
            }
            if self.out.is_empty() {
                node.finish(now, stream).map_err(lost)?;
                self.finished = true;
            } else if node.write(now, stream, &mut self.out).map_err(lost)? == 0 {
                break;
            }
        }
        loop {
            match node.read(now, stream, CHUNK).map_err(lost)? {
                Read::Blocked => return Ok(false),
                Read::Data(data) => {
                    self.download_left =
                        self.download_left.checked_sub(data.len() as u64).ok_or_else(|| {
                            Failure::Failed("the remote sent more bytes than were asked for".into())
                        })?;
                    bar.inc(data.len() as u64);
                }
                Read::Finished if self.download_left == 0 && self.finished => return Ok(true),
                Read::Finished => {
                    let left = self.download_left + self.upload_left;
                    return Err(Failure::Failed(format!(
                        "the remote ended the stream {left} bytes too early"
                    )));
                }
            }
        }
    }
}
