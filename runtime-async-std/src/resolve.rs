//! Host names: the system's resolver blocks, so it runs where blocking is allowed.

use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use peerless_core::{event::Family, ids::QueryId};

use crate::driver::Shared;

/// Names looked up at the same time; one more is answered with an error.
pub(crate) const MAX_LOOKUPS: usize = 64;
/// Addresses taken from one answer.
const MAX_ADDRESSES: usize = 16;

/// Answers a question of the node, once, when the answer is there.
pub(crate) fn ask(shared: &Arc<Shared>, query: QueryId, name: String, family: Family) {
    let shared = Arc::clone(shared);
    crate::run_blocking(move || {
        let found = look_up(&name, family);
        shared.command(|state, now| {
            state.stats.lookups -= 1;
            state.node.handle_resolved(now, query, found);
        });
    });
}

fn look_up(name: &str, family: Family) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).filter(|ip| family.takes(ip)).take(MAX_ADDRESSES).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_keeps_to_the_family() {
        assert_eq!(look_up("127.0.0.1", Family::V4), Ok(vec!["127.0.0.1".parse().unwrap()]));
        assert_eq!(look_up("::1", Family::Any), Ok(vec!["::1".parse().unwrap()]));
        assert_eq!(look_up("127.0.0.1", Family::V6), Ok(vec![]));
    }
}
