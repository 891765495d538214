//! The built-in protocols, one state machine each.

mod by_connection;
pub mod identify;
pub mod ping;
pub mod relay;
