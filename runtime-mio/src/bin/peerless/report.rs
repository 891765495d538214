//! What the command prints: lines for people, or one JSON object a line for programs.

use std::{
    fmt,
    fs::File,
    io,
    time::{Duration, UNIX_EPOCH},
};

use peerless_core::{Multiaddr, protocols::rendezvous::client::Found, time::UnixTime};
use peerless_mio::unix_now;
use serde::Serialize;

#[cfg(unix)]
use crate::{
    lines::{Lines, Room},
    notice::Notice,
    status::Status,
};

/// One line of output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    Id {
        peer: String,
        /// The key file, if it is kept.
        key: Option<String>,
    },
    Metrics {
        address: String,
    },
    #[cfg(unix)]
    Status(Status),
    Listening {
        address: String,
    },
    /// Nobody will learn where we are.
    NoAddress {},
    Reservation {
        relay: String,
        expires: u64,
        addresses: Vec<String>,
    },
    ReservationLost {
        relay: String,
        reason: String,
    },
    Connected {
        peer: String,
        address: String,
        relayed: bool,
    },
    Disconnected {
        peer: String,
        reason: String,
    },
    ReservationAccepted {
        peer: String,
        expires: u64,
        renewed: bool,
    },
    ReservationEnded {
        peer: String,
        reason: String,
    },
    CircuitOpened {
        source: String,
        target: String,
    },
    RegistrationsLoaded {
        count: usize,
    },
    RegistrationAccepted {
        peer: String,
        namespace: String,
        ttl: u64,
        renewed: bool,
    },
    RegistrationEnded {
        peer: String,
        namespace: String,
        reason: &'static str,
    },
    CircuitClosed {
        source: String,
        target: String,
        bytes_in: u64,
        bytes_out: u64,
        reason: String,
    },
    Registered {
        namespace: String,
        ttl: u64,
    },
    RegistrationLost {
        namespace: String,
        reason: String,
    },
    Peer {
        peer: String,
        addresses: Vec<String>,
        ttl: u64,
        signed: bool,
    },
    Expired {
        peer: String,
    },
    StoreDown {
        reason: String,
    },
    StoreUp {
        seconds: u64,
    },
    Ping {
        peer: String,
        rtt_us: u64,
    },
    Perf {
        direction: &'static str,
        bytes: u64,
        seconds: f64,
        bits_per_second: f64,
    },
    Echo {
        bytes: u64,
        ok: bool,
    },
    Error {
        message: String,
    },
    #[serde(untagged)]
    Notice(Notice),
}

/// The words for people.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { peer, .. } => write!(f, "{peer}"),
            Self::Metrics { address } => write!(f, "metrics at http://{address}/metrics"),
            #[cfg(unix)]
            Self::Status(status) => status.fmt(f),
            Self::Listening { address } => write!(f, "listening at {address}"),
            Self::NoAddress {} => {
                write!(
                    f,
                    "others are told no address of ours: name one with --announce, or be reached through a relay"
                )
            }
            Self::Reservation { relay, expires, addresses } => {
                let left = UnixTime::from_secs(*expires).saturating_duration_since(unix_now());
                let places = addresses.join("\n  ");
                write!(f, "reserved for {} at {relay}; reachable at\n  {places}", Span(left))
            }
            Self::ReservationLost { relay, reason } => write!(f, "reservation at {relay} lost: {reason}"),
            Self::Connected { peer, address, relayed } => {
                write!(
                    f,
                    "connected to {peer} {} {address}",
                    if *relayed { "through a relay at" } else { "at" }
                )
            }
            Self::Disconnected { peer, reason } => write!(f, "disconnected from {peer}: {reason}"),
            Self::ReservationAccepted { peer, expires, renewed } => {
                let left = UnixTime::from_secs(*expires).saturating_duration_since(unix_now());
                let what = if *renewed { "renewed" } else { "reserved" };
                write!(f, "{what} for {peer} for {}", Span(left))
            }
            Self::ReservationEnded { peer, reason } => write!(f, "reservation of {peer} ended: {reason}"),
            Self::CircuitOpened { source, target } => write!(f, "circuit from {source} to {target} opened"),
            Self::CircuitClosed { source, target, bytes_in, bytes_out, reason } => write!(
                f,
                "circuit from {source} to {target} closed after {bytes_in} bytes there and {bytes_out} back: {reason}"
            ),
            Self::RegistrationsLoaded { count } => write!(f, "{count} registrations from before"),
            Self::RegistrationAccepted { peer, namespace, ttl, renewed } => {
                let what = if *renewed { "renewed" } else { "registered" };
                write!(f, "{what} {peer} in {namespace:?} for {}", Span(Duration::from_secs(*ttl)))
            }
            Self::RegistrationEnded { peer, namespace, reason } => {
                write!(f, "registration of {peer} in {namespace:?} ended: {reason}")
            }
            Self::Registered { namespace, ttl } => {
                write!(f, "registered in {namespace:?} for {}", Span(Duration::from_secs(*ttl)))
            }
            Self::RegistrationLost { namespace, reason } => {
                write!(f, "registration in {namespace:?} lost: {reason}")
            }
            Self::Peer { peer, addresses, ttl, signed } => {
                let word = if *signed { "" } else { ", not signed by it" };
                write!(f, "{peer} for {}{word}", Span(Duration::from_secs(*ttl)))?;
                addresses.iter().try_for_each(|address| write!(f, "\n  {address}"))
            }
            Self::Expired { peer } => write!(f, "{peer} is not registered any more"),
            Self::StoreDown { reason } => write!(f, "the store is down, and will be tried again: {reason}"),
            Self::StoreUp { seconds } => {
                write!(f, "the store works again after {}", Span(Duration::from_secs(*seconds)))
            }
            Self::Ping { peer, rtt_us } => {
                write!(f, "{peer}: {}.{:03} ms", rtt_us / 1000, rtt_us % 1000)
            }
            Self::Perf { direction, bytes, seconds, bits_per_second } => {
                write!(f, "{direction}: {bytes} bytes in {seconds:.3} s, {:.1} Mbit/s", bits_per_second / 1e6)
            }
            Self::Echo { bytes, ok: true } => write!(f, "{bytes} bytes came back as they were sent"),
            Self::Echo { bytes, ok: false } => {
                write!(f, "after {bytes} bytes another came back than was sent")
            }
            Self::Error { message } => write!(f, "error: {message}"),
            Self::Notice(notice) => notice.fmt(f),
        }
    }
}

/// A time span in words: its largest unit and the next.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, s) => write!(f, "{s} s"),
            (0, m, s) => write!(f, "{m} min {s} s"),
            (h, m, _) => write!(f, "{h} h {m} min"),
        }
    }
}

/// The time as all lines have it: RFC 3339 in UTC, with milliseconds.
pub(crate) fn now_text() -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + unix_now().since_epoch()).to_string()
}

/// Prints lines on stdout, errors for people on stderr, and never waits for who reads them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    json: bool,
    out: &'static Lines,
    err: &'static Lines,
}

impl Reporter {
    pub(crate) fn start(json: bool) -> io::Result<Self> {
        let err = Lines::start(raw(&io::stderr())?, dropped_for_people, |_| {})?;
        let notice = if json { dropped_for_programs } else { dropped_for_people };
        let failed = |error: &io::Error| {
            err.offer(&format!(
                "{} stdout cannot be written: {error}; as many lines as have room are kept until it can",
                now_text()
            ));
        };
        Ok(Self { json, out: Lines::start(raw(&io::stdout())?, notice, failed)?, err })
    }

    /// Whether people are to read it.
    pub(crate) fn is_human(&self) -> bool {
        !self.json
    }

    /// Where logs go.
    pub(crate) fn logs(&self) -> &'static Lines {
        self.err
    }

    /// Prints what happens; it is dropped if too much waits to be read.
    pub(crate) fn line(&self, line: &Line) {
        self.lines_for(line).offer(&text_of(line, self.json));
    }

    /// Prints a remark, as [`line`](Self::line) does.
    pub(crate) fn notice(&self, notice: Notice) {
        self.line(&Line::Notice(notice));
    }

    /// Prints what a command was started for; it is never dropped. Whoever has much of it asks [`room`](Self::room) first.
    pub(crate) fn result(&self, line: &Line) {
        self.lines_for(line).put(&text_of(line, self.json));
    }

    /// Prints a remark on the results, for people.
    pub(crate) fn say(&self, remark: &str) {
        if !self.json {
            self.out.put(&format!("{} {remark}", now_text()));
        }
    }

    /// Says on stderr what is not for programs that read stdout.
    pub(crate) fn aside(&self, remark: &str) {
        self.err.put(remark);
    }

    /// Whether there is room for results.
    pub(crate) fn room(&self) -> Room {
        self.out.room()
    }

    /// How many lines and logs were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.out.dropped() + self.err.dropped()
    }

    /// The process is to end, whether somebody reads or not.
    pub(crate) fn interrupt(&self) {
        self.out.interrupt();
        self.err.interrupt();
    }

    /// Waits for the lines to get out: `patiently` as long as the reader takes and no signal comes, else a second.
    pub(crate) fn flush(&self, patiently: bool) {
        self.out.flush(patiently);
        self.err.flush(patiently);
    }

    fn lines_for(&self, line: &Line) -> &'static Lines {
        if matches!(line, Line::Error { .. }) && !self.json { self.err } else { self.out }
    }
}

fn text_of(line: &Line, json: bool) -> String {
    /// The event stands first, the time last.
    #[derive(Serialize)]
    struct Stamped<'a> {
        #[serde(flatten)]
        line: &'a Line,
        time: String,
    }
    let time = now_text();
    match line {
        line if json => serde_json::to_string(&Stamped { line, time })
            .expect("strings and numbers always have a JSON form"),
        // Scripts want the bare answer.
        Line::Id { .. } => line.to_string(),
        #[cfg(unix)]
        Line::Status(_) => line.to_string(),
        _ => format!("{time} {line}"),
    }
}

fn dropped_for_people(count: u64) -> String {
    text_of(&Line::Notice(Notice::LinesDropped { count }), false)
}

fn dropped_for_programs(count: u64) -> String {
    text_of(&Line::Notice(Notice::LinesDropped { count }), true)
}

/// The descriptor itself: what the standard library has in front of it keeps bytes that could not be written.
#[cfg(unix)]
fn raw(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn raw(stream: &impl std::os::windows::io::AsHandle) -> io::Result<File> {
    stream.as_handle().try_clone_to_owned().map(File::from)
}

/// A peer that was found.
pub(crate) fn line_of_peer(found: &Found) -> Line {
    Line::Peer {
        peer: found.peer.to_string(),
        addresses: found.addresses.iter().map(Multiaddr::to_string).collect(),
        ttl: found.ttl.as_secs(),
        signed: found.signed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_stands_first_and_the_time_last() {
        let lost = Line::ReservationLost { relay: "R".into(), reason: "\"\n".into() };
        let text = text_of(&lost, true);
        let start = r#"{"event":"reservation_lost","relay":"R","reason":"\"\n","time":""#;
        let time = text.strip_prefix(start).and_then(|rest| rest.strip_suffix("\"}")).unwrap();
        assert_eq!(time.len(), "2026-11-30T20:17:19.123Z".len(), "{time}");
        assert!(humantime::parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
        let (time, rest) =
            text_of(&lost, false).split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(humantime::parse_rfc3339(&time).is_ok(), "{time}");
        assert!(rest.starts_with("reservation at R lost"), "{rest}");
        let notice = text_of(&Line::Notice(Notice::LinesDropped { count: 3 }), true);
        assert!(notice.starts_with(r#"{"event":"lines_dropped","count":3,"time":""#), "{notice}");
    }

    #[test]
    fn spans_keep_their_two_largest_units() {
        let show = |seconds| Span(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            [show(0), show(61), show(3599), show(7384)],
            ["0 s", "1 min 1 s", "59 min 59 s", "2 h 3 min"]
        );
    }
}
