//! multistream-select (libp2p specs, connections): agreeing on what a byte stream speaks, one side proposing and the
//! other accepting. Pure: bytes in, bytes and an outcome out; what follows the agreement is handed back untouched.

use bytes::{Bytes, BytesMut};
use peerless_proto::multistream::{HEADER, Line, LineDecoder, LineError, NA, encode_line};

/// Refused proposals after which a listener gives up.
const MAX_REFUSALS: usize = 32;

/// Why two peers did not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiateError {
    /// The remote speaks none of the proposed protocols.
    #[error("the remote speaks none of the proposed protocols")]
    Unsupported,
    /// Bytes that are no multistream-select line.
    #[error("not a multistream-select line: {0}")]
    Line(#[from] LineError),
    /// A line that is not due.
    #[error("unexpected line {0:?}")]
    Unexpected(String),
    /// Proposals without end.
    #[error("too many proposals")]
    TooManyProposals,
}

/// The side that proposes.
#[derive(Debug)]
pub struct Dialer {
    lines: LineDecoder,
    state: DialerState,
    proposed: String,
    /// Still to be proposed, last first.
    others: Vec<String>,
}

#[derive(Debug)]
enum DialerState {
    /// Exits: the header ([`DialerState::AwaitingAnswer`]), anything else (an error).
    AwaitingHeader,
    /// Exits: the protocol (agreed), `na` (the next proposal, or an error), anything else (an error).
    AwaitingAnswer,
}

impl Dialer {
    /// Proposes `protocols`, most wanted first, at least one. The header and the first proposal go to `out`; with a
    /// single proposal the caller may send its first bytes right behind them.
    pub fn new<'a>(protocols: impl IntoIterator<Item = &'a str>, out: &mut BytesMut) -> Self {
        let mut others: Vec<_> = protocols.into_iter().map(str::to_owned).collect();
        others.reverse();
        let proposed = others.pop().unwrap_or_default();
        encode_line(HEADER, out);
        encode_line(&proposed, out);
        Self { lines: LineDecoder::new(), state: DialerState::AwaitingHeader, proposed, others }
    }

    /// Takes bytes; what must be sent goes to `out`. Returns the protocol once it is agreed on; then
    /// [`Dialer::take_rest`] has the bytes that follow.
    pub fn handle_bytes(
        &mut self,
        chunk: Bytes,
        out: &mut BytesMut,
    ) -> Result<Option<String>, NegotiateError> {
        self.lines.push(chunk);
        while let Some(line) = self.lines.next_line()? {
            match (&self.state, line) {
                (DialerState::AwaitingHeader, Line::Header) => self.state = DialerState::AwaitingAnswer,
                (DialerState::AwaitingAnswer, Line::Protocol(name)) if name == self.proposed => {
                    return Ok(Some(name));
                }
                (DialerState::AwaitingAnswer, Line::Na) => {
                    self.proposed = self.others.pop().ok_or(NegotiateError::Unsupported)?;
                    encode_line(&self.proposed, out);
                }
                (_, line) => return Err(NegotiateError::Unexpected(line.to_string())),
            }
        }
        Ok(None)
    }

    /// The bytes behind the agreement.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        self.lines.take_rest()
    }
}

/// The side that accepts or refuses.
#[derive(Debug, Default)]
pub struct Listener {
    lines: LineDecoder,
    greeted: bool,
    refusals: usize,
}

impl Listener {
    /// Waits for a header and proposals.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a proposal was refused.
    pub fn has_refused(&self) -> bool {
        self.refusals > 0
    }

    /// Takes bytes; what must be sent goes to `out`. `find` says what a proposed protocol is to us, if anything. Returns
    /// that once it is agreed on; then [`Listener::take_rest`] has the bytes that follow.
    pub fn handle_bytes<T>(
        &mut self,
        chunk: Bytes,
        mut find: impl FnMut(&str) -> Option<T>,
        out: &mut BytesMut,
    ) -> Result<Option<T>, NegotiateError> {
        self.lines.push(chunk);
        while let Some(line) = self.lines.next_line()? {
            match line {
                Line::Header if !self.greeted => {
                    self.greeted = true;
                    encode_line(HEADER, out);
                }
                Line::Protocol(name) if self.greeted => {
                    if let Some(found) = find(&name) {
                        encode_line(&name, out);
                        return Ok(Some(found));
                    }
                    self.refuse(out)?;
                }
                // Listing is optional in the specification, and of no use to a peer that reads identify.
                Line::Ls if self.greeted => self.refuse(out)?,
                line => return Err(NegotiateError::Unexpected(line.to_string())),
            }
        }
        Ok(None)
    }

    fn refuse(&mut self, out: &mut BytesMut) -> Result<(), NegotiateError> {
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            return Err(NegotiateError::TooManyProposals);
        }
        encode_line(NA, out);
        Ok(())
    }

    /// The bytes behind the agreement.
    pub fn take_rest(&mut self) -> Vec<Bytes> {
        self.lines.take_rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(proposals: &[&str], spoken: &[&'static str]) -> Result<String, NegotiateError> {
        let (mut to_listener, mut to_dialer) = (BytesMut::new(), BytesMut::new());
        let mut dialer = Dialer::new(proposals.iter().copied(), &mut to_listener);
        let mut listener = Listener::new();
        loop {
            let chunk = to_listener.split().freeze();
            listener.handle_bytes(chunk, |name| spoken.iter().find(|s| **s == name), &mut to_dialer)?;
            let chunk = to_dialer.split().freeze();
            if let Some(agreed) = dialer.handle_bytes(chunk, &mut to_listener)? {
                return Ok(agreed);
            }
        }
    }

    #[test]
    fn the_first_common_proposal_wins() {
        assert_eq!(talk(&["/a", "/b", "/c"], &["/c", "/b"]), Ok("/b".into()));
        assert_eq!(talk(&["/a"], &["/b"]), Err(NegotiateError::Unsupported));
    }

    #[test]
    fn bytes_behind_the_agreement_are_handed_back_on_both_sides() {
        let mut flight = BytesMut::new();
        let mut dialer = Dialer::new(["/a"], &mut flight);
        flight.extend_from_slice(b"question");
        let mut answer = BytesMut::new();
        let mut listener = Listener::new();
        assert_eq!(listener.handle_bytes(flight.split().freeze(), |_| Some(1), &mut answer), Ok(Some(1)));
        assert_eq!(listener.take_rest().concat(), b"question");
        answer.extend_from_slice(b"answer");
        assert_eq!(dialer.handle_bytes(answer.freeze(), &mut flight), Ok(Some("/a".into())));
        assert_eq!(dialer.take_rest().concat(), b"answer");
        assert!(flight.is_empty());
    }

    #[test]
    fn a_listener_gives_up_on_endless_proposals_and_lists() {
        for line in ["/unknown", "ls"] {
            let mut listener = Listener::new();
            let mut bytes = BytesMut::new();
            encode_line(HEADER, &mut bytes);
            (0..=MAX_REFUSALS).for_each(|_| encode_line(line, &mut bytes));
            let result = listener.handle_bytes(bytes.freeze(), |_| None::<()>, &mut BytesMut::new());
            assert_eq!(result, Err(NegotiateError::TooManyProposals));
        }
    }

    #[test]
    fn a_proposal_before_the_header_is_refused() {
        let mut listener = Listener::new();
        let mut bytes = BytesMut::new();
        encode_line("/a", &mut bytes);
        let result = listener.handle_bytes(bytes.freeze(), |_| Some(()), &mut BytesMut::new());
        assert!(matches!(result, Err(NegotiateError::Unexpected(_))));
    }
}
