//! The built-in protocols, one state machine each.

pub mod identify;
pub mod ping;
pub mod relay;
