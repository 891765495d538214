//! Refusing what a remote proposes on a stream. A dialer need not wait for our answer: data and the end of its direction may
//! come in one flight with the proposal. A reset would overtake the refusal, so our direction ends behind it, and what
//! comes is discarded, up to a time and an amount.

use std::time::Duration;

use super::{Node, pump::Work};
use crate::{
    codes,
    errors::StreamFault,
    ids::StreamId,
    streams::{Mode, negotiate::NegotiateError},
};

/// How long a dialer has to hear our refusal and to end the stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of what it says meanwhile is discarded before it is asked to stop: what it may have sent before it could know.
const PATIENCE_BYTES: usize = 64 << 10;

impl Node {
    /// Two peers did not agree on the protocol of a stream, or not within what its lines may be.
    pub(super) fn disagreed(&mut self, id: StreamId, error: &NegotiateError) {
        let fault = match error {
            NegotiateError::Unsupported => {
                self.counters.add("streams.unsupported", 1);
                StreamFault::Unsupported
            }
            NegotiateError::TooManyProposals => self.broken(error.to_string()),
            _ if self.has_refused(id) => return self.refuse(id),
            _ => self.broken(error.to_string()),
        };
        self.fail_stream(id, fault);
    }

    /// A remote ended its direction in the middle of a negotiation or of a frame.
    pub(super) fn ended_in_the_middle(&mut self, id: StreamId) {
        if self.has_refused(id) {
            return self.refuse(id);
        }
        self.fail_stream(id, StreamFault::Malformed("ended in the middle".into()));
    }

    /// Takes note of what comes on a refused stream, which nobody reads.
    pub(super) fn talks_on(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let Mode::Refused { discarded } = &mut stream.mode else { return };
        let before = *discarded;
        *discarded = before.saturating_add(bytes);
        if before <= PATIENCE_BYTES && *discarded > PATIENCE_BYTES {
            self.counters.add("streams.refused.talked_on", 1);
            self.transport.stop(stream.connection, stream.number, codes::stream::NEGOTIATION_FAILED);
        }
    }

    /// The time for the end of a refused stream is over.
    pub(super) fn refusal_expired(&mut self, id: StreamId) {
        self.counters.add("streams.refused.timeout", 1);
        self.drop_stream_because(id, codes::stream::NEGOTIATION_FAILED);
    }

    fn broken(&mut self, why: String) -> StreamFault {
        self.counters.add("streams.negotiation.malformed", 1);
        StreamFault::Malformed(why)
    }

    /// Whether it proposed something that we do not speak, and nothing else.
    fn has_refused(&self, id: StreamId) -> bool {
        let mode = self.streams.get(id).map(|stream| &stream.mode);
        matches!(mode, Some(Mode::Listening(listener)) if listener.has_refused())
    }

    fn refuse(&mut self, id: StreamId) {
        self.counters.add("streams.refused.unspoken", 1);
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.mode = Mode::Refused { discarded: 0 };
        stream.finishing = true;
        self.streams.set_deadline(id, Some(self.now + PATIENCE));
        self.work.push_back(Work::Write(id));
        self.work.push_back(Work::Read(id));
    }
}
