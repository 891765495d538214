//! Peers that are dialled unasked; `swarm/autoconnect.rs` says whom and when.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::address;

use super::dialing::Requester;
use crate::{
    errors::AttemptError,
    node::Node,
    swarm::{autoconnect::AutoConnect, dial::DialOptions, peerstore::Source, tags},
    time::Instant,
};

/// Who was not asked for is served after who was.
const PRIORITY: u8 = 20;

impl Node {
    /// From now on `peer` is dialled whenever it is not connected, at the addresses that are known of it, or no longer.
    /// Meanwhile what is known of it is not forgotten, and it is never pruned.
    pub fn keep_connected(&mut self, now: Instant, peer: PeerId, is_kept: bool) {
        self.advance(now);
        self.auto_connect.keep(self.now, peer, is_kept);
        self.peerstore.protect(self.now, peer, is_kept);
        self.change_tags(|tags, now| match is_kept {
            true => tags.protect(now, peer, tags::KEEP_ALIVE),
            false => _ = tags.unprotect(&peer, tags::KEEP_ALIVE),
        });
        self.auto_connect();
        self.pump();
    }

    /// Ways into the network: dialled before others while too few peers are connected
    /// ([`AutoConnectConfig::peers`](crate::swarm::autoconnect::AutoConnectConfig::peers)).
    ///
    /// # Errors
    /// If an address does not end in `/p2p/PEER`; nothing has changed then.
    pub fn add_bootstrap(
        &mut self,
        now: Instant,
        addresses: &[Multiaddr],
    ) -> Result<(), (Multiaddr, AttemptError)> {
        self.advance(now);
        let own = self.local_peer();
        let named = |address: &Multiaddr| match address::split_peer(address) {
            (_, Some(peer)) if peer == own => Err((address.clone(), AttemptError::Own)),
            (place, Some(peer)) if !place.is_empty() => Ok((peer, place)),
            _ => {
                let error = "must be an address that ends in /p2p/PEER";
                Err((address.clone(), AttemptError::Unsupported(error.into())))
            }
        };
        for (peer, place) in addresses.iter().map(named).collect::<Result<Vec<_>, _>>()? {
            self.peerstore.add(self.now, peer, &[place], Source::Embedder, None);
            self.peerstore.protect(self.now, peer, true);
            self.auto_connect.add_bootstrap(self.now, peer);
        }
        self.auto_connect();
        self.pump();
        Ok(())
    }

    /// Who is dialled unasked.
    pub fn auto_connections(&self) -> &AutoConnect {
        &self.auto_connect
    }

    /// Dials whoever is to be dialled now.
    pub(super) fn auto_connect(&mut self) {
        if !self.auto_connect.is_due(self.now) {
            return;
        }
        let (connections, own) = (&self.connections, self.local_peer());
        let is_connected = |peer: &PeerId| !connections.of(peer).is_empty();
        let known = self.peerstore.peers(self.now).filter(|peer| *peer != own && !is_connected(peer));
        let peers = self.auto_connect.look(self.now, connections.peers(), is_connected, known);
        let options = DialOptions {
            priority: PRIORITY,
            timeout: Some(self.auto_connect.config().dial_timeout),
            // The cooldown is longer, and of its own.
            respect_backoff: Some(false),
            ..DialOptions::default()
        };
        for peer in peers {
            self.start_dial(Requester::AutoConnect(peer), Some(peer), &[], &options);
        }
    }
}
