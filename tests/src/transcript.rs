//! Stories: what the nodes of a world did, one line each, with names in the place of keys and addresses.
//!
//! ```text
//!    0.040  B  >  R  hop  RESERVE
//!    0.600  R  =  splice A<->B
//! ```
//! Glyphs: `!` command, `>` frame sent, `*` event, `=` data plane begins, `~` data plane ended, `x` dropped.

use std::{fmt, time::Duration};

use peerless_core::{
    PeerId,
    time::Instant,
    trace::{Glyph, Line},
};

use crate::host::{Host, HostId};

/// More lines than this are two tests.
pub const MAX_LINES: usize = 60;

/// A line of the trace of one node.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub host: HostId,
    /// What its node wrote.
    pub line: Line,
}

/// Short names of hosts, to stand where traces have PeerIds and addresses.
#[derive(Clone, Debug, Default)]
pub struct Names {
    hosts: Vec<String>,
    /// What is replaced, longest first, so that no replacement hides another.
    words: Vec<(String, String)>,
    peers: Vec<(PeerId, usize)>,
}

impl Names {
    /// The names of all hosts of a world.
    pub fn of(hosts: &[Host]) -> Self {
        let mut names = Self::default();
        for host in hosts {
            names.add(host);
        }
        names.words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        names.peers.sort();
        names
    }

    fn add(&mut self, host: &Host) {
        let (name, peer) = (host.name(), host.peer().to_string());
        self.peers.push((host.peer(), self.hosts.len()));
        self.hosts.push(name.to_owned());
        self.words.push((format!("/p2p/{peer}"), format!("/{name}")));
        self.words.push((peer.clone(), name.to_owned()));
        for (_, socket) in &host.sockets {
            let family = if socket.is_ipv4() { "ip4" } else { "ip6" };
            let address = format!("/{family}/{}/udp/{}/quic-v1", socket.ip(), socket.port());
            self.words.push((format!("{address}/p2p/{peer}"), name.to_owned()));
            self.words.push((address, name.to_owned()));
            self.words.push((socket.to_string(), name.to_owned()));
        }
    }

    fn host(&self, id: HostId) -> &str {
        &self.hosts[id.0]
    }

    fn peer(&self, peer: &PeerId) -> String {
        match self.peers.binary_search_by_key(peer, |(peer, _)| *peer) {
            Ok(at) => self.hosts[self.peers[at].1].clone(),
            Err(_) => "?".into(),
        }
    }

    /// `text` with names in it.
    pub fn replace(&self, text: &str) -> String {
        // Only texts with a key or an address in them are long enough to be worth the search.
        if !text.contains("12D3") && !text.contains(':') && !text.contains("/ip") {
            return text.to_owned();
        }
        let replace = |text: String, (word, name): &(String, String)| text.replace(word, name);
        self.words.iter().fold(text.to_owned(), replace)
    }
}

/// One line of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryLine {
    /// When.
    pub at: Instant,
    /// The name of the host whose node did it.
    pub host: String,
    /// What kind of thing it is.
    pub glyph: Glyph,
    /// The name of the other host: for a frame, who gets it.
    pub peer: Option<String>,
    /// What happened.
    pub text: String,
}

impl StoryLine {
    /// Whether it is about reservations and circuits: a frame of circuit relay, a splice, a command or a drop.
    pub fn is_about_circuits(&self) -> bool {
        match self.glyph {
            Glyph::Frame => ["hop", "stop"].contains(&self.text.split_whitespace().next().unwrap_or("")),
            Glyph::Event => false,
            _ => true,
        }
    }
}

/// A story that can be narrowed down and printed.
#[derive(Clone, Debug)]
pub struct Transcript {
    start: Instant,
    host_width: usize,
    lines: Vec<StoryLine>,
}

impl Transcript {
    pub(crate) fn new(names: Names, story: &[Entry]) -> Self {
        let line = |Entry { host, line }: &Entry| StoryLine {
            at: line.now,
            host: names.host(*host).to_owned(),
            glyph: line.glyph,
            peer: line.peer.as_ref().map(|peer| names.peer(peer)),
            text: names.replace(&line.text),
        };
        let host_width = names.hosts.iter().map(|name| name.len()).max().unwrap_or(0);
        Self { start: Instant::ZERO, host_width, lines: story.iter().map(line).collect() }
    }

    /// Keeps the lines that `keep` wants.
    pub fn only(mut self, keep: impl Fn(&StoryLine) -> bool) -> Self {
        self.lines.retain(keep);
        self
    }

    /// Keeps the lines about reservations and circuits.
    pub fn circuits(self) -> Self {
        self.only(StoryLine::is_about_circuits)
    }

    /// Keeps what happened from `start` on, and counts time from there.
    pub fn since(mut self, start: Instant) -> Self {
        self.start = start;
        self.only(|line| line.at >= start)
    }

    /// Its lines.
    pub fn lines(&self) -> &[StoryLine] {
        &self.lines
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.host_width;
        for line in &self.lines {
            let time = Seconds(line.at.saturating_duration_since(self.start));
            let StoryLine { host, glyph, text, .. } = line;
            write!(f, "{time}  {host:width$}  {glyph}  ")?;
            match &line.peer {
                Some(peer) if line.glyph == Glyph::Frame => {
                    let (protocol, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                    writeln!(
                        f,
                        "{}",
                        format!("{peer:width$}  {protocol:4} {}", rest.trim_start()).trim_end()
                    )?;
                }
                _ => writeln!(f, "{}", text.trim_end())?,
            }
        }
        Ok(())
    }
}

/// A duration in seconds with milliseconds, eight columns wide.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// Compares a [`Transcript`] with a snapshot, and refuses one that nobody would read.
#[macro_export]
macro_rules! assert_story {
    ($transcript:expr, $($snapshot:tt)+) => {{
        let transcript = $transcript;
        let lines = transcript.lines().len();
        let story = transcript.to_string();
        assert!(lines <= $crate::transcript::MAX_LINES, "a story of {lines} lines is two tests:\n{story}");
        $crate::insta::assert_snapshot!(story, $($snapshot)+);
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host: usize, ms: u64, glyph: Glyph, peer: Option<PeerId>, text: &str) -> Entry {
        let line = Line { now: Instant::from_nanos(ms * 1_000_000), glyph, peer, text: text.into() };
        Entry { host: HostId(host), line }
    }

    fn scene(lines: usize) -> (Vec<Entry>, Names) {
        let mut world = crate::world::World::new(1);
        world.host("A").bare();
        world.host("B").bare();
        world.host("Relay").bare();
        let [a, b, relay] = [0, 1, 2].map(|at| world.hosts()[at].peer());
        let circuit = world.circuit(HostId(2), HostId(1));
        let mut story = vec![
            entry(1, 0, Glyph::Command, Some(relay), &format!("reserve on {relay}")),
            entry(1, 40, Glyph::Frame, Some(relay), "hop RESERVE"),
            entry(0, 540, Glyph::Frame, Some(relay), &format!("hop CONNECT {b}")),
            entry(2, 560, Glyph::Frame, Some(b), &format!("stop CONNECT {a}")),
            entry(2, 1600, Glyph::Spliced, None, &format!("splice {a}<->{b}")),
            entry(0, 1601, Glyph::Event, None, &format!("connected {circuit} from 80.0.0.2:4001")),
        ];
        story.resize(lines.max(story.len()), story[0].clone());
        (story, Names::of(world.hosts()))
    }

    #[test]
    fn names_stand_for_keys_and_addresses_and_columns_are_straight() {
        let (story, names) = scene(0);
        crate::assert_story!(Transcript::new(names, &story), @r"
           0.000  B      !  reserve on Relay
           0.040  B      >  Relay  hop  RESERVE
           0.540  A      >  Relay  hop  CONNECT B
           0.560  Relay  >  B      stop CONNECT A
           1.600  Relay  =  splice A<->B
           1.601  A      *  connected Relay/p2p-circuit/B from B
        ");
    }

    #[test]
    fn a_story_is_narrowed_down_by_subject_and_time() {
        let (story, names) = scene(0);
        let since = Transcript::new(names, &story).circuits().since(Instant::from_nanos(540_000_000));
        crate::assert_story!(since, @r"
           0.000  A      >  Relay  hop  CONNECT B
           0.020  Relay  >  B      stop CONNECT A
           1.060  Relay  =  splice A<->B
        ");
    }

    #[test]
    #[should_panic(expected = "a story of 61 lines is two tests")]
    fn a_long_story_is_refused() {
        let (story, names) = scene(MAX_LINES + 1);
        crate::assert_story!(Transcript::new(names, &story), @"");
    }
}
