//! Logs on stderr.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

use crate::{Failure, lines::Lines, report::now_text};

const BY_VERBOSITY: [&str; 3] = ["off", "peerless=debug,peerless_mio=debug,peerless_core=debug", "trace"];

/// Logs to `lines`. `RUST_LOG` is obeyed where it is set, else the flag decides.
pub(crate) fn start(lines: &'static Lines, verbose: u8) -> Result<(), Failure> {
    let filter = match env::var_os("RUST_LOG") {
        Some(text) if !text.is_empty() => read(&text.to_string_lossy())?,
        _ => EnvFilter::new(BY_VERBOSITY[usize::from(verbose.min(2))]),
    };
    let in_color = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|text| text.is_empty());
    fmt().with_env_filter(filter).with_timer(Clock).with_ansi(in_color).with_writer(Output(lines)).init();
    Ok(())
}

fn read(text: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::builder().parse(text).map_err(|error| {
        Failure::Usage(format!(
            "RUST_LOG={text} cannot be read ({error}); a level like debug is right, or levels of single crates like \
             peerless_core=debug,peerless_mio=trace"
        ))
    })
}

/// The time, as other lines have it.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        out.write_str(&now_text())
    }
}

struct Output(&'static Lines);

impl<'a> MakeWriter<'a> for Output {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record(self.0)
    }
}

/// One record, which comes in one piece.
struct Record(&'static Lines);

impl Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.offer(String::from_utf8_lossy(bytes).trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused_in_one_sentence() {
        for right in ["debug", "off", "peerless_core=debug,peerless_mio=trace", "warn,quinn_proto=info"] {
            assert!(read(right).is_ok(), "{right}");
        }
        for wrong in ["peerless=lots", "debug,=,", "peerless_core=debug=trace", "[", "a[b"] {
            let Err(Failure::Usage(sentence)) = read(wrong) else { panic!("{wrong} was taken") };
            assert!(sentence.contains("RUST_LOG") && !sentence.contains('\n'), "{sentence}");
        }
    }
}
