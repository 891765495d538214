//! The wire of libp2p: bytes to values and back, without I/O and without state beyond a partial frame.
pub mod frame;
