//! A transport of somebody else's: connections through a middle node that knows both ends, over a protocol and with a
//! form of address of its own, `/…/p2p/MIDDLE/memory/7/p2p/TARGET`.

use std::collections::BTreeMap;

use multiaddr::Protocol;
use peerless_core::{
    Multiaddr, PeerId,
    behaviour::{Action, Behaviour, Context, Input, Reply, StreamEvent},
    errors::{AttemptError, DialError},
    ids::{ConnectionId, StreamId, Token},
    names::{CircuitLimit, Framing, ProtocolName, ProtocolSpec, SpliceLimit, UpgradeRole},
};

const TUNNEL: ProtocolName = ProtocolName::from_static("/test/tunnel/1.0.0");
const MARK: Protocol<'static> = Protocol::Memory(7);

/// The address of `target` through the middle node at `middle`.
pub(crate) fn tunnel_address(middle: &Multiaddr, target: PeerId) -> Multiaddr {
    middle.clone().with(MARK).with(Protocol::P2p(target))
}

/// A way to be asked for, on behalf of a dial if it has a token.
#[derive(Clone, Debug)]
struct Way {
    dial: Option<Token>,
    target: PeerId,
    place: Option<Multiaddr>,
}

/// What a stream, or one that is asked for, is about.
#[derive(Clone, Debug)]
enum Purpose {
    /// We dial: the middle node is to be asked, or was.
    Way(Way),
    /// We are the middle: this one leads to the target, and waits for its word.
    Onward(StreamId, PeerId),
    /// Somebody else's, of this peer.
    Theirs(PeerId),
}

/// One node's part, whichever it plays.
#[derive(Debug)]
pub(crate) struct Tunnel {
    specs: [ProtocolSpec; 1],
    asked: BTreeMap<Token, Purpose>,
    streams: BTreeMap<StreamId, Purpose>,
}

impl Default for Tunnel {
    fn default() -> Self {
        let framing = Framing::Varint { max: 256 };
        let specs = [ProtocolSpec { name: TUNNEL, framing, inbound_per_peer: 8 }];
        Self { specs, asked: BTreeMap::new(), streams: BTreeMap::new() }
    }
}

impl Tunnel {
    /// Makes a connection to `target` that nobody dials.
    pub(crate) fn reach(&mut self, cx: &mut Context<'_>, middle: ConnectionId, target: PeerId) {
        let token = cx.open(middle, TUNNEL);
        self.asked.insert(token, Purpose::Way(Way { dial: None, target, place: None }));
    }

    fn dial(&mut self, cx: &mut Context<'_>, token: Token, address: Multiaddr) {
        let mut place = address.clone();
        let Some(Protocol::P2p(target)) = place.pop() else { return };
        let mut middle = place.clone();
        middle.pop();
        let way = Way { dial: Some(token), target, place: Some(place) };
        let step = cx.dial(None, vec![middle]);
        self.asked.insert(step, Purpose::Way(way));
    }

    fn opened(&mut self, cx: &mut Context<'_>, stream: StreamId, purpose: Purpose) {
        match &purpose {
            Purpose::Way(way) => cx.send(stream, said(b't', &way.target)),
            Purpose::Onward(_, source) => cx.send(stream, said(b'f', source)),
            Purpose::Theirs(_) => {}
        }
        self.streams.insert(stream, purpose);
    }

    fn heard(&mut self, cx: &mut Context<'_>, stream: StreamId, frame: &[u8]) {
        match self.streams.remove(&stream) {
            Some(Purpose::Way(Way { dial, target, place })) => {
                upgrade(cx, stream, dial, target, UpgradeRole::Initiator, place);
            }
            Some(Purpose::Onward(inbound, _)) => {
                cx.send(inbound, "ok");
                cx.splice(inbound, stream, SpliceLimit::default());
            }
            Some(Purpose::Theirs(from)) => self.asked_for(cx, stream, from, frame),
            None => {}
        }
    }

    /// A remote says to whom it wants, or from whom the stream is.
    fn asked_for(&mut self, cx: &mut Context<'_>, stream: StreamId, from: PeerId, frame: &[u8]) {
        let Some((kind, peer)) = frame.split_first() else { return cx.reset(stream) };
        let Ok(peer) = PeerId::from_bytes(peer) else { return cx.reset(stream) };
        match (*kind, cx.view().connections.best(&peer)) {
            (b't', Some(onward)) => {
                let token = cx.open(onward, TUNNEL);
                self.asked.insert(token, Purpose::Onward(stream, from));
            }
            (b'f', _) => {
                cx.send(stream, "ok");
                upgrade(cx, stream, None, peer, UpgradeRole::Responder, None);
            }
            _ => cx.reset(stream),
        }
    }
}

fn fail(cx: &mut Context<'_>, way: &Way) {
    let Some(token) = way.dial else { return };
    let address = way.place.clone().unwrap_or_else(Multiaddr::empty);
    let error = DialError::one(address, AttemptError::RelayUnreachable("no way".into()));
    cx.push(Action::DialFailed { token, error });
}

fn said(kind: u8, peer: &PeerId) -> Vec<u8> {
    [vec![kind], peer.to_bytes()].concat()
}

fn upgrade(
    cx: &mut Context<'_>,
    stream: StreamId,
    dial: Option<Token>,
    peer: PeerId,
    role: UpgradeRole,
    address: Option<Multiaddr>,
) {
    let (token, limit) = (cx.token(), CircuitLimit::default());
    cx.push(Action::Upgrade { token, dial, stream, peer, role, limit, address });
}

impl Behaviour for Tunnel {
    fn name(&self) -> &'static str {
        "tunnel"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.specs
    }

    fn dials(&self, address: &Multiaddr) -> bool {
        address.iter().any(|part| part == MARK)
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Dial(token, address) => self.dial(cx, token, address),
            Input::Reply(token, Reply::Dial(result)) => {
                let Some(Purpose::Way(way)) = self.asked.remove(&token) else { return };
                match result {
                    Ok(middle) => {
                        let token = cx.open(middle, TUNNEL);
                        self.asked.insert(token, Purpose::Way(way));
                    }
                    Err(_) => fail(cx, &way),
                }
            }
            Input::Reply(token, Reply::Stream(result)) => match (self.asked.remove(&token), result) {
                (Some(purpose), Ok(stream)) => self.opened(cx, stream, purpose),
                (Some(Purpose::Way(way)), Err(_)) => fail(cx, &way),
                (Some(Purpose::Onward(inbound, _)), Err(_)) => cx.reset(inbound),
                _ => {}
            },
            Input::Stream(stream, StreamEvent::Accepted { peer, .. }) => {
                self.streams.insert(stream, Purpose::Theirs(peer));
            }
            Input::Stream(stream, StreamEvent::Frame(frame)) => self.heard(cx, stream, &frame),
            Input::Stream(stream, StreamEvent::Reset(_)) => match self.streams.remove(&stream) {
                Some(Purpose::Way(way)) => fail(cx, &way),
                Some(Purpose::Onward(inbound, _)) => cx.reset(inbound),
                _ => {}
            },
            _ => {}
        }
    }
}
