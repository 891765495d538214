//! A simulated world for Peerless: hosts, links, faults, transcripts, laws.

pub mod app;
pub mod bare;
pub mod dribble;
pub mod fault;
pub mod host;
pub mod laws;
pub mod link;
pub mod machine;
pub mod plain;
pub mod raw;
pub mod solo;
pub mod store;
pub mod transcript;
pub mod world;

#[doc(hidden)]
pub use insta;
