//! The addresses of the network interfaces.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use peerless_core::node::Bound;

/// What the node is told of a socket: for a wildcard address also the machine's addresses.
///
/// # Errors
/// The system does not tell its addresses.
pub fn bound(local: SocketAddr) -> io::Result<Bound> {
    let reachable = if local.ip().is_unspecified() { list()? } else { Vec::new() };
    Ok(Bound { local, reachable })
}

fn list() -> io::Result<Vec<IpAddr>> {
    Ok(if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect())
}
