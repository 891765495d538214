//! Clients of a point, all in this thread, each with a connection and an identity of its own.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use peerless_benches::crowd::Crowd;
use peerless_core::{
    Multiaddr,
    identity::Identity,
    ids::{ConnectionId, StreamId},
    names::ProtocolName,
    node::{AppStreamEvent, Event, Read},
};
use peerless_proto::{
    pb::{
        Message as _,
        rendezvous::{Discover, Message, MessageType, Register, ResponseStatus},
    },
    peer_record::{Dialect, PeerRecord},
};

use crate::Failure;

const RENDEZVOUS: ProtocolName = ProtocolName::from_static("/rendezvous/1.0.0");
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests under way at the same time.
const AT_ONCE: usize = 64;
/// Connections being set up at the same time.
const DIALS_AT_ONCE: usize = 32;
/// What rust-libp2p's point takes at the least.
const TTL: u64 = 7200;
/// An answer is shorter.
const MAX_ANSWER: usize = 1 << 20;

struct Client {
    member: usize,
    connection: ConnectionId,
    identity: Identity,
    address: Multiaddr,
    records: u64,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// To be found in this namespace.
    Register(String),
    /// Who is found in this namespace: one page, which has to be full.
    Discover(String, usize),
}

/// All clients.
pub(crate) struct Load {
    crowd: Crowd,
    clients: Vec<Client>,
}

impl Load {
    /// Connects so many clients to a point.
    pub(crate) fn connect(point: &Multiaddr, clients: usize) -> Result<Self, Failure> {
        let mut load = Self { crowd: Crowd::new()?, clients: Vec::with_capacity(clients) };
        let mut waiting = BTreeMap::new();
        while load.clients.len() < clients {
            while waiting.len() < DIALS_AT_ONCE && load.clients.len() + waiting.len() < clients {
                let identity = load.crowd.identity();
                let member = load.crowd.add_as(identity.clone(), &[RENDEZVOUS], 0)?;
                let (node, now) = load.crowd.node(member);
                node.dial(now, None, std::slice::from_ref(point));
                waiting.insert(member, identity);
            }
            match load.event()? {
                (member, Event::Dialed { connection, .. }) => {
                    let Some(identity) = waiting.remove(&member) else { continue };
                    let address = load.crowd.address(member);
                    load.clients.push(Client { member, connection, identity, address, records: 0 });
                }
                (_, Event::DialFailed { error, .. }) => return Err(format!("dial: {error}").into()),
                _ => {}
            }
        }
        Ok(load)
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Has each request asked by the client with that number, and wants a good answer to each.
    pub(crate) fn ask(
        &mut self,
        requests: impl IntoIterator<Item = (usize, Request)>,
    ) -> Result<(), Failure> {
        let mut requests = requests.into_iter();
        let mut pending = BTreeMap::new();
        loop {
            while pending.len() < AT_ONCE {
                let Some((client, request)) = requests.next() else { break };
                let bytes = self.clients[client].encode(&request)?;
                let Client { member, connection, .. } = self.clients[client];
                let stream = self.send(member, connection, bytes)?;
                pending.insert((member, stream), (request, Vec::new()));
            }
            if pending.is_empty() {
                return Ok(());
            }
            let (member, event) = self.event()?;
            match event {
                Event::Stream { event: AppStreamEvent::Reset(fault), .. } => {
                    return Err(format!("a request was refused: {fault}").into());
                }
                Event::Disconnected { reason, .. } => {
                    return Err(format!("a connection was lost: {reason}").into());
                }
                Event::Stream { stream, .. } => {
                    let Some((request, answer)) = pending.get_mut(&(member, stream)) else { continue };
                    if self.read(member, stream, answer)? {
                        check(request, answer)?;
                        pending.remove(&(member, stream));
                    }
                }
                _ => {}
            }
        }
    }

    /// rust-libp2p takes one request a stream.
    fn send(&mut self, member: usize, connection: ConnectionId, bytes: Bytes) -> Result<StreamId, Failure> {
        let (node, now) = self.crowd.node(member);
        let stream = node.open(now, connection, &RENDEZVOUS)?;
        let mut rest = bytes;
        node.write(now, stream, &mut rest)?;
        if !rest.is_empty() {
            return Err("no room for a request".into());
        }
        node.finish(now, stream)?;
        Ok(stream)
    }

    /// Whether the answer is there to its end.
    fn read(&mut self, member: usize, stream: StreamId, answer: &mut Vec<u8>) -> Result<bool, Failure> {
        let (node, now) = self.crowd.node(member);
        loop {
            match node.read(now, stream, MAX_ANSWER)? {
                Read::Data(data) => answer.extend_from_slice(&data),
                Read::Blocked => return Ok(false),
                Read::Finished => return Ok(true),
            }
        }
    }

    fn event(&mut self) -> Result<(usize, Event), Failure> {
        let until = self.crowd.now() + PATIENCE;
        self.crowd.next(until)?.ok_or_else(|| format!("nothing happened for {} s", PATIENCE.as_secs()).into())
    }
}

impl Client {
    /// A new record each time, as clients make them, in the form that both points take.
    fn encode(&mut self, request: &Request) -> Result<Bytes, Failure> {
        let message = match request {
            Request::Register(namespace) => {
                self.records += 1;
                let addresses = vec![self.address.clone()];
                let record = PeerRecord { peer: self.identity.peer(), seq: self.records, addresses };
                let record = record.seal(self.identity.keypair(), Dialect::RoutingState)?.encode();
                let ns = Some(namespace.clone());
                let register =
                    Register { ns, signed_peer_record: Some(record), ttl: Some(TTL), other_record: None };
                let kind = Some(MessageType::Register as i32);
                Message { r#type: kind, register: Some(register), ..Default::default() }
            }
            Request::Discover(namespace, limit) => {
                let (ns, limit) = (Some(namespace.clone()), Some(*limit as u64));
                let discover = Discover { ns, limit, ..Default::default() };
                let kind = Some(MessageType::Discover as i32);
                Message { r#type: kind, discover: Some(discover), ..Default::default() }
            }
        };
        Ok(message.encode_length_delimited_to_vec().into())
    }
}

fn check(request: &Request, answer: &[u8]) -> Result<(), Failure> {
    let message = Message::decode_length_delimited(answer)?;
    let status = match (&message.register_response, &message.discover_response) {
        (Some(answer), None) => answer.known_status(),
        (None, Some(answer)) => answer.known_status(),
        _ => None,
    };
    if status != Some(ResponseStatus::Ok) {
        return Err(format!("{request:?} was answered with {message:?}").into());
    }
    if let (Request::Discover(_, limit), Some(answer)) = (request, message.discover_response)
        && answer.registrations.len() != *limit
    {
        return Err(format!("a page has {} of {limit} registrations", answer.registrations.len()).into());
    }
    Ok(())
}
