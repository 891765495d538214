//! What holds for every behaviour, whatever happens to it.
//!
//! [`Laws::check`] drives a behaviour through random worlds and asserts, after every step:
//! - a deadline lies in the future (asserted by [`Solo`]);
//! - a spurious timeout, and ids that nobody gave out, change nothing;
//! - no input leads to more than so many actions.
//!
//! At the end of each world everybody leaves, and nothing may be left. Each world is run twice, and must give the same
//! transcript; together they must reach what the behaviour is for.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use peerless_core::{
    behaviour::{Action, Behaviour, Input, PeerEvent, Reply, StreamEvent},
    counters::Counters,
    errors::{AttemptError, CloseReason, DialError, OpenError, SpliceEnd, StreamFault, UpgradeError},
    ids::{ConnectionId, Id, StreamId, Token},
    names::{ProtocolName, SpliceReport},
    rng::Rng,
    swarm::addresses::AddressSource,
};

use crate::solo::{Solo, address, circuit, peer};

/// Peers of a random world. The behaviour runs on `R`.
const NAMES: [&str; 3] = ["A", "B", "C"];

/// Most connections and streams in a random world.
const MAX_CONNECTIONS: usize = 6;
const MAX_STREAMS: usize = 24;

/// Steps in a random world.
const STEPS: usize = 300;

/// Numbers on the dice where any will do.
const MANY: u64 = 1 << 32;

/// A behaviour and what a random world needs to know of it.
pub struct Laws<B> {
    /// Makes it.
    pub make: fn() -> B,
    /// Commands it from time to time; the number is random.
    pub command: fn(&mut Solo<B>, u64),
    /// Takes back all commands.
    pub settle: fn(&mut Solo<B>),
    /// Entries in all its tables.
    pub entries: fn(&B) -> usize,
    /// Frames that make sense to it, each on streams of one protocol.
    pub frames: Vec<(ProtocolName, Bytes)>,
    /// Most actions that one input may lead to in a world as small as these.
    pub most_actions: usize,
    /// Counters that must have counted in some world, or else the worlds show nothing.
    pub reaches: &'static [&'static str],
}

impl<B: Behaviour + Debug> Laws<B> {
    /// Checks all laws in `worlds` random worlds.
    pub fn check(&self, worlds: u64) {
        let mut reached = Counters::default();
        for world in 0..worlds {
            let (story, counters) = self.run(world);
            assert_eq!(story, self.run(world).0, "world {world} is not the same twice");
            counters.iter().for_each(|(name, count)| reached.add(name, count));
        }
        for name in self.reaches {
            assert_ne!(reached.get(name), 0, "no world reaches {name}, only {reached:#?}");
        }
    }

    fn run(&self, world: u64) -> (String, Counters) {
        let mut dice = Rng::new([0; 32]).fork(&format!("world {world}"));
        let mut solo = Solo::seeded("R", (self.make)(), dice.bytes());
        for _ in 0..STEPS {
            self.step(&mut solo, &mut dice);
            unchanged(&mut solo);
        }
        let actions = solo.most_actions();
        assert!(actions <= self.most_actions, "world {world}: one input led to {actions} actions");
        while let Some(connection) = any_connection(&solo, 0) {
            solo.disconnect(connection);
        }
        while !solo.dialling().is_empty() {
            solo.dial_fails(DialError { attempts: Vec::new() });
        }
        for upgrade in solo.upgrades() {
            solo.upgraded(&upgrade, Err(UpgradeError::NoStream));
        }
        (self.settle)(&mut solo);
        assert_eq!((self.entries)(&solo.behaviour), 0, "world {world} leaves {:?}", solo.behaviour);
        assert_eq!(solo.behaviour.deadline(), None);
        (solo.story(), solo.counters)
    }

    fn step(&self, solo: &mut Solo<B>, dice: &mut Rng) {
        let name = NAMES[dice.below(NAMES.len() as u64) as usize];
        match dice.below(32) {
            0..=2 => connect(solo, name, dice),
            3 => {
                let unlucky = any_connection(solo, dice.below(MANY)).filter(|_| dice.below(3) == 0);
                if let Some(connection) = unlucky {
                    solo.disconnect(connection);
                }
            }
            4..=7 => accept(solo, dice),
            8..=15 => self.frame(solo, dice),
            16..=17 => {
                if let Some(stream) = any_stream(solo, dice) {
                    solo.finish(stream);
                }
            }
            18 => {
                if let Some(stream) = any_stream(solo, dice) {
                    solo.reset(stream, StreamFault::Remote(dice.below(MANY)));
                }
            }
            19..=23 => answer(solo, name, dice),
            24..=25 => (self.command)(solo, dice.below(MANY)),
            26..=27 => solo.advance(Duration::from_millis(dice.below(500))),
            28 => match dice.below(4) {
                0 => solo.advance(Duration::from_millis(dice.below(40_000))),
                // Up to whatever comes next, so that long terms come to their end as well.
                1 if solo.behaviour.deadline().is_some() => drop(solo.next_deadline()),
                _ => {}
            },
            29 => answer(solo, name, dice),
            30 => {
                let address = address(&format!("/ip4/203.0.113.1/udp/{}/quic-v1", dice.below(4)));
                solo.addresses.add(address, AddressSource::Listen);
                solo.input(Input::Addresses);
            }
            _ => {
                let target = NAMES[dice.below(NAMES.len() as u64) as usize];
                if name != target {
                    solo.dial(circuit("/ip4/203.0.113.9/udp/9/quic-v1", name, target));
                }
            }
        }
    }

    /// A frame: mostly one that makes sense, else one with a flipped bit, or noise.
    fn frame(&self, solo: &mut Solo<B>, dice: &mut Rng) {
        let Some(stream) = any_stream(solo, dice) else { return };
        let protocol = solo.protocol(stream);
        let frames: Vec<_> = self.frames.iter().filter(|(name, _)| Some(name) == protocol.as_ref()).collect();
        let sense = frames.get(dice.below(frames.len() as u64) as usize).map(|(_, frame)| frame.to_vec());
        let mut frame = sense.unwrap_or_default();
        match dice.below(8) {
            0 => frame = dice.bytes::<32>().to_vec(),
            1 if !frame.is_empty() => {
                let at = dice.below(frame.len() as u64) as usize;
                frame[at] ^= 1 << dice.below(8);
            }
            _ => {}
        }
        solo.receive(stream, frame);
    }
}

fn connect<B: Behaviour>(solo: &mut Solo<B>, name: &str, dice: &mut Rng) {
    if solo.connections.len() >= MAX_CONNECTIONS {
        return;
    }
    let direct = any_connection(solo, dice.below(MANY)).filter(|id| {
        let info = solo.connections.get(*id);
        info.is_some_and(|info| info.relayed.is_none() && info.peer != peer(name))
    });
    match direct {
        Some(via) if dice.below(4) == 0 => solo.connect_via(name, via),
        _ => solo.connect(name),
    };
}

fn accept<B: Behaviour>(solo: &mut Solo<B>, dice: &mut Rng) {
    if solo.streams().len() >= MAX_STREAMS || solo.protocols.is_empty() {
        return;
    }
    let protocol = solo.protocols[dice.below(solo.protocols.len() as u64) as usize].clone();
    if let Some(connection) = any_connection(solo, dice.below(MANY)) {
        solo.accept(connection, &protocol);
    }
}

/// Answers whatever the behaviour asked for.
fn answer<B: Behaviour>(solo: &mut Solo<B>, name: &str, dice: &mut Rng) {
    let good = dice.below(8) > 0;
    solo.failed_dials();
    if let Some(connection) = solo.opening().first().copied() {
        match solo.connections.get(connection) {
            None => solo.refuse_open(OpenError::NoConnection),
            Some(_) if good => drop(solo.open()),
            Some(_) => solo.refuse_open(OpenError::StreamLimit),
        }
    } else if !solo.dialling().is_empty() {
        if good && solo.connections.len() < MAX_CONNECTIONS {
            solo.dialled(name);
        } else {
            let place = address("/ip4/203.0.113.9/udp/9/quic-v1");
            solo.dial_fails(DialError::one(place, AttemptError::TimedOut));
        }
    } else if solo.pending.iter().any(|action| matches!(action, Action::Upgrade { .. })) {
        for upgrade in solo.upgrades() {
            solo.upgraded(&upgrade, Err(UpgradeError::TimedOut("security")));
        }
    } else if let Some(stream) = solo.streams().into_iter().find(|stream| solo.is_spliced(*stream)) {
        let report = SpliceReport { a_to_b: dice.below(MANY), b_to_a: u64::MAX, end: SpliceEnd::Finished };
        solo.splice_ends(stream, report);
    }
}

/// Feeds what must change nothing.
fn unchanged<B: Behaviour + Debug>(solo: &mut Solo<B>) {
    let before = (format!("{:?}", solo.behaviour), solo.all_actions());
    let nobody = (StreamId::from_parts(u32::MAX, 7), ConnectionId::from_parts(u32::MAX, 7));
    let (token, reason) = (Token(u64::MAX), CloseReason::Local);
    let report = SpliceReport { a_to_b: 1, b_to_a: 1, end: SpliceEnd::Finished };
    let disconnected =
        PeerEvent::Disconnected { connection: nobody.1, peer: peer("nobody"), remaining: 0, reason };
    for input in [
        Input::Timeout,
        Input::Stream(nobody.0, StreamEvent::Frame(Bytes::from_static(&[0; 32]))),
        Input::Stream(nobody.0, StreamEvent::Drained),
        Input::Stream(nobody.0, StreamEvent::Finished),
        Input::Stream(nobody.0, StreamEvent::Reset(StreamFault::ConnectionLost)),
        Input::Reply(token, Reply::Stream(Err(OpenError::NoConnection))),
        Input::Reply(token, Reply::Dial(Ok(nobody.1))),
        Input::Reply(token, Reply::Spliced(report)),
        Input::Reply(token, Reply::Upgraded(Ok(nobody.1))),
        Input::Peer(disconnected),
        Input::Peer(PeerEvent::PathChanged { connection: nobody.1 }),
        Input::Timeout,
    ] {
        let what = format!("{input:?}");
        solo.input(input);
        assert_eq!((format!("{:?}", solo.behaviour), solo.all_actions()), before, "{what} changed something");
    }
}

fn any_connection<B>(solo: &Solo<B>, number: u64) -> Option<ConnectionId> {
    let count = solo.connections.len().max(1) as u64;
    solo.connections.iter().nth((number % count) as usize).map(|info| info.id)
}

/// A stream on which the remote may still say something; mostly one where it is its turn.
fn any_stream<B: Behaviour>(solo: &Solo<B>, dice: &mut Rng) -> Option<StreamId> {
    let polite = dice.below(8) > 0;
    let mut streams = solo.streams();
    streams.retain(|stream| !solo.is_spliced(*stream) && !solo.is_ended(*stream));
    streams.retain(|stream| solo.is_their_turn(*stream) || !polite);
    streams.get(dice.below(streams.len() as u64) as usize).copied()
}
