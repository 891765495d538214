//! Requests that others make of us.

use libp2p_identity::PeerId;

use crate::{
    behaviour::Context,
    ids::{ConnectionId, StreamId},
    protocols::by_connection::ByConnection,
    time::{Deadline, Instant, Timers},
};

/// Streams that others opened to ask something.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    streams: ByConnection<StreamId, Asking>,
    timers: Timers<StreamId>,
}

#[derive(Debug)]
struct Asking {
    peer: PeerId,
    until: Instant,
    state: State,
}

/// What a stream waits for. Besides what is listed, a reset, the end of its connection and its time limit end each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The request; until it comes.
    Reading,
    /// Our response; until it is sent.
    Answering { remote_finished: bool },
    /// The remote's end of stream; until it comes.
    Closing,
}

impl Inbound {
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn accepted(
        &mut self,
        stream: StreamId,
        connection: ConnectionId,
        peer: PeerId,
        until: Instant,
    ) {
        self.timers.set(until, stream);
        self.streams.insert(stream, connection, Asking { peer, until, state: State::Reading });
    }

    /// The stream's request has come; whose it is. `None` if it is not the first.
    pub(super) fn asked(&mut self, stream: StreamId) -> Option<(ConnectionId, PeerId)> {
        let asking = self.streams.get_mut(stream).filter(|asking| asking.state == State::Reading)?;
        asking.state = State::Answering { remote_finished: false };
        self.streams.entry(stream).map(|(connection, asking)| (connection, asking.peer))
    }

    pub(super) fn is_answering(&self, stream: StreamId) -> bool {
        self.streams.get(stream).is_some_and(|asking| matches!(asking.state, State::Answering { .. }))
    }

    /// Our response and our end of stream are on their way.
    pub(super) fn answered(&mut self, stream: StreamId) {
        let Some(asking) = self.streams.get_mut(stream) else { return };
        match asking.state {
            State::Answering { remote_finished: true } => self.lost(stream),
            _ => asking.state = State::Closing,
        }
    }

    /// The remote sends no more.
    pub(super) fn finished(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        let Some(asking) = self.streams.get_mut(stream) else { return };
        match &mut asking.state {
            State::Answering { remote_finished } => *remote_finished = true,
            State::Closing => self.lost(stream),
            State::Reading => {
                cx.count("request_response.refused.malformed");
                self.give_up(cx, stream);
            }
        }
    }

    /// The stream is over.
    pub(super) fn lost(&mut self, stream: StreamId) {
        if let Some((_, asking)) = self.streams.remove(stream) {
            self.timers.clear(asking.until, stream);
        }
    }

    /// Resets the stream.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, stream: StreamId) {
        if self.streams.get(stream).is_some() {
            self.lost(stream);
            cx.reset(stream);
        }
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        for (stream, asking) in self.streams.remove_connection(connection) {
            self.timers.clear(asking.until, stream);
        }
    }

    pub(super) fn expire(&mut self, cx: &mut Context<'_>) {
        while let Some((_, stream)) = self.timers.pop_due(cx.now()) {
            cx.count("request_response.timed_out");
            self.give_up(cx, stream);
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.timers.next().map(|at| Deadline::new(at, "request"))
    }
}
