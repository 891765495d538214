//! `/libp2p/circuit/relay/0.2.0/hop` and `/stop`; see the
//! [circuit v2 specification](https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md#protobuf).

use super::{Shape, Wire};

/// The longest message either protocol accepts, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// Between a client and its relay.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HopMessage {
    /// A [`HopType`]; see [`kind`](Self::kind).
    #[prost(int32, optional, tag = "1")]
    pub r#type: Option<i32>,
    /// In CONNECT, the target.
    #[prost(message, optional, tag = "2")]
    pub peer: Option<Peer>,
    /// In the answer to RESERVE, what was granted.
    #[prost(message, optional, tag = "3")]
    pub reservation: Option<Reservation>,
    /// In an answer, the limits of relayed connections.
    #[prost(message, optional, tag = "4")]
    pub limit: Option<Limit>,
    /// In STATUS, a [`Status`]; see [`known_status`](Self::known_status).
    #[prost(int32, optional, tag = "5")]
    pub status: Option<i32>,
}

impl HopMessage {
    /// Asks for a reservation.
    pub fn reserve() -> Self {
        Self { r#type: Some(HopType::Reserve as i32), ..Self::default() }
    }

    /// Asks for a connection to `target`, a binary peer id.
    pub fn connect(target: Vec<u8>) -> Self {
        let peer = Peer { id: Some(target), addrs: Vec::new() };
        Self { r#type: Some(HopType::Connect as i32), peer: Some(peer), ..Self::default() }
    }

    /// Answers with a status alone.
    pub fn answer(status: Status) -> Self {
        Self { r#type: Some(HopType::Status as i32), status: Some(status as i32), ..Self::default() }
    }

    /// The type, if it is present and known.
    pub fn kind(&self) -> Option<HopType> {
        self.r#type?.try_into().ok()
    }

    /// The status, if it is present and known.
    pub fn known_status(&self) -> Option<Status> {
        self.status?.try_into().ok()
    }
}

impl Wire for HopMessage {
    const MAX_FIELDS: usize = 512;
    const SHAPE: Shape = Shape(&[(2, Shape::FLAT), (3, Shape::FLAT), (4, Shape::FLAT)]);
}

/// Between a relay and the target of a connection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StopMessage {
    /// A [`StopType`]; see [`kind`](Self::kind).
    #[prost(int32, optional, tag = "1")]
    pub r#type: Option<i32>,
    /// In CONNECT, the initiator.
    #[prost(message, optional, tag = "2")]
    pub peer: Option<Peer>,
    /// In CONNECT, the limits of the relayed connection.
    #[prost(message, optional, tag = "3")]
    pub limit: Option<Limit>,
    /// In STATUS, a [`Status`]; see [`known_status`](Self::known_status).
    #[prost(int32, optional, tag = "4")]
    pub status: Option<i32>,
}

impl StopMessage {
    /// Announces a connection from `initiator`, a binary peer id.
    pub fn connect(initiator: Vec<u8>, limit: Option<Limit>) -> Self {
        let peer = Peer { id: Some(initiator), addrs: Vec::new() };
        Self { r#type: Some(StopType::Connect as i32), peer: Some(peer), limit, status: None }
    }

    /// Answers with a status.
    pub fn answer(status: Status) -> Self {
        Self { r#type: Some(StopType::Status as i32), status: Some(status as i32), ..Self::default() }
    }

    /// The type, if it is present and known.
    pub fn kind(&self) -> Option<StopType> {
        self.r#type?.try_into().ok()
    }

    /// The status, if it is present and known.
    pub fn known_status(&self) -> Option<Status> {
        self.status?.try_into().ok()
    }
}

impl Wire for StopMessage {
    const MAX_FIELDS: usize = 512;
    const SHAPE: Shape = Shape(&[(2, Shape::FLAT), (3, Shape::FLAT)]);
}

/// A peer and where it may be found.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Peer {
    /// The binary peer id.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub id: Option<Vec<u8>>,
    /// Binary multiaddrs.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub addrs: Vec<Vec<u8>>,
}

/// A reservation granted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reservation {
    /// When it ends, in Unix seconds.
    #[prost(uint64, optional, tag = "1")]
    pub expire: Option<u64>,
    /// The relay's binary multiaddrs for the reserving peer, with `/p2p/RELAY` and without `/p2p-circuit`.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub addrs: Vec<Vec<u8>>,
    /// An [`Envelope`](crate::envelope::Envelope) with the [`Voucher`](crate::voucher::Voucher).
    #[prost(bytes = "vec", optional, tag = "3")]
    pub voucher: Option<Vec<u8>>,
}

/// The limits of a relayed connection; absent or zero means none.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limit {
    /// How long it may last, in seconds.
    #[prost(uint32, optional, tag = "1")]
    pub duration: Option<u32>,
    /// How many bytes it may carry in each direction.
    #[prost(uint64, optional, tag = "2")]
    pub data: Option<u64>,
}

/// What the signed voucher of a reservation says; see [`Voucher`](crate::voucher::Voucher).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VoucherPayload {
    /// The relay's binary peer id.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub relay: Option<Vec<u8>>,
    /// The reserving peer's binary peer id.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub peer: Option<Vec<u8>>,
    /// When the reservation ends, in Unix seconds.
    #[prost(uint64, optional, tag = "3")]
    pub expiration: Option<u64>,
}

impl Wire for VoucherPayload {
    const MAX_FIELDS: usize = 16;
}

/// The types of a [`HopMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HopType {
    /// Asks for a reservation.
    Reserve = 0,
    /// Asks for a relayed connection.
    Connect = 1,
    /// Answers either.
    Status = 2,
}

/// The types of a [`StopMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum StopType {
    /// Announces a relayed connection.
    Connect = 0,
    /// Answers it.
    Status = 1,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Never sent.
    Unused = 0,
    /// Granted.
    Ok = 100,
    /// The relay does not reserve for this peer.
    ReservationRefused = 200,
    /// A limit of the relay is reached.
    ResourceLimitExceeded = 201,
    /// The relay's policy forbids it.
    PermissionDenied = 202,
    /// The target could not be reached.
    ConnectionFailed = 203,
    /// The target has no reservation.
    NoReservation = 204,
    /// The message could not be understood.
    MalformedMessage = 400,
    /// The message came out of turn.
    UnexpectedMessage = 401,
}
