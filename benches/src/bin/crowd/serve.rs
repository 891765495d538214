//! Peers that send without end, or send back.

use std::collections::BTreeMap;

use bytes::Bytes;
use peerless_benches::crowd::Crowd;
use peerless_core::{
    Multiaddr,
    ids::StreamId,
    node::{AppStreamEvent, Event, Node, Read, StreamError},
    time::Instant,
};
use serde_json::json;

use crate::{ECHO, Failure, SOURCE, print, reserve_all};

const STREAMS_PER_PEER: usize = 1024;
const CHUNK: usize = 64 << 10;
static ZEROS: [u8; CHUNK] = [0; CHUNK];

enum Service {
    /// Zeros, until the remote has enough.
    Source(Bytes),
    /// Holds what was read and not yet written.
    Echo(Bytes),
}

/// Serves until killed.
pub(crate) fn run(crowd: &mut Crowd, peers: usize, relay: Option<Multiaddr>) -> Result<(), Failure> {
    let mut members = Vec::new();
    for _ in 0..peers {
        members.push(crowd.add(&[SOURCE, ECHO], STREAMS_PER_PEER)?);
    }
    let addresses = match &relay {
        Some(relay) => reserve_all(crowd, relay, &members, 1)?,
        None => members.iter().map(|member| crowd.address(*member)).collect(),
    };
    let addresses: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
    print(&json!({ "event": "serving", "addresses": addresses }));

    let mut services = BTreeMap::new();
    loop {
        let until = crowd.now() + crate::PATIENCE;
        let Some((member, Event::Stream { stream, event })) = crowd.next(until)? else { continue };
        match event {
            AppStreamEvent::Accepted { protocol, .. } if protocol == SOURCE => {
                services.insert((member, stream), Service::Source(Bytes::new()));
            }
            AppStreamEvent::Accepted { .. } => {
                services.insert((member, stream), Service::Echo(Bytes::new()));
            }
            AppStreamEvent::Reset(_) => _ = services.remove(&(member, stream)),
            _ => {}
        }
        let Some(service) = services.get_mut(&(member, stream)) else { continue };
        let (node, now) = crowd.node(member);
        if service.step(node, now, stream).is_err() {
            node.reset(now, stream);
            services.remove(&(member, stream));
        }
    }
}

impl Service {
    fn step(&mut self, node: &mut Node, now: Instant, stream: StreamId) -> Result<(), StreamError> {
        loop {
            match self {
                Self::Source(left) if left.is_empty() => *left = Bytes::from_static(&ZEROS),
                Self::Echo(held) if held.is_empty() => match node.read(now, stream, CHUNK)? {
                    Read::Data(data) => *held = data,
                    Read::Blocked => return Ok(()),
                    Read::Finished => return node.finish(now, stream),
                },
                Self::Source(held) | Self::Echo(held) => {
                    if node.write(now, stream, held)? == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}
