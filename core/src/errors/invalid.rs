//! Settings that make no sense.

/// A setting that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidConfig {
    /// Its path: of connection management within [`SwarmConfig`](crate::swarm::SwarmConfig), such as `pruner.low_water`; of
    /// everything else within [`node::Config`](crate::node::Config), such as `quic.max_mtu`.
    pub field: &'static str,
    /// What it must be, as the rest of the sentence that the field begins.
    pub problem: &'static str,
}

/// Fails with the sentence unless the condition holds.
pub(crate) fn require(holds: bool, field: &'static str, problem: &'static str) -> Result<(), InvalidConfig> {
    if holds { Ok(()) } else { Err(InvalidConfig { field, problem }) }
}
