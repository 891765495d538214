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
    // No crate has a space in its name, but one within the brackets that name spans is right.
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    let has_spaces = !text.contains('[') && parts.iter().any(|part| part.contains(char::is_whitespace));
    let filter = if has_spaces {
        Err("there is a space in it".to_owned())
    } else {
        EnvFilter::builder().parse(parts.join(",")).map_err(|error| error.to_string())
    };
    filter.map_err(|why| {
        Failure::Usage(format!(
            "RUST_LOG={text} cannot be read ({why}); a level like debug is right, or levels of single crates like \
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
        for right in [
            "debug",
            "off",
            " info\n",
            "debug, peerless_mio=trace",
            "peerless_core=debug,peerless_mio=trace",
            "warn,quinn_proto=info",
        ] {
            assert!(read(right).is_ok(), "{right}");
        }
        for wrong in [
            "peerless=lots",
            "debug,=,",
            "peerless_core=debug=trace",
            "[",
            "a[b",
            "foo bar",
            "debug, peerless =trace",
        ] {
            let Err(Failure::Usage(sentence)) = read(wrong) else { panic!("{wrong} was taken") };
            assert!(sentence.contains("RUST_LOG") && !sentence.contains('\n'), "{sentence}");
        }
    }
}
