//! A simulated world for Peerless: hosts, links, faults, transcripts, laws.

pub mod plain;
pub mod solo;
