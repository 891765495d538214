//! Connection management: whom we are connected to, and why.

pub mod table;
