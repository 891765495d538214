//! `--config FILE`: what a TOML file says of connections and of the relay's limits. Flags win over it.

use std::{fmt, fs, marker::PhantomData, path::Path, time::Duration};

use peerless_core::{
    Multiaddr,
    network::Network,
    rate::Rate,
    swarm::{
        SwarmConfig,
        autoconnect::AutoConnectConfig,
        dial::{DialConfig, backoff::BackoffConfig, black_hole::BlackHoleConfig},
        gate::{Entry, GateConfig},
        health::HealthConfig,
        peerstore::PeerstoreConfig,
        pruner::PrunerConfig,
        resources::{Limits, NetworkLimit, ScopeLimit},
        select::Strategy,
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::{
    Failure,
    announce::{AnnounceArgs, announced},
    cli,
    cli::LimitArgs,
};

/// The whole file; what is not there stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    limits: LimitSettings,
    dial: DialSettings,
    auto_connect: AutoConnectSettings,
    health: HealthSettings,
    strategy: Option<Text<Strategy>>,
    peerstore: PeerstoreSettings,
    gate: GateSettings,
    pruner: PrunerSettings,
    /// As `--announce`.
    announce: Vec<Text<Multiaddr>>,
    /// As `--no-announce`.
    no_announce: Vec<Text<Network>>,
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

    /// What others are to be told of where we are.
    pub(crate) fn announced(&self) -> AnnounceArgs {
        AnnounceArgs {
            announce: self.announce.iter().map(|Text(address)| address.clone()).collect(),
            no_announce: self.no_announce.iter().map(|Text(network)| *network).collect(),
        }
    }

    /// Changes what the file speaks of, and checks the outcome.
    pub(crate) fn apply(self, config: &mut SwarmConfig) -> Result<(), Failure> {
        self.limits.set(&mut config.limits);
        self.dial.set(&mut config.dial);
        self.auto_connect.set(&mut config.auto_connect);
        self.health.set(&mut config.health);
        self.strategy.set(&mut config.strategy);
        self.peerstore.set(&mut config.peerstore);
        self.gate.set(&mut config.gate);
        self.pruner.set(&mut config.pruner);
        config
            .validate()
            .map_err(|error| Failure::Usage(format!("the configuration makes no sense: {error}")))
    }
}

/// What may stand in the file for a `T`.
trait Setting<T> {
    /// Changes what is spoken of, and leaves the rest as it is.
    fn set(self, place: &mut T);
}

impl<T> Setting<T> for Option<T> {
    fn set(self, place: &mut T) {
        if let Some(value) = self {
            *place = value;
        }
    }
}

impl<T> Setting<T> for Option<Text<T>> {
    fn set(self, place: &mut T) {
        self.map(|Text(value)| value).set(place);
    }
}

impl Setting<usize> for Option<Amount> {
    fn set(self, place: &mut usize) {
        self.map(|Amount(number)| number).set(place);
    }
}

/// A table of the file: each of its values is for the field of that name.
macro_rules! table {
    ($name:ident for $config:ty { $($field:ident: $setting:ty,)* }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $name {
            $($field: $setting,)*
        }

        impl Setting<$config> for $name {
            fn set(self, place: &mut $config) {
                $(self.$field.set(&mut place.$field);)*
            }
        }
    };
}

table!(LimitSettings for Limits {
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
});

table!(ScopeSettings for ScopeLimit {
    connections: Option<Amount>,
    inbound_connections: Option<Amount>,
    outbound_connections: Option<Amount>,
    streams: Option<Amount>,
    inbound_streams: Option<Amount>,
    outbound_streams: Option<Amount>,
    memory: Option<Amount>,
});

table!(DialSettings for DialConfig {
    parallel: Option<Amount>,
    queue: Option<Amount>,
    attempts: Option<Amount>,
    addresses: Option<Amount>,
    timeout: Option<Text<Duration>>,
    stagger: Option<Text<Duration>>,
    private_stagger: Option<Text<Duration>>,
    relay_delay: Option<Text<Duration>>,
    backoff: BackoffSettings,
    black_hole: BlackHoleSettings,
});

table!(BackoffSettings for BackoffConfig {
    base: Option<Text<Duration>>,
    step: Option<Text<Duration>>,
    max: Option<Text<Duration>>,
    peer: Option<Text<Duration>>,
    jitter: Option<f64>,
    capacity: Option<Amount>,
});

table!(BlackHoleSettings for BlackHoleConfig {
    window: Option<Amount>,
    answers: Option<Amount>,
});

table!(AutoConnectSettings for AutoConnectConfig {
    peers: Option<Amount>,
    interval: Option<Text<Duration>>,
    parallel: Option<Amount>,
    dial_timeout: Option<Text<Duration>>,
    cooldown: Option<Text<Duration>>,
    max_cooldown: Option<Text<Duration>>,
    retries: Option<u32>,
    retry_delay: Option<Text<Duration>>,
});

table!(HealthSettings for HealthConfig {
    enabled: Option<bool>,
    interval: Option<Text<Duration>>,
    warm_up: Option<Text<Duration>>,
    weights: Option<[f64; 3]>,
    min_score: Option<f64>,
    critical_score: Option<f64>,
    max_latency: Option<Text<Duration>>,
    min_success: Option<f64>,
    max_failed_streams: Option<u32>,
    patience: Option<u32>,
    min_connections_per_peer: Option<Amount>,
});

table!(PeerstoreSettings for PeerstoreConfig {
    peers: Option<Amount>,
    addresses: Option<Amount>,
    protocols: Option<Amount>,
    stored: Option<Amount>,
    identify_ttl: Option<Text<Duration>>,
    reached_ttl: Option<Text<Duration>>,
});

table!(PrunerSettings for PrunerConfig {
    low_water: Option<Amount>,
    high_water: Option<Amount>,
    grace: Option<Text<Duration>>,
    silence: Option<Text<Duration>>,
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkSettings {
    network: Text<Network>,
    connections: Amount,
}

impl Setting<Vec<NetworkLimit>> for Option<Vec<NetworkSettings>> {
    fn set(self, place: &mut Vec<NetworkLimit>) {
        let network =
            |it: NetworkSettings| NetworkLimit { network: it.network.0, connections: it.connections.0 };
        self.map(|all| all.into_iter().map(network).collect::<Vec<_>>()).set(place);
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GateSettings {
    allow: Vec<Text<Entry>>,
    deny: Vec<Text<Entry>>,
    allow_private: Option<bool>,
}

impl Setting<GateConfig> for GateSettings {
    fn set(self, gate: &mut GateConfig) {
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
        self.allow_private.set(&mut gate.allow_private);
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

impl Readable for Multiaddr {
    const WANTED: &'static str = "an address in quotes, like \"/ip4/192.0.2.1/udp/4001/quic-v1\"";
    fn read(text: &str) -> Result<Self, String> {
        announced(text)
    }
}

impl Readable for Entry {
    const WANTED: &'static str = "a network or a peer id in quotes";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{text:?} is no entry: {error}"))
    }
}

impl Readable for Strategy {
    const WANTED: &'static str = "a strategy in quotes, like \"best\"";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "best" => Ok(Self::Best),
            "round_robin" => Ok(Self::RoundRobin),
            "least_loaded" => Ok(Self::LeastLoaded),
            "health_based" => Ok(Self::HealthBased),
            "latency_based" => Ok(Self::LatencyBased),
            _ => Err(format!(
                "{text:?} is no strategy, those are best, round_robin, least_loaded, health_based and latency_based"
            )),
        }
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
