//! Asking the target of a circuit, over one of its connections after the other.

use peerless_proto::pb::{
    self,
    relay::{StopMessage, StopType},
};
use smallvec::SmallVec;

use super::{
    super::{STOP, limits::Refusal, wire},
    CircuitId, Hop, Stage, State, Timer,
};
use crate::{
    behaviour::{Context, View},
    errors::{OpenError, RelayStatus},
    ids::{ConnectionId, StreamId, Token},
};

/// Most connections over which a target is asked for one circuit.
const MAX_CONNECTIONS: usize = 3;

/// While there is another connection to ask over, the target has this part of the timeout to answer on one.
const PATIENCE: u32 = 3;

impl Hop {
    /// Asks the target over the next of its connections. If there is none, the circuit fails for the reason for which the
    /// one before was no good.
    pub(super) fn ask_target(&mut self, cx: &mut Context<'_>, id: CircuitId, before: Refusal) {
        let Some(circuit) = self.circuits.get(&id) else { return };
        let ways = self.ways_to(cx.view(), id);
        let (Some(connection), Stage::Choosing | Stage::Opening(_) | Stage::Asking(_)) =
            (ways.first().copied(), circuit.stage)
        else {
            return self.fail(cx, id, before);
        };
        if before != Refusal::NoReservation {
            cx.count("relay.hop.asked_elsewhere");
        }
        self.drop_target(cx, id);
        let token = cx.open(connection, STOP);
        let patience = if ways.len() > 1 { self.config.timeout / PATIENCE } else { self.config.timeout };
        let until = cx.now() + patience;
        self.opening.insert(token, connection, id);
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        circuit.tried.push(connection);
        circuit.stage = Stage::Opening(token);
        if let Some(old) = circuit.until.replace(until) {
            self.timers.clear(old, Timer::Circuit(id));
        }
        self.timers.set(until, Timer::Circuit(id));
    }

    /// The direct connections over which the target was not asked yet, the best first: what another connection superseded
    /// comes last, and of the others the one from which it reserved first, then the newest.
    fn ways_to(&self, view: View<'_>, id: CircuitId) -> SmallVec<[ConnectionId; 2]> {
        let Some(circuit) = self.circuits.get(&id) else { return SmallVec::new() };
        let reserved = self.reservations.get(&circuit.target).map(|held| held.connection);
        let all = view.connections.of(&circuit.target).iter().rev();
        let direct = all.filter_map(|id| view.connections.get(*id)).filter(|info| info.relayed.is_none());
        let mut ways: SmallVec<[_; 2]> = direct.filter(|info| !circuit.tried.contains(&info.id)).collect();
        ways.sort_by_key(|info| (info.is_superseded, Some(info.id) != reserved));
        ways.truncate(MAX_CONNECTIONS.saturating_sub(circuit.tried.len()));
        ways.into_iter().map(|info| info.id).collect()
    }

    pub(super) fn on_opened(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: Result<StreamId, OpenError>,
    ) {
        let Some((connection, id)) = self.opening.remove(token) else {
            // The circuit was given up while its stream was being opened.
            if let Ok(stream) = result {
                cx.reset(stream);
            }
            return;
        };
        let Some(circuit) = self.circuits.get_mut(&id) else { return };
        match result {
            Ok(stream) => {
                circuit.stage = Stage::Asking(stream);
                let limit = wire::limit_to_wire(self.config.limits.circuit());
                cx.send(stream, wire::encode(&StopMessage::connect(circuit.source.to_bytes(), limit)));
                self.streams.insert(stream, connection, State::Target(id));
            }
            Err(_) => self.ask_target(cx, id, Refusal::StopUnopened),
        }
    }

    pub(super) fn on_stop_answer(
        &mut self,
        cx: &mut Context<'_>,
        id: CircuitId,
        stream: StreamId,
        frame: &[u8],
    ) {
        let message = pb::decode::<StopMessage>(frame).ok();
        match message.filter(|message| message.kind() == Some(StopType::Status)) {
            Some(answer) if RelayStatus::from(answer.status) == RelayStatus::Ok => self.join(cx, id, stream),
            Some(_) => self.fail(cx, id, Refusal::StopRefused),
            None => self.fail(cx, id, Refusal::StopFault),
        }
    }

    /// Gives up the stream to the target.
    pub(super) fn drop_target(&mut self, cx: &mut Context<'_>, id: CircuitId) {
        match self.circuits.get(&id).map(|circuit| circuit.stage) {
            Some(Stage::Opening(token)) => {
                self.opening.remove(token);
            }
            // A stream that is lost already is not in the table any more.
            Some(Stage::Asking(stream)) if self.streams.remove(stream).is_some() => cx.reset(stream),
            _ => {}
        }
    }
}
