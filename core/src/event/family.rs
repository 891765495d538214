//! Families of addresses.

use std::net::IpAddr;

/// Which addresses a name is to be resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `/dns`: both.
    Any,
    /// `/dns4`: A records.
    V4,
    /// `/dns6`: AAAA records.
    V6,
}

impl Family {
    /// Whether `ip` is of this family.
    pub fn takes(self, ip: &IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}
