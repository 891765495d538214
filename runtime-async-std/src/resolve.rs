//! Host names and TXT records: the system's resolver blocks, and so do questions to name servers, so they run where blocking is
//! allowed.

use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use peerless_core::ids::QueryId;
use peerless_udp::text;

use crate::driver::Shared;

/// Answers a question of the node, once, when the answer is there. The pool of threads for what blocks is bounded, and so
/// is what a dial asks.
pub(crate) fn ask(shared: &Arc<Shared>, query: QueryId, name: String) {
    let shared = Arc::clone(shared);
    crate::run_blocking(move || {
        let found = look_up(&name);
        shared.command(|state, now| state.node.handle_resolved(now, query, found));
    });
}

/// The same for TXT records.
pub(crate) fn ask_text(shared: &Arc<Shared>, query: QueryId, name: String) {
    let shared = Arc::clone(shared);
    crate::run_blocking(move || {
        let found = text::look_up(&name, &shared.name_servers);
        shared.command(|state, now| state.node.handle_resolved_text(now, query, found));
    });
}

/// Addresses of both families: the node picks those it asked for.
fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_own_name_and_what_is_no_name_is_an_error() {
        assert_eq!(look_up("127.0.0.1"), Ok(vec!["127.0.0.1".parse().unwrap()]));
        assert_eq!(look_up("::1"), Ok(vec!["::1".parse().unwrap()]));
        assert!(look_up("no such name").is_err());
    }
}
