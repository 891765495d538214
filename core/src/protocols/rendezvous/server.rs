//! The rendezvous point: takes registrations and answers who is registered.

mod config;

use peerless_proto::pb::{
    self, Message as _,
    rendezvous::{DiscoverResponse, Message, MessageType, RegisterResponse},
};

pub use self::config::{Config, Event, Limits};
use super::{Status, spec};
use crate::behaviour::{Behaviour, Context, Input, ProtocolSpec, StreamEvent};

/// Inbound streams that one peer may have open.
const STREAMS_PER_PEER: usize = 8;

/// The rendezvous point of one node.
#[derive(Debug)]
pub struct Server {
    #[allow(dead_code, reason = "the limits are not held yet")]
    config: Config,
    protocols: [ProtocolSpec; 1],
}

impl Server {
    /// The rendezvous point of one node.
    pub fn new(config: Config) -> Self {
        Self { config, protocols: [spec(STREAMS_PER_PEER)] }
    }
}

impl Behaviour for Server {
    fn name(&self) -> &'static str {
        "rendezvous"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.protocols
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        let Input::Stream(stream, event) = input else { return };
        let StreamEvent::Frame(frame) = event else {
            if event == StreamEvent::Finished {
                cx.finish(stream);
            }
            return;
        };
        let Ok(message) = pb::decode::<Message>(&frame) else { return cx.reset(stream) };
        let status = Some(Status::Unavailable.code());
        let answer = match message.kind() {
            Some(MessageType::Register) => Message {
                r#type: Some(MessageType::RegisterResponse as i32),
                register_response: Some(RegisterResponse { status, ..Default::default() }),
                ..Default::default()
            },
            Some(MessageType::Discover) => Message {
                r#type: Some(MessageType::DiscoverResponse as i32),
                discover_response: Some(DiscoverResponse { status, ..Default::default() }),
                ..Default::default()
            },
            _ => return,
        };
        cx.send(stream, answer.encode_to_vec());
    }
}
