//! `/libp2p/dcutr`; see the
//! [DCUtR specification](https://github.com/libp2p/specs/blob/master/relay/DCUtR.md).

use super::Wire;

/// The longest message accepted, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// The one message of the protocol.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HolePunch {
    /// A [`HolePunchType`]; see [`kind`](Self::kind).
    #[prost(int32, optional, tag = "1")]
    pub r#type: Option<i32>,
    /// The sender's own binary multiaddrs, as others observed them.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub obs_addrs: Vec<Vec<u8>>,
}

impl HolePunch {
    /// Opens or answers with the sender's addresses.
    pub fn connect(obs_addrs: Vec<Vec<u8>>) -> Self {
        Self { r#type: Some(HolePunchType::Connect as i32), obs_addrs }
    }

    /// Starts the punch.
    pub fn sync() -> Self {
        Self { r#type: Some(HolePunchType::Sync as i32), obs_addrs: Vec::new() }
    }

    /// The type, if it is present and known.
    pub fn kind(&self) -> Option<HolePunchType> {
        self.r#type?.try_into().ok()
    }
}

impl Wire for HolePunch {
    const MAX_FIELDS: usize = 128;
}

/// The types of a [`HolePunch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HolePunchType {
    /// Exchanges addresses.
    Connect = 100,
    /// Starts the punch.
    Sync = 300,
}
