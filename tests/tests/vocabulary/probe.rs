//! A behaviour that keeps what it is told, and asks for whatever a test has it ask for.

use peerless_core::{
    behaviour::{Behaviour, Context, Input, Reply, StreamEvent},
    ids::{StreamId, Token},
    names::{Framing, ProtocolName, ProtocolSpec},
    node::Config,
};
use peerless_tests::{
    host::HostId,
    world::{World, secs},
};

/// The protocol that all probes speak.
pub(crate) const PROBE: ProtocolName = ProtocolName::from_static("/test/probe/1.0.0");

/// Remembers all that it was told.
#[derive(Debug)]
pub(crate) struct Probe {
    specs: Vec<ProtocolSpec>,
    /// What it was told, oldest first.
    pub(crate) inputs: Vec<Input>,
}

impl Default for Probe {
    fn default() -> Self {
        Self::speaking(&[PROBE.as_str()], 1 << 20)
    }
}

impl Probe {
    /// Speaks these protocols, with frames of at most `max` bytes.
    pub(crate) fn speaking(protocols: &[&str], max: usize) -> Self {
        let framing = Framing::Varint { max };
        let spec = |name: &&str| ProtocolSpec { name: (*name).into(), framing, inbound_per_peer: 8 };
        Self { specs: protocols.iter().map(spec).collect(), inputs: Vec::new() }
    }

    /// The answer to a request.
    pub(crate) fn reply(&self, token: Token) -> Option<Reply> {
        self.inputs.iter().find_map(|input| match input {
            Input::Reply(found, reply) if *found == token => Some(reply.clone()),
            _ => None,
        })
    }

    /// What happened to streams, oldest first.
    pub(crate) fn on_streams(&self) -> impl Iterator<Item = (StreamId, &StreamEvent)> {
        self.inputs.iter().filter_map(|input| match input {
            Input::Stream(stream, event) => Some((*stream, event)),
            _ => None,
        })
    }

    /// The latest stream that a remote opened.
    pub(crate) fn accepted(&self) -> Option<StreamId> {
        self.on_streams()
            .filter(|(_, event)| matches!(event, StreamEvent::Accepted { .. }))
            .last()
            .map(|(id, _)| id)
    }

    /// The frames that came.
    pub(crate) fn frames(&self) -> Vec<&[u8]> {
        let mut frames = Vec::new();
        for (_, event) in self.on_streams() {
            if let StreamEvent::Frame(frame) = event {
                frames.push(&frame[..]);
            }
        }
        frames
    }
}

impl Behaviour for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &self.specs
    }

    fn handle(&mut self, _: &mut Context<'_>, input: Input) {
        self.inputs.push(input);
    }
}

/// Gives a node a probe.
pub(crate) fn add(config: &mut Config) {
    config.behaviours.push(Box::new(Probe::default()));
}

/// Has the probe of a host do something.
pub(crate) fn with<R>(
    world: &mut World,
    host: HostId,
    act: impl FnOnce(&mut Probe, &mut Context<'_>) -> R,
) -> R {
    world.command(host, |node, now| node.with::<Probe, _>(now, act)).expect("the host has a probe")
}

/// The probe of a host.
pub(crate) fn of(world: &World, host: HostId) -> &Probe {
    world.node(host).behaviour::<Probe>().expect("the host has a probe")
}

/// Lets things happen until the probe has what is looked for.
pub(crate) fn wait<T>(world: &mut World, host: HostId, pick: impl Fn(&Probe) -> Option<T>) -> T {
    world.run_until(secs(120), |world| pick(of(world, host))).expect("the probe waited in vain")
}

/// Gives a node a probe that speaks these protocols.
pub(crate) fn add_speaking(protocols: &'static [&'static str]) -> impl Fn(&mut Config) {
    move |config| config.behaviours.push(Box::new(Probe::speaking(protocols, 1 << 20)))
}
