//! What the machines do, one line each, so that a test is a transcript that reads like a story.

use std::fmt;

use libp2p_identity::PeerId;

use crate::time::Instant;

/// What kind of thing a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyph {
    /// `!` a command of the embedder.
    Command,
    /// `>` a frame sent to a peer.
    Frame,
    /// `*` an event for the embedder.
    Event,
    /// `=` two streams joined.
    Spliced,
    /// `~` two streams no longer joined.
    SpliceEnded,
    /// `x` something dropped: by whom and why.
    Dropped,
}

impl fmt::Display for Glyph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "!",
            Self::Frame => ">",
            Self::Event => "*",
            Self::Spliced => "=",
            Self::SpliceEnded => "~",
            Self::Dropped => "x",
        })
    }
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub now: Instant,
    /// What kind.
    pub glyph: Glyph,
    /// Whom it concerns, for a frame: who gets it.
    pub peer: Option<PeerId>,
    /// What happened, in words. Peer ids stand in base58, so that a test can put names in their place.
    pub text: String,
}

/// Collects lines if it is to; costs nothing if not.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<Line>>,
}

impl Trace {
    /// Collects lines if `is_enabled`, else none.
    pub fn new(is_enabled: bool) -> Self {
        Self { lines: is_enabled.then(Vec::new) }
    }

    /// Adds a line; `text` is made only if anybody listens.
    pub fn line(&mut self, now: Instant, glyph: Glyph, peer: Option<PeerId>, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(Line { now, glyph, peer, text: text() });
        }
    }

    /// Whether lines are collected.
    pub fn is_enabled(&self) -> bool {
        self.lines.is_some()
    }

    /// Takes what was collected since the last call.
    pub fn take(&mut self) -> Vec<Line> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
