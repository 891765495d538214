//! A relay without a protocol: what comes on a stream of one peer goes out on a stream to another.

use std::collections::BTreeMap;

use peerless_core::{
    PeerId,
    behaviour::{Behaviour, Context, Input, Reply, StreamEvent},
    ids::{StreamId, Token},
    names::{Framing, ProtocolName, ProtocolSpec, SpliceLimit},
};

/// What the source opens.
pub(crate) const FORWARD: ProtocolName = ProtocolName::from_static("/bench/forward/1.0.0");
/// What the target serves: a greeting of one byte, then it reads to the end.
pub(crate) const SINK: ProtocolName = ProtocolName::from_static("/bench/sink/1.0.0");

/// Splices each [`FORWARD`] stream with a new [`SINK`] stream to the target.
pub(crate) struct Forward {
    target: PeerId,
    protocols: [ProtocolSpec; 2],
    opening: BTreeMap<Token, StreamId>,
    /// Sinks that have not greeted yet, and the streams they are for.
    greeting: BTreeMap<StreamId, StreamId>,
}

impl Forward {
    pub(crate) fn new(target: PeerId) -> Self {
        let spec = |name, inbound_per_peer| ProtocolSpec { name, framing: Framing::Raw, inbound_per_peer };
        let protocols = [spec(FORWARD, 1), spec(SINK, 0)];
        Self { target, protocols, opening: BTreeMap::new(), greeting: BTreeMap::new() }
    }
}

impl Behaviour for Forward {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Stream(source, StreamEvent::Accepted { .. }) => {
                match cx.view().connections.best(&self.target) {
                    Some(connection) => {
                        self.opening.insert(cx.open(connection, SINK), source);
                    }
                    None => cx.reset(source),
                }
            }
            Input::Reply(token, Reply::Stream(sink)) => {
                let Some(source) = self.opening.remove(&token) else { return };
                match sink {
                    Ok(sink) => {
                        self.greeting.insert(sink, source);
                    }
                    Err(_) => cx.reset(source),
                }
            }
            // The sink has agreed and greets: it may be joined, and the source writes once it is greeted.
            Input::Stream(sink, StreamEvent::Frame(greeting)) => {
                if let Some(source) = self.greeting.remove(&sink) {
                    cx.send(source, greeting);
                    cx.splice(source, sink, SpliceLimit::default());
                }
            }
            _ => {}
        }
    }
}
