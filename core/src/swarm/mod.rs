//! Connection management: whom we are connected to, and why.

pub mod dial;
pub mod table;
