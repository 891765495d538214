//! Dialling through circuits: connect to the relay, ask it, and hand the stream over.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::{
    address::CircuitAddr,
    pb::{
        self,
        relay::{HopMessage, HopType},
    },
};

use super::{
    super::{Status, direct_connection, wire},
    Client, Purpose, Request, Timer,
};
use crate::{
    behaviour::{Action, Context},
    event::{AttemptError, DialError, OpenError, UpgradeRole},
    ids::{ConnectionId, StreamId, Token},
    time::Instant,
};

/// A dial through a relay. Its timeout ends each stage.
#[derive(Debug)]
pub(super) struct Circuit {
    address: Multiaddr,
    target: PeerId,
    until: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No connection to the relay yet; until the dial has an outcome.
    Connecting,
    /// CONNECT; until an answer, a fault, or the end of the connection.
    Requesting(Request),
}

impl Client {
    pub(super) fn on_dial(&mut self, cx: &mut Context<'_>, token: Token, address: Multiaddr) {
        let (circuit, target) = match parse(&address, cx.view().local_peer()) {
            Ok(parsed) => parsed,
            Err(error) => return refuse(cx, token, address, error),
        };
        let stage = if let Some(connection) = direct_connection(cx.view(), &circuit.relay) {
            let purpose = Purpose::Connect(token);
            Stage::Requesting(Request::Opening(self.open(cx, connection, purpose)))
        } else if circuit.relay_addr.is_empty() {
            let error = AttemptError::RelayUnreachable("the address does not say where it is".into());
            return refuse(cx, token, address, error);
        } else {
            let link = self.link(cx, circuit.relay, circuit.relay_with_peer());
            if let Some(link) = self.links.get_mut(&link) {
                link.circuits.push(token);
            }
            Stage::Connecting
        };
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, Timer::Circuit(token));
        self.circuits.insert(token, Circuit { address, target, until, stage });
    }

    pub(super) fn circuit_linked(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: &Result<ConnectionId, DialError>,
    ) {
        if !self.circuits.contains_key(&token) {
            return;
        }
        match result {
            Ok(connection) => {
                let request = Request::Opening(self.open(cx, *connection, Purpose::Connect(token)));
                if let Some(circuit) = self.circuits.get_mut(&token) {
                    circuit.stage = Stage::Requesting(request);
                }
            }
            Err(error) => {
                self.circuit_failed(cx, token, AttemptError::RelayUnreachable(error.to_string()));
            }
        }
    }

    pub(super) fn circuit_opened(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: Result<StreamId, OpenError>,
    ) {
        let Some(circuit) = self.circuits.get_mut(&token) else { return };
        match result {
            Ok(stream) => {
                circuit.stage = Stage::Requesting(Request::Asked(stream));
                cx.send(stream, wire::encode(&HopMessage::connect(circuit.target.to_bytes())));
            }
            Err(error) => {
                self.circuit_failed(cx, token, AttemptError::RelayUnreachable(error.to_string()));
            }
        }
    }

    pub(super) fn circuit_answered(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        stream: StreamId,
        frame: &[u8],
    ) {
        let answer = pb::decode::<HopMessage>(frame).ok();
        let Some(answer) = answer.filter(|answer| answer.kind() == Some(HopType::Status)) else {
            return self.circuit_failed(cx, token, AttemptError::RelayFault("not an answer".into()));
        };
        match Status::from(answer.status) {
            Status::Ok => {
                let Some(Circuit { target: peer, .. }) = self.remove_circuit(token) else { return };
                self.streams.remove(stream);
                let limit = wire::limit_from_wire(answer.limit.as_ref());
                cx.push(Action::Upgrade { token, stream, peer, role: UpgradeRole::Initiator, limit });
            }
            status => {
                if let Some((connection, _)) = self.take(stream) {
                    self.close(cx, stream, connection);
                }
                self.circuit_failed(cx, token, AttemptError::RelayRefused(status));
            }
        }
    }

    pub(super) fn circuit_failed(&mut self, cx: &mut Context<'_>, token: Token, error: AttemptError) {
        let Some(circuit) = self.remove_circuit(token) else { return };
        if let Stage::Requesting(request) = circuit.stage {
            self.drop_request(cx, request);
        }
        refuse(cx, token, circuit.address, error);
    }

    fn remove_circuit(&mut self, token: Token) -> Option<Circuit> {
        let circuit = self.circuits.remove(&token)?;
        self.timers.clear(circuit.until, Timer::Circuit(token));
        Some(circuit)
    }
}

fn refuse(cx: &mut Context<'_>, token: Token, address: Multiaddr, error: AttemptError) {
    cx.count("relay.client.dial_failed");
    cx.push(Action::DialFailed { token, error: DialError::one(address, error) });
}

fn parse(address: &Multiaddr, us: PeerId) -> Result<(CircuitAddr, PeerId), AttemptError> {
    let unsupported = |why: &dyn ToString| AttemptError::Unsupported(why.to_string());
    let circuit = CircuitAddr::parse(address).map_err(|error| unsupported(&error))?;
    let target = circuit.target.ok_or_else(|| unsupported(&"circuit address does not name its target"))?;
    if target == us || circuit.relay == us {
        return Err(AttemptError::Own);
    }
    Ok((circuit, target))
}
