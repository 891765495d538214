//! The built-in protocols, one state machine each.

mod by_connection;
pub mod identify;
pub mod ping;
pub mod relay;
pub mod rendezvous;
pub mod request_response;
