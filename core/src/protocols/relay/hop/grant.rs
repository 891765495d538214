//! What a relay grants in writing.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::{
    address,
    pb::{
        Message as _,
        relay::{HopMessage, MAX_MESSAGE, Reservation as Granted},
    },
    voucher::Voucher,
};

use crate::{behaviour::View, swarm::addresses::Audience, time::UnixTime};

/// What is granted, but for the addresses.
pub(super) fn grant(view: View<'_>, peer: PeerId, expires: UnixTime) -> Granted {
    let expiration = expires.as_secs();
    let voucher = Voucher { relay: view.local_peer(), peer, expiration };
    // A key that cannot sign leaves the voucher out: peers do without, as some relays issue none.
    let voucher = voucher.seal(view.identity.keypair()).ok().map(|envelope| envelope.encode());
    Granted { expire: Some(expiration), addrs: Vec::new(), voucher }
}

/// Adds our own addresses, those that whoever is at `remote` can use, as many as the longest message holds.
pub(super) fn fill_addresses(message: &mut HopMessage, view: View<'_>, remote: &Multiaddr) {
    /// Most bytes of an address field's key and length, as addresses are shorter than 16 KiB.
    const OVERHEAD: usize = 3;
    /// Most bytes by which the length of the whole grows.
    const GROWTH: usize = 2;
    let mut room = MAX_MESSAGE.saturating_sub(message.encoded_len() + GROWTH);
    let Some(reservation) = &mut message.reservation else { return };
    let own: Vec<Multiaddr> = view.addresses.told_to(Audience::at(remote));
    for address in own.into_iter().filter(|address| !address::is_circuit(address)) {
        let Ok(address) = address::with_peer(address, view.local_peer()) else { continue };
        let size = address.len() + OVERHEAD;
        if size > room {
            break;
        }
        room -= size;
        reservation.addrs.push(address.to_vec());
    }
}
