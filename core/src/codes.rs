//! Why connections are closed and streams reset, as numbers on the wire: those that go-libp2p sends, after the libp2p
//! specs (`error-codes`). 0 says nothing.

use std::fmt;

/// Of connections.
pub(crate) mod connection {
    pub(crate) const SUPPLANTED: u64 = 0x1004;
}

/// Of streams.
pub(crate) mod stream {
    pub(crate) const NEGOTIATION_FAILED: u64 = 0x1001;
    pub(crate) const LIMIT_EXCEEDED: u64 = 0x1002;
    pub(crate) const PROTOCOL_VIOLATION: u64 = 0x1004;
    pub(crate) const GARBAGE_COLLECTED: u64 = 0x1006;
    pub(crate) const SHUTDOWN: u64 = 0x1007;
}

const FIRST_OF_CONNECTIONS: u64 = 0x1000;
const FIRST_OF_STREAMS: u64 = 0x1001;

const MEANINGS: [&str; 8] = [
    "no protocol in common",
    "a resource limit was reached",
    "too many requests",
    "we broke the protocol",
    "another connection takes its place",
    "it was not needed any more",
    "it shuts down",
    "we are not admitted",
];

/// What a remote says when it closes a connection or resets a stream: ` (code 0)`, or `: it shuts down (code 0x1006)`.
pub(crate) struct Said<'a> {
    meaning: Option<&'static str>,
    code: u64,
    text: &'a str,
}

impl<'a> Said<'a> {
    /// When it closes a connection.
    pub(crate) fn of_connection(code: u64, text: &'a str) -> Self {
        Self { meaning: meaning(code, FIRST_OF_CONNECTIONS), code, text }
    }

    /// When it resets a stream.
    pub(crate) fn of_stream(code: u64) -> Self {
        Self { meaning: meaning(code, FIRST_OF_STREAMS), code, text: "" }
    }
}

fn meaning(code: u64, first: u64) -> Option<&'static str> {
    MEANINGS.get(usize::try_from(code.checked_sub(first)?).ok()?).copied()
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning {
            Some(meaning) => write!(f, ": {meaning} (code {:#x}", self.code)?,
            None => write!(f, " (code {}", self.code)?,
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_connections_and_streams_are_one_apart() {
        assert_eq!(Said::of_connection(0, "").to_string(), " (code 0)");
        assert_eq!(Said::of_connection(7, "bye").to_string(), " (code 7: bye)");
        assert_eq!(Said::of_connection(0x1006, "").to_string(), ": it shuts down (code 0x1006)");
        assert_eq!(Said::of_stream(0x1007).to_string(), ": it shuts down (code 0x1007)");
        assert_eq!(Said::of_stream(0x1002).to_string(), ": a resource limit was reached (code 0x1002)");
        for code in [0x1000, 0x1009, u64::MAX] {
            assert_eq!(Said::of_stream(code).to_string(), format!(" (code {code})"));
        }
    }
}
