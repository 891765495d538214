//! Where inbound connections come from: how many, and how often.

use std::{collections::BTreeMap, net::IpAddr};

use smallvec::SmallVec;

use super::Limits;
use crate::{
    errors::{Exceeded, Resource, Scope},
    network::{Network, NetworkMap},
    rate::{Buckets, Rate},
    time::Instant,
};

/// Inbound connections by where they come from.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// How many there may be from the networks that have a limit of their own.
    own: NetworkMap<usize>,
    counts: BTreeMap<Network, usize>,
    ips: Buckets<Network>,
    subnets: Buckets<Network>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut own = NetworkMap::default();
        for limit in &limits.networks {
            own.insert(limit.network, limit.connections);
        }
        Self { own, ..Self::default() }
    }

    /// Other limits hold from now on, for connections from these addresses as well.
    pub(super) fn follow(&mut self, limits: &Limits, held: impl Iterator<Item = IpAddr>) {
        self.own = Self::new(limits).own;
        self.counts.clear();
        for ip in held {
            for network in self.networks(ip) {
                *self.counts.entry(network).or_default() += 1;
            }
        }
    }

    /// Whether one more may come from `ip`. An address that is not `validated` gets half.
    pub(super) fn admits(
        &self,
        limits: &Limits,
        now: Instant,
        ip: IpAddr,
        validated: bool,
    ) -> Result<(), Exceeded> {
        let part = |max: usize| if validated || max == usize::MAX { max } else { max / 2 };
        for (scope, network, max) in self.places(limits, ip) {
            if self.counts.get(&network).copied().unwrap_or_default() >= part(max) {
                return Err(Exceeded { scope, resource: Resource::InboundConnections });
            }
        }
        if self.own.find(ip).is_some() {
            return Ok(());
        }
        let part = |rate: Rate| if validated { rate } else { Rate { burst: rate.burst.div_ceil(2), ..rate } };
        let rates = [
            (Scope::Ip, part(limits.rate_per_ip), self.ips.full_at(&host(ip))),
            (Scope::Subnet, part(limits.rate_per_subnet), self.subnets.full_at(&subnet(ip))),
        ];
        for (scope, rate, full_at) in rates {
            if rate.take(full_at, now).is_none() {
                return Err(Exceeded { scope, resource: Resource::Rate });
            }
        }
        Ok(())
    }

    /// One more comes from `ip`.
    pub(super) fn enter(&mut self, limits: &Limits, now: Instant, ip: IpAddr) {
        for network in self.networks(ip) {
            *self.counts.entry(network).or_default() += 1;
        }
        if self.own.find(ip).is_none() {
            self.ips.take(limits.rate_per_ip, host(ip), now);
            self.subnets.take(limits.rate_per_subnet, subnet(ip), now);
        }
    }

    /// One from `ip` is gone.
    pub(super) fn leave(&mut self, ip: IpAddr) {
        for network in self.networks(ip) {
            let Some(count) = self.counts.get_mut(&network) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }

    pub(super) fn count(&self, ip: IpAddr) -> usize {
        let network = self.networks(ip).first().copied();
        network.and_then(|network| self.counts.get(&network)).copied().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The networks in which a connection from `ip` is counted: the one with a limit of its own, or all that it is in.
    fn networks(&self, ip: IpAddr) -> SmallVec<[Network; 3]> {
        if let Some((network, _)) = self.own.find(ip) {
            return [network].into_iter().collect();
        }
        let longer = [56, 48].into_iter().filter(|_| ip.to_canonical().is_ipv6());
        [host(ip)].into_iter().chain(longer.map(|length| prefix(ip, length))).collect()
    }

    /// The same with whose limit that is and how much.
    fn places(&self, limits: &Limits, ip: IpAddr) -> SmallVec<[(Scope, Network, usize); 3]> {
        if let Some((network, max)) = self.own.find(ip) {
            return [(Scope::Network, network, *max)].into_iter().collect();
        }
        let scopes = [
            (Scope::Ip, limits.per_ip),
            (Scope::V6Slash56, limits.per_v6_56),
            (Scope::V6Slash48, limits.per_v6_48),
        ];
        self.networks(ip)
            .into_iter()
            .zip(scopes)
            .map(|(network, (scope, max))| (scope, network, max))
            .collect()
    }
}

/// What one host commands.
fn host(ip: IpAddr) -> Network {
    prefix(ip, if ip.to_canonical().is_ipv4() { 32 } else { 64 })
}

fn subnet(ip: IpAddr) -> Network {
    prefix(ip, if ip.to_canonical().is_ipv4() { 24 } else { 48 })
}

fn prefix(ip: IpAddr, length: u8) -> Network {
    let ip = ip.to_canonical();
    Network::new(ip, length).unwrap_or(Network::single(ip))
}
