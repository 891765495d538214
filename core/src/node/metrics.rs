//! What a node counts and holds, as data: names, help texts, labels and numbers for whoever exports them.
//!
//! Names follow the conventions of Prometheus; how the numbers are written down is the exporter's business.

mod rendezvous;
mod swarm;

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;
use peerless_proto::address::CircuitAddr;

use self::rendezvous::PointTotals;
use super::Node;
use crate::{
    errors::{CloseReason, RelayStatus},
    names::Direction,
    node::Event,
    protocols::{
        self,
        relay::{
            client::Client,
            hop::{self, CircuitEnd, Hop},
            score::RelayMetrics,
        },
    },
    swarm::addresses::AddressSource,
};

/// A snapshot of everything that a node counts and holds.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Each name once, always the same ones in the same order.
    pub families: Vec<Family>,
}

/// The samples of one name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Family {
    /// Its name; that of a counter ends in `_total`.
    pub name: &'static str,
    /// What is counted, in a sentence without its full stop.
    pub help: &'static str,
    /// How the values move.
    pub kind: MetricKind,
    /// The values, which differ in their labels.
    pub samples: Vec<Sample>,
}

/// How the values of a family move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Up only, from zero when the node was made.
    Counter,
    /// Up and down.
    Gauge,
}

/// One value of a family.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Names and values of its labels, the names being the same in the whole family.
    pub labels: Vec<(&'static str, Label)>,
    /// The value.
    pub value: Value,
}

/// The value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// One of a few words.
    Word(&'static str),
    /// A peer.
    Peer(PeerId),
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Value {
    /// How many.
    Whole(u64),
    /// How much.
    Real(f64),
}

impl Metrics {
    /// The value of the sample of `name` with exactly these labels, if there is one and it is a whole number.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let word = |(label, value): &(&'static str, Label)| match value {
            Label::Word(word) => Some((*label, *word)),
            Label::Peer(_) => None,
        };
        let same = |sample: &Sample| sample.labels.iter().map(word).eq(labels.iter().map(|l| Some(*l)));
        match self.find(name, same)? {
            Value::Whole(value) => Some(value),
            Value::Real(_) => None,
        }
    }

    /// The value of the sample of `name` that is about `peer` alone.
    pub fn get_of(&self, name: &str, peer: &PeerId) -> Option<Value> {
        self.find(name, |sample| matches!(&sample.labels[..], [(_, Label::Peer(about))] if about == peer))
    }

    fn find(&self, name: &str, wanted: impl Fn(&Sample) -> bool) -> Option<Value> {
        let family = self.families.iter().find(|family| family.name == name)?;
        family.samples.iter().find(|sample| wanted(sample)).map(|sample| sample.value)
    }
}

impl Node {
    /// Everything that the node counts and holds right now. The work grows with the number of connections, splices and
    /// known relays.
    pub fn metrics(&self) -> Metrics {
        let families = [
            self.held(),
            self.swarm_metrics(),
            self.known_relays(),
            self.relay_metrics(),
            self.point_metrics(),
            self.transport_metrics(),
        ];
        Metrics { families: families.into_iter().flatten().collect() }
    }

    fn held(&self) -> Vec<Family> {
        let stats = self.stats();
        let mut connections = Tally::zero(DIRECTIONS.iter().flat_map(|d| VIAS.map(|via| [*d, via])));
        for info in self.connections.iter() {
            connections.add([direction(info.direction), via(info.relayed.is_some())], 1);
        }
        let (busy, unread) = self.windows.as_ref().map_or((0, 0), |windows| windows.totals());
        let wanted = self.behaviour::<Client>().map_or(0, |client| client.relays().count());
        let relays: BTreeSet<PeerId> = self
            .addresses
            .of(AddressSource::Relay)
            .filter_map(|address| CircuitAddr::parse(address).ok())
            .map(|circuit| circuit.relay)
            .collect();
        vec![
            gauge(
                "peerless_connections",
                "Established connections",
                connections.samples(["direction", "via"]),
            ),
            gauge("peerless_streams", "Streams, those being negotiated included", one(stats.streams)),
            gauge("peerless_splices", "Pairs of streams that are joined to relay bytes", one(stats.splices)),
            gauge(
                "peerless_splices_busy",
                "Directions of them that are busy, among which the buffers of our sockets are shared",
                one(busy as usize),
            ),
            gauge(
                "peerless_splices_unread_credit_bytes",
                "Bytes that sources may send on because their sinks take less than they send",
                one(unread as usize),
            ),
            gauge(
                "peerless_circuits",
                "Circuits that end here, those being secured included",
                one(stats.circuits),
            ),
            gauge("peerless_dials", "Dials under way", one(stats.dials)),
            gauge(
                "peerless_timers",
                "Armed timers of streams, splices, circuits and dials",
                one(stats.timers),
            ),
            gauge("peerless_reservations", "Relays that forward to this node", one(relays.len())),
            gauge("peerless_reservations_wanted", "Relays that are to forward to this node", one(wanted)),
        ]
    }

    /// How well the relays work that this node uses or tried to.
    fn known_relays(&self) -> Vec<Family> {
        let known = self.behaviour::<Client>().map(|client| client.scores().export(self.now));
        let known = known.unwrap_or_default();
        let each = |value: &dyn Fn(&RelayMetrics) -> Option<Value>| {
            let sample = |metrics: &RelayMetrics| {
                let labels = vec![("relay", Label::Peer(metrics.relay))];
                Some(Sample { labels, value: value(metrics)? })
            };
            known.iter().filter_map(sample).collect()
        };
        let seconds = |ms: Option<f64>| ms.map(|ms| Value::Real(ms / 1000.0));
        let since = |metrics: &RelayMetrics| {
            self.now.saturating_duration_since(metrics.stats.last_updated).as_secs_f64()
        };
        vec![
            gauge(
                "peerless_known_relays",
                "Relays of which it is known how well they work",
                one(known.len()),
            ),
            gauge(
                "peerless_known_relay_score",
                "Score of each relay, lower is better; a relay that is not fit has none",
                each(&|metrics| metrics.score.map(Value::Real)),
            ),
            gauge(
                "peerless_known_relay_latency_seconds",
                "Average latency of each relay where it worked",
                each(&|metrics| seconds(metrics.stats.latency_ms)),
            ),
            gauge(
                "peerless_known_relay_failed_latency_seconds",
                "Average time that failed attempts to use each relay took",
                each(&|metrics| seconds(metrics.stats.failed_latency_ms)),
            ),
            gauge(
                "peerless_known_relay_success_ratio",
                "Successes per attempt to use each relay, 1 if there was none",
                each(&|metrics| Some(Value::Real(metrics.success_rate))),
            ),
            gauge(
                "peerless_known_relay_successes",
                "Attempts to use each relay that succeeded, counting less the longer ago they were",
                each(&|metrics| Some(Value::Real(metrics.stats.successes))),
            ),
            gauge(
                "peerless_known_relay_failures",
                "Attempts to use each relay that failed, counting less the longer ago they were",
                each(&|metrics| Some(Value::Real(metrics.stats.failures))),
            ),
            gauge(
                "peerless_known_relay_attempt_age_seconds",
                "Time since an attempt to use each relay was last recorded",
                each(&|metrics| Some(Value::Real(since(metrics)))),
            ),
            gauge(
                "peerless_known_relay_active_circuits",
                "Connections through each relay",
                each(&|metrics| Some(Value::Whole(metrics.stats.active_circuits.into()))),
            ),
        ]
    }

    fn relay_metrics(&self) -> Vec<Family> {
        let Totals { circuits_opened, circuits_closed, circuits_refused, .. } = &self.totals;
        let Totals { accepted, refused, ended, .. } = &self.totals;
        let (reservations, circuits) =
            self.behaviour::<Hop>().map_or((0, 0), |hop| (hop.reservations(), hop.circuits()));
        let (to_target, to_source) = self.splices.bytes();
        let bytes = Tally([(["to_target"], to_target), (["to_source"], to_source)].into());
        vec![
            gauge("peerless_relay_reservations", "Reservations that peers hold here", one(reservations)),
            gauge(
                "peerless_relay_circuits",
                "Circuits between peers, those being set up included",
                one(circuits),
            ),
            counter("peerless_relay_bytes_total", "Bytes relayed", bytes.samples(["direction"])),
            counter(
                "peerless_relay_circuits_opened_total",
                "Circuits that were joined",
                circuits_opened.samples([]),
            ),
            counter(
                "peerless_relay_circuits_closed_total",
                "Circuits that have ended, by why",
                circuits_closed.samples(["reason"]),
            ),
            counter(
                "peerless_relay_circuits_refused_total",
                "Circuits that were asked for in vain, by the status in the answer",
                circuits_refused.samples(["status"]),
            ),
            counter(
                "peerless_relay_reservations_accepted_total",
                "Reservations granted, for the first time and again",
                accepted.samples(["renewed"]),
            ),
            counter(
                "peerless_relay_reservations_refused_total",
                "Reservations that were asked for in vain, by the status in the answer",
                refused.samples(["status"]),
            ),
            counter(
                "peerless_relay_reservations_ended_total",
                "Reservations that are over, by why",
                ended.samples(["reason"]),
            ),
        ]
    }

    fn transport_metrics(&self) -> Vec<Family> {
        let quic = self.transport.quic.stats();
        let states = [
            (["connected"], quic.connected as u64),
            (["dialing"], quic.dialing as u64),
            (["half_open"], quic.half_open as u64),
            (["closing"], quic.closing as u64),
        ];
        let datagrams = [(["in"], quic.datagrams_in), (["out"], quic.datagrams_out)];
        let bytes = [(["in"], quic.bytes_in), (["out"], quic.bytes_out)];
        let mut named = Tally::default();
        for (name, value) in self.counters.iter().chain(quic.refused.named()) {
            let (scope, event) = name.rsplit_once('.').unwrap_or(("", name));
            named.add([scope, event], value);
        }
        vec![
            gauge(
                "peerless_quic_connections",
                "QUIC connections by state",
                Tally(states.into()).samples(["state"]),
            ),
            counter("peerless_datagrams_total", "Datagrams", Tally(datagrams.into()).samples(["direction"])),
            counter(
                "peerless_datagram_bytes_total",
                "Bytes in datagrams, without IP and UDP headers",
                Tally(bytes.into()).samples(["direction"]),
            ),
            counter(
                "peerless_handshakes_total",
                "Handshakes that made a connection or failed",
                self.totals.handshakes.samples(["direction", "via", "result"]),
            ),
            counter(
                "peerless_connections_closed_total",
                "Connections that have ended, by why",
                self.totals.closed.samples(["reason"]),
            ),
            counter(
                "peerless_counter_total",
                "Each refusal, drop and limit by its dotted name: the scope, a dot, the name",
                named.samples(["scope", "name"]),
            ),
        ]
    }
}

/// What happened since the node was made, as far as its tables do not tell.
#[derive(Debug)]
pub(super) struct Totals {
    handshakes: Tally<3>,
    closed: Tally<1>,
    circuits_opened: Tally<0>,
    circuits_closed: Tally<1>,
    circuits_refused: Tally<1>,
    accepted: Tally<1>,
    refused: Tally<1>,
    ended: Tally<1>,
    point: PointTotals,
}

impl Default for Totals {
    fn default() -> Self {
        let handshakes = DIRECTIONS.iter().flat_map(|d| VIAS.map(|via| (*d, via)));
        let handshakes = handshakes.flat_map(|(d, via)| [COMPLETED, FAILED].map(|result| [d, via, result]));
        let refusals = || Tally::zero(REFUSALS.map(|refusal| [status(refusal)]));
        Self {
            handshakes: Tally::zero(handshakes),
            closed: Tally::default(),
            circuits_opened: Tally::zero([[]]),
            circuits_closed: Tally::default(),
            circuits_refused: refusals(),
            accepted: Tally::zero([renewed(false), renewed(true)].map(|label| [label])),
            refused: refusals(),
            ended: Tally::default(),
            point: PointTotals::default(),
        }
    }
}

impl Totals {
    /// Counts what an event says.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Connected { direction: d, relay, .. } => {
                self.handshakes.add([direction(*d), via(relay.is_some()), COMPLETED], 1);
            }
            Event::Disconnected { reason, .. } => self.closed.add([close(reason)], 1),
            Event::Hop(event) => self.note_hop(event),
            Event::Rendezvous(protocols::rendezvous::Event::Server(event)) => self.point.note(event),
            _ => {}
        }
    }

    /// Counts a handshake that made no connection.
    pub(super) fn handshake_failed(&mut self, d: Direction, relayed: bool) {
        self.handshakes.add([direction(d), via(relayed), FAILED], 1);
    }

    fn note_hop(&mut self, event: &hop::Event) {
        match event {
            hop::Event::ReservationAccepted { renewed: again, .. } => self.accepted.add([renewed(*again)], 1),
            hop::Event::ReservationRefused { status: code, .. } => self.refused.add([status(*code)], 1),
            hop::Event::ReservationEnded { why, .. } => self.ended.add([why], 1),
            hop::Event::CircuitRefused { status: code, .. } => self.circuits_refused.add([status(*code)], 1),
            hop::Event::CircuitOpened { .. } => self.circuits_opened.add([], 1),
            hop::Event::CircuitClosed { end, .. } => self.circuits_closed.add([circuit_end(end)], 1),
        }
    }
}

/// Values by those of `N` labels.
#[derive(Debug)]
struct Tally<const N: usize>(BTreeMap<[&'static str; N], u64>);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<const N: usize> Tally<N> {
    /// Starts these at zero, so that they can be seen before anything happens.
    fn zero(known: impl IntoIterator<Item = [&'static str; N]>) -> Self {
        Self(known.into_iter().map(|values| (values, 0)).collect())
    }

    fn add(&mut self, values: [&'static str; N], n: u64) {
        let value = self.0.entry(values).or_default();
        *value = value.saturating_add(n);
    }

    fn samples(&self, names: [&'static str; N]) -> Vec<Sample> {
        let sample = |(values, value): (&[&'static str; N], &u64)| Sample {
            labels: names.into_iter().zip(values.map(Label::Word)).collect(),
            value: Value::Whole(*value),
        };
        self.0.iter().map(sample).collect()
    }
}

fn one(value: usize) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: Value::Whole(value as u64) }]
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, kind: MetricKind::Gauge, samples }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, kind: MetricKind::Counter, samples }
}

const INBOUND: &str = "inbound";
const OUTBOUND: &str = "outbound";
const DIRECTIONS: [&str; 2] = [INBOUND, OUTBOUND];
const DIRECT: &str = "direct";
const RELAYED: &str = "relay";
const VIAS: [&str; 2] = [DIRECT, RELAYED];
const COMPLETED: &str = "completed";
const FAILED: &str = "failed";
/// What a relay answers when it says no.
const REFUSALS: [RelayStatus; 7] = [
    RelayStatus::ReservationRefused,
    RelayStatus::ResourceLimitExceeded,
    RelayStatus::PermissionDenied,
    RelayStatus::ConnectionFailed,
    RelayStatus::NoReservation,
    RelayStatus::MalformedMessage,
    RelayStatus::UnexpectedMessage,
];

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => INBOUND,
        Direction::Outbound => OUTBOUND,
    }
}

fn via(relayed: bool) -> &'static str {
    if relayed { RELAYED } else { DIRECT }
}

fn renewed(renewed: bool) -> &'static str {
    if renewed { "true" } else { "false" }
}

fn status(status: RelayStatus) -> &'static str {
    match status {
        RelayStatus::Ok => "OK",
        RelayStatus::ReservationRefused => "RESERVATION_REFUSED",
        RelayStatus::ResourceLimitExceeded => "RESOURCE_LIMIT_EXCEEDED",
        RelayStatus::PermissionDenied => "PERMISSION_DENIED",
        RelayStatus::ConnectionFailed => "CONNECTION_FAILED",
        RelayStatus::NoReservation => "NO_RESERVATION",
        RelayStatus::MalformedMessage => "MALFORMED_MESSAGE",
        RelayStatus::UnexpectedMessage => "UNEXPECTED_MESSAGE",
        RelayStatus::Other(_) => "OTHER",
    }
}

fn circuit_end(end: &CircuitEnd) -> &'static str {
    match end {
        CircuitEnd::Finished => "finished",
        CircuitEnd::DataLimit => "data_limit",
        CircuitEnd::Duration => "duration",
        CircuitEnd::Idle => "idle",
        CircuitEnd::Source(_) => "source_lost",
        CircuitEnd::Target(_) => "target_lost",
        CircuitEnd::Local => "local",
    }
}

fn close(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Local => "local",
        CloseReason::Remote { .. } => "remote",
        CloseReason::TimedOut => "timed_out",
        CloseReason::Reset => "reset",
        CloseReason::ConnectionRefused => "refused_by_remote",
        CloseReason::WrongPeer { .. } => "wrong_peer",
        CloseReason::Handshake(_) => "handshake",
        CloseReason::Transport(_) => "transport",
        CloseReason::Circuit(_) | CloseReason::CircuitFinished => "circuit",
        CloseReason::CircuitLimit(_) => "circuit_limit",
        CloseReason::Upgrade(_) => "upgrade",
        CloseReason::Muxer(_) => "muxer",
        CloseReason::Refused(_) => "refused",
        CloseReason::Pruned => "pruned",
        CloseReason::Duplicate => "duplicate",
        CloseReason::Replaced => "replaced",
    }
}
