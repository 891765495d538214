//! What others are told of where we are: `--announce` and `--no-announce`, and the same in the file.

use clap::Args;
use peerless_core::{
    Multiaddr, PeerId,
    network::Network,
    node::{Node, announceable},
    time::Instant,
};
use peerless_proto::address;

use crate::Failure;

/// What others are told besides what the node finds out, and what they are not told.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(crate) struct AnnounceArgs {
    /// Address at which others reach us, such as a forwarded port or a name; all peers are told of it
    #[arg(long, value_name = "MULTIADDR", value_parser = announced)]
    pub(crate) announce: Vec<Multiaddr>,
    /// Network whose addresses others are not told, such as 172.17.0.0/16
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub(crate) no_announce: Vec<Network>,
}

impl AnnounceArgs {
    /// These, and the file's where these say nothing.
    pub(crate) fn or(self, file: Self) -> Self {
        let either = |flags: Vec<_>, file| if flags.is_empty() { file } else { flags };
        Self {
            announce: either(self.announce, file.announce),
            no_announce: if self.no_announce.is_empty() { file.no_announce } else { self.no_announce },
        }
    }

    /// Finds what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for address in &self.announce {
            let ip = address::ip_of(address);
            let against = self.no_announce.iter().find(|network| ip.is_some_and(|ip| network.contains(ip)));
            if let Some(network) = against {
                return Err(Failure::Usage(format!(
                    "{address} cannot be announced, as it lies in {network}, whose addresses are not to be"
                )));
            }
        }
        Ok(())
    }

    /// Finds addresses that are said to be somebody else's.
    pub(crate) fn check_peer(&self, me: PeerId) -> Result<(), Failure> {
        self.announce.iter().try_for_each(|address| match announceable(address, Some(me)) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Usage(format!("{address} cannot be announced: {error}"))),
        })
    }

    /// Has the node tell others.
    pub(crate) fn apply(&self, node: &mut Node, now: Instant) -> Result<(), Failure> {
        for address in &self.announce {
            node.add_address(now, address)
                .map_err(|error| Failure::Usage(format!("{address} cannot be announced: {error}")))?;
        }
        Ok(())
    }
}

pub(crate) fn announced(text: &str) -> Result<Multiaddr, String> {
    const RIGHT: &str = "an address to announce looks like /ip4/192.0.2.1/udp/4001/quic-v1 or \
                         /dns4/example.org/udp/4001/quic-v1";
    let address = address::parse_multiaddr(text).map_err(|error| format!("{error}: {RIGHT}"))?;
    announceable(&address, None).map_err(|error| error.to_string())?;
    Ok(address)
}

fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error: peerless_core::network::NotANetwork| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(announce: &[&str], no_announce: &[&str]) -> AnnounceArgs {
        AnnounceArgs {
            announce: announce.iter().map(|text| announced(text).unwrap()).collect(),
            no_announce: no_announce.iter().map(|text| network(text).unwrap()).collect(),
        }
    }

    #[test]
    fn what_nobody_could_dial_is_not_announced() {
        for (text, why) in [
            ("/ip4/224.0.0.1/udp/4001/quic-v1", "a multicast address names no single host"),
            ("/ip4/203.0.113.1/udp/0/quic-v1", "port 0 is no port"),
            (
                "/ip4/203.0.113.1/tcp/4001",
                "an address to announce looks like /ip4/192.0.2.1/udp/4001/quic-v1 or \
                 /dns4/example.org/udp/4001/quic-v1",
            ),
        ] {
            assert_eq!(announced(text).unwrap_err(), why);
        }
        for text in
            ["/dns4/example.org/udp/4001/quic-v1", "/dnsaddr/example.org", "/ip4/10.0.0.1/udp/1/quic-v1/"]
        {
            assert!(announced(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn flags_win_over_the_file_each_for_itself() {
        let file = args(&["/ip4/203.0.113.1/udp/1/quic-v1"], &["10.0.0.0/8"]);
        let flags = args(&["/ip4/203.0.113.2/udp/1/quic-v1"], &[]);
        let expected = args(&["/ip4/203.0.113.2/udp/1/quic-v1"], &["10.0.0.0/8"]);
        assert_eq!(flags.or(file), expected);
    }

    #[test]
    fn nothing_is_announced_and_not_announced() {
        let wrong = args(&["/ip4/10.1.2.3/udp/1/quic-v1"], &["192.168.0.0/16", "10.0.0.0/8"]);
        assert_eq!(
            wrong.check(),
            Err(Failure::Usage(
                "/ip4/10.1.2.3/udp/1/quic-v1 cannot be announced, as it lies in 10.0.0.0/8, whose addresses are not to be"
                    .into()
            ))
        );
        assert_eq!(args(&["/dns4/example.org/udp/1/quic-v1"], &["0.0.0.0/0"]).check(), Ok(()));
    }
}
