//! Circuits through a whole relay between whole nodes whose programs speak circuit relay themselves, so that every byte
//! on the circuit is theirs.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerless_core::{
    errors::RelayStatus,
    ids::{ConnectionId, StreamId},
    names::{CircuitLimit, Framing},
    node::{AppProtocol, AppStreamEvent, Config, Event, Read},
    protocols::relay::{
        HOP, Roles, STOP,
        hop::{self, CircuitEnd},
        limits::RelayLimits,
    },
    time::Instant,
};
use peerless_proto::{
    frame::{FrameDecoder, encode_frame},
    pb::{
        Message,
        relay::{HopMessage, Limit, StopMessage, StopType},
    },
};
use peerless_tests::{
    host::HostId,
    world::{World, ms, secs},
};

pub(crate) const TICK: Duration = Duration::from_nanos(1);
const FRAMING: Framing = Framing::Varint { max: 4096 };

/// A relay, a source and a target that holds a reservation.
pub(crate) struct Scene {
    pub w: World,
    relay: HostId,
    source: HostId,
    target: HostId,
    to_relay: ConnectionId,
}

/// A circuit: its stream at the source and its stream at the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circuit {
    pub(crate) source: StreamId,
    pub(crate) target: StreamId,
    /// What both were told of its limits.
    pub(crate) told: CircuitLimit,
    /// When the relay joined it.
    pub(crate) opened: Instant,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToTarget,
    ToSource,
}

pub(crate) const WAYS: [Way; 2] = [Way::ToTarget, Way::ToSource];

/// How a circuit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) at: Instant,
    pub(crate) to_target: u64,
    pub(crate) to_source: u64,
    pub(crate) end: CircuitEnd,
}

impl Closed {
    pub(crate) fn bytes(&self, way: Way) -> u64 {
        match way {
            Way::ToTarget => self.to_target,
            Way::ToSource => self.to_source,
        }
    }
}

/// Speaks circuit relay as a program of its own, which reads when it is told to.
fn by_hand(config: &mut Config) {
    config.relay_roles = Roles::NONE;
    config.app_protocols.extend([HOP, STOP].map(|name| AppProtocol { name, inbound_per_peer: 64 }));
}

impl Scene {
    pub(crate) fn new(limits: &RelayLimits) -> Self {
        let mut w = World::new(1);
        let relay = w.host("R").relay_with(limits.clone().into()).start();
        let [source, target] = ["A", "B"].map(|name| w.host(name).configure(by_hand).start());
        let [to_relay, from_target] = [source, target].map(|host| {
            w.stop_reading(host);
            w.dial(host, relay)
        });
        let mut scene = Self { w, relay, source, target, to_relay };
        let reserving = scene.ask(target, from_target, &HopMessage::reserve());
        scene.w.run_for(ms(200));
        let granted: HopMessage = scene.message(target, reserving);
        assert_eq!(RelayStatus::from(granted.status), RelayStatus::Ok);
        scene
    }

    /// Opens a circuit, which takes some round trips.
    pub(crate) fn connect(&mut self) -> Circuit {
        let to = HopMessage::connect(self.w[self.target].peer().to_bytes());
        let source = self.ask(self.source, self.to_relay, &to);
        self.w.run_for(ms(100));
        let accepted = self.w[self.target].log().iter().filter_map(|(_, event)| match event {
            Event::Stream { stream, event: AppStreamEvent::Accepted { protocol, .. } }
                if *protocol == STOP =>
            {
                Some(*stream)
            }
            _ => None,
        });
        let target = accepted.last().expect("the target is asked");
        let asked: StopMessage = self.message(self.target, target);
        let ok =
            StopMessage { r#type: Some(StopType::Status as i32), status: Some(100), ..Default::default() };
        self.write(self.target, target, encode_frame(FRAMING, &ok.encode_to_vec()));
        self.w.run_for(ms(50));
        let answer: HopMessage = self.message(self.source, source);
        assert_eq!(RelayStatus::from(answer.status), RelayStatus::Ok);
        assert_eq!(answer.limit, asked.limit, "both are told the same");
        let opened = self.relay_said(|event| matches!(event, hop::Event::CircuitOpened { .. }));
        let opened = opened.last().expect("the circuit is open").0;
        Circuit { source, target, told: limit(asked.limit), opened }
    }

    /// Sends one way what the node takes of so many bytes; returns how many those were.
    pub(crate) fn send(&mut self, circuit: Circuit, way: Way, bytes: u64) -> u64 {
        let (host, stream) = match way {
            Way::ToTarget => (self.source, circuit.source),
            Way::ToSource => (self.target, circuit.target),
        };
        self.write(host, stream, Bytes::from(vec![7; bytes as usize]))
    }

    /// Takes what has arrived one way; whether the stream is still there.
    pub(crate) fn take(&mut self, circuit: Circuit, way: Way) -> (u64, bool) {
        let (host, stream) = match way {
            Way::ToTarget => (self.target, circuit.target),
            Way::ToSource => (self.source, circuit.source),
        };
        let (data, alive) = self.read(host, stream);
        (data.len() as u64, alive)
    }

    /// Sends so many bytes one way and takes what arrives, until all has and for `patience` at most. Of 0 bytes it only
    /// takes.
    pub(crate) fn pass(&mut self, circuit: Circuit, way: Way, bytes: u64, patience: Duration) -> u64 {
        let (mut sent, mut arrived, end) = (0, 0, self.w.now() + patience);
        while self.w.now() < end && (arrived < bytes || bytes == 0) {
            sent += self.send(circuit, way, (bytes - sent).min(64 << 10));
            self.w.run_for(ms(1));
            arrived += self.take(circuit, way).0;
        }
        arrived
    }

    /// What the relay told of the ends of circuits.
    pub(crate) fn closed(&self) -> Vec<Closed> {
        let told = self.w[self.relay].log().iter().filter_map(|(at, event)| match event {
            Event::Hop(hop::Event::CircuitClosed { bytes_in, bytes_out, end, .. }) => {
                Some(Closed { at: *at, to_target: *bytes_in, to_source: *bytes_out, end: end.clone() })
            }
            _ => None,
        });
        told.collect()
    }

    /// Circuits that the relay has.
    pub(crate) fn open(&self) -> usize {
        self.w.node(self.relay).stats().splices
    }

    /// Bytes that the relay has carried, both ways together.
    fn carried(&self) -> u64 {
        carried(&self.w, self.relay)
    }

    pub(crate) fn counted(&self, counter: &str) -> u64 {
        self.w.node(self.relay).counters().get(counter)
    }

    /// All leave, and nothing is left.
    pub(crate) fn end(mut self) {
        self.w.shutdown();
        assert_eq!(self.open(), 0);
        assert_eq!(self.w.node(self.relay).stats().timers, 0);
    }

    fn relay_said(&self, wanted: fn(&hop::Event) -> bool) -> impl Iterator<Item = &(Instant, Event)> {
        self.w[self.relay]
            .log()
            .iter()
            .filter(move |(_, event)| matches!(event, Event::Hop(said) if wanted(said)))
    }

    fn ask(&mut self, host: HostId, connection: ConnectionId, message: &HopMessage) -> StreamId {
        let opened = self.w.command(host, |node, now| node.open(now, connection, &HOP));
        let stream = opened.expect("the relay grants a stream");
        self.write(host, stream, encode_frame(FRAMING, &message.encode_to_vec()));
        stream
    }

    /// The one message that has arrived.
    fn message<M: Message + Default>(&mut self, host: HostId, stream: StreamId) -> M {
        let mut decoder = FrameDecoder::new(FRAMING);
        decoder.push(self.read(host, stream).0);
        let frame = decoder.next_frame().expect("a frame").expect("a whole frame");
        M::decode(frame).expect("a message")
    }

    fn write(&mut self, host: HostId, stream: StreamId, mut data: Bytes) -> u64 {
        let all = data.len();
        self.w.command(
            host,
            |node, now| while node.write(now, stream, &mut data).is_ok_and(|taken| taken > 0) {},
        );
        (all - data.len()) as u64
    }

    /// All that has arrived; whether the stream is still there.
    fn read(&mut self, host: HostId, stream: StreamId) -> (Bytes, bool) {
        let mut all = BytesMut::new();
        let alive = self.w.command(host, |node, now| {
            loop {
                match node.read(now, stream, 64 << 10) {
                    Ok(Read::Data(data)) => all.extend_from_slice(&data),
                    Ok(Read::Blocked | Read::Finished) => return true,
                    Err(_) => return false,
                }
            }
        });
        (all.freeze(), alive)
    }
}

fn carried(w: &World, relay: HostId) -> u64 {
    let metrics = w.node(relay).metrics();
    let bytes = |way| metrics.get("peerless_relay_bytes_total", &[("direction", way)]).expect("both ways");
    bytes("to_target") + bytes("to_source")
}

fn limit(told: Option<Limit>) -> CircuitLimit {
    let told = told.unwrap_or_default();
    CircuitLimit {
        duration: told.duration.filter(|secs| *secs > 0).map(|secs| self::secs(secs.into())),
        data: told.data.filter(|bytes| *bytes > 0),
    }
}

/// Neither more nor less than the limit's bytes pass, both ways, whether they come one by one or all at once; and the
/// next circuit has as many again.
pub(crate) fn bytes(limits: &RelayLimits, counter: &str) {
    for n in [limits.circuit_bytes, 1000, 128 << 10] {
        for way in WAYS {
            let mut scene = Scene::new(&RelayLimits { circuit_bytes: n, ..limits.clone() });
            let circuit = scene.connect();
            assert_eq!(circuit.told, CircuitLimit { duration: None, data: Some(n) });
            assert_eq!(scene.pass(circuit, way, n - 1, secs(9)), n - 1);
            assert_eq!(scene.pass(circuit, way, 1, secs(9)), 1, "the last that is granted");
            scene.w.run_for(secs(30));
            assert_eq!(
                (scene.closed().len(), scene.counted(counter)),
                (0, 0),
                "{n} bytes are within the limit"
            );
            scene.send(circuit, way, 1);
            scene.w.run_for(secs(2));
            assert_cut(&mut scene, circuit, way, n);
            assert_eq!(scene.counted(counter), 1);

            let circuit = scene.connect();
            assert_eq!(scene.send(circuit, way, n + 1), n + 1, "there is room for it");
            assert_eq!(scene.pass(circuit, way, 0, secs(2)), n);
            assert_cut(&mut scene, circuit, way, n);
            assert_eq!(scene.counted(counter), 2);
            scene.end();
        }
    }
}

/// The last circuit was cut after `n` bytes, all of which have been taken, and both ends know.
fn assert_cut(scene: &mut Scene, circuit: Circuit, way: Way, n: u64) {
    let closed = scene.closed().pop().expect("it is closed");
    assert_eq!((closed.bytes(way), closed.end), (n, CircuitEnd::DataLimit));
    assert_eq!(scene.open(), 0);
    assert!(WAYS.into_iter().all(|way| scene.take(circuit, way) == (0, false)), "both streams are reset");
}

/// A circuit is open a tick before its time is up, and closed then, busy or not; the next has as long again.
pub(crate) fn duration(limits: &RelayLimits, counter: &str) {
    let mut scene = Scene::new(limits);
    for nth in 1..3 {
        let circuit = scene.connect();
        assert_eq!(circuit.told, CircuitLimit { duration: Some(limits.circuit_duration), data: None });
        let end = circuit.opened + limits.circuit_duration;
        while scene.w.now() + ms(200) < end {
            WAYS.into_iter().for_each(|way| assert_eq!(scene.pass(circuit, way, 10, secs(1)), 10));
        }
        let left = end.saturating_duration_since(scene.w.now());
        scene.w.run_for(left - TICK);
        assert_eq!((scene.open(), scene.closed().len()), (1, nth - 1), "a tick early");
        scene.w.run_for(TICK);
        let closed = scene.closed().pop().expect("it is closed");
        assert_eq!((closed.at, closed.end), (end, CircuitEnd::Duration));
        assert_eq!(scene.counted(counter), nth as u64);
        scene.w.run_for(secs(1));
        WAYS.into_iter().for_each(|way| assert!(!scene.take(circuit, way).1, "both streams are reset"));
    }
    scene.end();
}

/// A circuit is closed at the tick at which nothing has moved for so long; a byte either way a tick earlier keeps it.
pub(crate) fn idle(limits: &RelayLimits, counter: &str) {
    let idle = limits.circuit_idle;
    for way in WAYS {
        let mut scene = Scene::new(limits);
        let circuit = scene.connect();
        let (first, took) = scene.relayed(circuit, way);
        scene.w.run_for((first + idle).saturating_duration_since(scene.w.now()) - took - TICK);
        let (second, _) = scene.relayed(circuit, way);
        assert_eq!(second, first + (idle - TICK), "the last tick that counts");
        scene.w.run_for(idle - TICK);
        assert_eq!((scene.open(), scene.counted(counter)), (1, 0), "a tick early");
        scene.w.run_for(TICK);
        let closed = scene.closed().pop().expect("it is closed");
        assert_eq!((closed.at, closed.end), (second + idle, CircuitEnd::Idle));
        assert_eq!(scene.counted(counter), 1);
        let next = scene.connect();
        assert_eq!(scene.pass(next, way, 10, secs(1)), 10, "the next one has its own time");
        scene.end();
    }
}

impl Scene {
    /// Sends a byte: when the relay passed it on, and how long it took to get there.
    fn relayed(&mut self, circuit: Circuit, way: Way) -> (Instant, Duration) {
        let (before, sent) = (self.carried(), self.w.now());
        self.send(circuit, way, 1);
        let relay = self.relay;
        let moved = self.w.run_until(secs(1), |w| (carried(w, relay) > before).then(|| w.now()));
        let moved = moved.expect("the relay passes it on");
        (moved, moved.saturating_duration_since(sent))
    }
}

/// Each direction of each circuit has its burst and then its rate, at every moment.
pub(crate) fn circuit_rate(limits: &RelayLimits, counter: &str) {
    let rate = limits.circuit_byte_rate;
    let mut scene = Scene::new(limits);
    let circuits = [scene.connect(), scene.connect()];
    let flows = circuits.map(|circuit| WAYS.map(|way| (circuit, way))).concat();
    for passed in saturate(&mut scene, &flows, |_, passed, seconds| {
        let most = passed.iter().fold(0, |most, bytes| most.max(*bytes));
        assert!(most as f64 <= allowed(rate, seconds), "{most} bytes in {seconds} s");
    }) {
        assert!(passed as f64 > 0.9 * allowed(rate, SATURATED.as_secs_f64()), "only {passed} bytes");
    }
    assert!(scene.counted(counter) > 0 && scene.closed().is_empty());
    scene.end();
}

/// All circuits and directions together have one burst and one rate, at every moment, and share it evenly.
pub(crate) fn relay_rate(limits: &RelayLimits, counter: &str) {
    let rate = limits.relay_byte_rate;
    let mut scene = Scene::new(limits);
    let circuits = [scene.connect(), scene.connect()];
    let flows = circuits.map(|circuit| WAYS.map(|way| (circuit, way))).concat();
    let passed = saturate(&mut scene, &flows, |scene, _, seconds| {
        let all = scene.carried();
        assert!(all as f64 <= allowed(rate, seconds), "{all} bytes in {seconds} s");
    });
    let all: u64 = passed.iter().sum();
    assert!(all as f64 > 0.9 * allowed(rate, SATURATED.as_secs_f64()), "only {all} bytes");
    let (least, most) = (passed.iter().min().expect("four"), passed.iter().max().expect("four"));
    assert!(*least as f64 > 0.7 * *most as f64, "{passed:?}");
    assert!(scene.counted(counter) > 0 && scene.closed().is_empty());
    scene.end();
}

const SATURATED: Duration = secs(20);

/// What a rate lets through in so many seconds: an eighth of a second's worth at once, or 4 KiB, and then the rate.
fn allowed(rate: u64, seconds: f64) -> f64 {
    (rate / 8).max(4 << 10) as f64 + rate as f64 * seconds
}

/// Keeps all flows full for a while, and gives `check` what has arrived of each and the seconds since the first circuit
/// was opened. Returns what has arrived.
fn saturate(scene: &mut Scene, flows: &[(Circuit, Way)], check: impl Fn(&Scene, &[u64], f64)) -> Vec<u64> {
    let mut passed = vec![0; flows.len()];
    let (since, end) = (flows[0].0.opened, scene.w.now() + SATURATED);
    while scene.w.now() < end {
        for (passed, (circuit, way)) in passed.iter_mut().zip(flows) {
            scene.send(*circuit, *way, 16 << 10);
            *passed += scene.take(*circuit, *way).0;
        }
        scene.w.run_for(ms(10));
        check(scene, &passed, scene.w.now().saturating_duration_since(since).as_secs_f64());
    }
    passed
}

/// Without a limit, or with one that is never reached, megabytes pass both ways and an hour of silence is no harm.
pub(crate) fn free(limits: &RelayLimits, told: CircuitLimit) {
    let mut scene = Scene::new(limits);
    let circuit = scene.connect();
    assert_eq!(circuit.told, told);
    WAYS.into_iter().for_each(|way| assert_eq!(scene.pass(circuit, way, 2 << 20, secs(30)), 2 << 20));
    scene.w.run_for(secs(3600));
    WAYS.into_iter().for_each(|way| assert_eq!(scene.pass(circuit, way, 1, secs(1)), 1));
    assert!(scene.closed().is_empty());
    scene.end();
}
