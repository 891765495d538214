//! `--config FILE`: what a TOML file says of connections and of the relay's limits. Flags win over it.

use std::{fmt, fs, marker::PhantomData, path::Path, time::Duration};

use peerless_core::{
    protocols::rate::Rate,
    swarm::{
        SwarmConfig,
        gate::Entry,
        network::Network,
        pruner::PrunerConfig,
        resources::{Limits, NetworkLimit, ScopeLimit},
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::{Failure, cli, cli::LimitArgs};

/// The whole file; what is not there stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    limits: LimitSettings,
    gate: GateSettings,
    pruner: PrunerSettings,
    /// As the flags of `peerless relay`.
    pub(crate) relay: LimitArgs,
}

impl Settings {
    /// What stands in the file, or nothing if there is none.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(file) = file else { return Ok(Self::default()) };
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
        Self::parse(&text).map_err(|sentence| Failure::Usage(format!("{}, {sentence}", file.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            format!("line {line}: {message}")
        })
    }

    /// Changes what the file speaks of, and checks the outcome.
    pub(crate) fn apply(self, config: &mut SwarmConfig) -> Result<(), Failure> {
        self.limits.apply(&mut config.limits);
        self.gate.apply(config);
        self.pruner.apply(&mut config.pruner);
        config
            .validate()
            .map_err(|error| Failure::Usage(format!("the configuration makes no sense: {error}")))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitSettings {
    system: ScopeSettings,
    transient: ScopeSettings,
    service: ScopeSettings,
    protocol: ScopeSettings,
    peer: ScopeSettings,
    connection: ScopeSettings,
    stream: ScopeSettings,
    per_ip: Option<Amount>,
    per_v6_56: Option<Amount>,
    per_v6_48: Option<Amount>,
    networks: Option<Vec<NetworkSettings>>,
    rate_per_ip: Option<Text<Rate>>,
    rate_per_subnet: Option<Text<Rate>>,
}

impl LimitSettings {
    fn apply(self, limits: &mut Limits) {
        self.system.apply(&mut limits.system);
        self.transient.apply(&mut limits.transient);
        self.service.apply(&mut limits.service);
        self.protocol.apply(&mut limits.protocol);
        self.peer.apply(&mut limits.peer);
        self.connection.apply(&mut limits.connection);
        self.stream.apply(&mut limits.stream);
        set(&mut limits.per_ip, self.per_ip.map(|it| it.0));
        set(&mut limits.per_v6_56, self.per_v6_56.map(|it| it.0));
        set(&mut limits.per_v6_48, self.per_v6_48.map(|it| it.0));
        let network =
            |it: NetworkSettings| NetworkLimit { network: it.network.0, connections: it.connections.0 };
        set(&mut limits.networks, self.networks.map(|all| all.into_iter().map(network).collect()));
        set(&mut limits.rate_per_ip, self.rate_per_ip.map(|it| it.0));
        set(&mut limits.rate_per_subnet, self.rate_per_subnet.map(|it| it.0));
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScopeSettings {
    connections: Option<Amount>,
    inbound_connections: Option<Amount>,
    outbound_connections: Option<Amount>,
    streams: Option<Amount>,
    inbound_streams: Option<Amount>,
    outbound_streams: Option<Amount>,
    memory: Option<Amount>,
}

impl ScopeSettings {
    fn apply(self, limit: &mut ScopeLimit) {
        set(&mut limit.connections, self.connections.map(|it| it.0));
        set(&mut limit.inbound_connections, self.inbound_connections.map(|it| it.0));
        set(&mut limit.outbound_connections, self.outbound_connections.map(|it| it.0));
        set(&mut limit.streams, self.streams.map(|it| it.0));
        set(&mut limit.inbound_streams, self.inbound_streams.map(|it| it.0));
        set(&mut limit.outbound_streams, self.outbound_streams.map(|it| it.0));
        set(&mut limit.memory, self.memory.map(|it| it.0));
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkSettings {
    network: Text<Network>,
    connections: Amount,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GateSettings {
    allow: Vec<Text<Entry>>,
    deny: Vec<Text<Entry>>,
    allow_private: Option<bool>,
}

impl GateSettings {
    fn apply(self, config: &mut SwarmConfig) {
        let gate = &mut config.gate;
        for Text(entry) in self.allow {
            match entry {
                Entry::Network(network) => gate.allow_networks.insert(network),
                Entry::Peer(peer) => gate.allow_peers.insert(peer),
            };
        }
        for Text(entry) in self.deny {
            match entry {
                Entry::Network(network) => gate.deny_networks.insert(network),
                Entry::Peer(peer) => gate.deny_peers.insert(peer),
            };
        }
        set(&mut gate.allow_private, self.allow_private);
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PrunerSettings {
    low_water: Option<Amount>,
    high_water: Option<Amount>,
    grace: Option<Text<Duration>>,
    silence: Option<Text<Duration>>,
}

impl PrunerSettings {
    fn apply(self, pruner: &mut PrunerConfig) {
        set(&mut pruner.low_water, self.low_water.map(|it| it.0));
        set(&mut pruner.high_water, self.high_water.map(|it| it.0));
        set(&mut pruner.grace, self.grace.map(|it| it.0));
        set(&mut pruner.silence, self.silence.map(|it| it.0));
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A value that is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text<T>(T);

/// How that text is read; as in the flags.
trait Readable: Sized {
    const WANTED: &'static str;
    fn read(text: &str) -> Result<Self, String>;
}

impl Readable for Duration {
    const WANTED: &'static str = "a time in quotes, like \"20s\"";
    fn read(text: &str) -> Result<Self, String> {
        cli::time(text)
    }
}

impl Readable for Rate {
    const WANTED: &'static str = "a rate in quotes, like \"16/200ms\"";
    fn read(text: &str) -> Result<Self, String> {
        cli::rate(text)
    }
}

impl Readable for Network {
    const WANTED: &'static str = "a network in quotes, like \"192.0.2.0/24\"";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{text:?} is no network: {error}"))
    }
}

impl Readable for Entry {
    const WANTED: &'static str = "a network or a peer id in quotes";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{text:?} is no entry: {error}"))
    }
}

impl<'de, T: Readable> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Readable> Visitor<'_> for Reader<T> {
            type Value = Text<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WANTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
                T::read(text).map(Text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Reader(PhantomData))
    }
}

/// A number of things or bytes: `8`, `"64MiB"`, `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amount(usize);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, a size like \"64MiB\", or \"unlimited\"")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Amount, E> {
                usize::try_from(number).map(Amount).map_err(|_| E::custom("a number must not be negative"))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                if text == "unlimited" {
                    return Ok(Amount(usize::MAX));
                }
                let bytes = cli::size(text).map_err(E::custom)?;
                usize::try_from(bytes).map(Amount).map_err(|_| E::custom("that is too much"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// How the flags' own values are read from the file.
pub(crate) mod flag {
    use super::{Amount, Deserialize, Deserializer, Duration, Rate, Text};

    pub(crate) fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rate>, D::Error> {
        Text::deserialize(deserializer).map(|Text(rate)| Some(rate))
    }

    pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Text::deserialize(deserializer).map(|Text(time)| Some(time))
    }

    pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Amount::deserialize(deserializer).map(|Amount(bytes)| Some(bytes as u64))
    }
}

#[cfg(test)]
mod tests;
