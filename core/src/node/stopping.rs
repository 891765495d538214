//! Wanting no more of what one side of a stream sends (STOP_SENDING, RFC 9000 section 19.5).

use super::{Node, pump::Work};
use crate::{
    behaviour::{Input, StreamEvent},
    ids::StreamId,
    streams::{Mode, Owner, Stream},
};

impl Node {
    /// We want no more of what the remote sends, for this reason. It hears of that when it has agreed on the protocol.
    pub(super) fn stop_stream(&mut self, id: StreamId, code: u64) {
        let Some(found) = self.streams.get_mut(id) else { return };
        match found.mode {
            Mode::Proposing(..) | Mode::Pulled(_) | Mode::Framed(_) if !found.remote_finished => {}
            _ => return,
        }
        found.stop_code = code;
        match std::mem::replace(&mut found.mode, Mode::Draining) {
            Mode::Proposing(dialer, _) => found.mode = Mode::ProposingUnheard(dialer),
            _ => {
                found.remote_finished = true;
                let (connection, number) = (found.connection, found.number);
                self.transport.stop(connection, number, code);
                self.remove_if_over(id);
            }
        }
    }

    /// The remote says that it wants no more.
    pub(super) fn remote_stopped(&mut self, id: StreamId, code: u64) {
        self.stream_stopped(id, code);
        self.tell_owner_later(id, StreamEvent::Stopped(code));
    }

    /// The remote wants no more of what we send; what it sends can still be read.
    pub(super) fn stream_stopped(&mut self, id: StreamId, code: u64) {
        let Some(stream) = self.streams.get_mut(id).filter(|s| s.stopped.is_none()) else { return };
        stream.stop(code);
        self.transport.reset_ours(stream.connection, stream.number);
        self.work.push_back(Work::Write(id));
    }

    /// Gives the behaviour that a stream belongs to an event in its turn.
    fn tell_owner_later(&mut self, id: StreamId, event: StreamEvent) {
        if let Some(Stream { owner: Owner::Behaviour(index), mode, .. }) = self.streams.get(id)
            && !matches!(mode, Mode::Spliced(_) | Mode::Carrying(_))
        {
            self.work.push_back(Work::Input(*index, Input::Stream(id, event)));
        }
    }
}
