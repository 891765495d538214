//! Reachability probes: [`v2`] is what peers speak, [`v1`] what old ones still do.

/// `/libp2p/autonat/2/dial-request` and `/libp2p/autonat/2/dial-back`; see the
/// [AutoNAT v2 specification](https://github.com/libp2p/specs/blob/master/autonat/autonat-v2.md#rpc-messages).
pub mod v2 {
    use crate::pb::{Shape, Wire};

    /// A message on a dial-request stream.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct Message {
        /// What it says; `None` for something unknown.
        #[prost(oneof = "Msg", tags = "1, 2, 3, 4")]
        pub msg: Option<Msg>,
    }

    impl Wire for Message {
        const MAX_FIELDS: usize = 256;
        const SHAPE: Shape = Shape(&[(1, Shape::FLAT), (2, Shape::FLAT), (3, Shape::FLAT), (4, Shape::FLAT)]);
    }

    /// What a [`Message`] says.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Msg {
        /// The client asks to be dialled.
        #[prost(message, tag = "1")]
        DialRequest(DialRequest),
        /// The server tells how it went.
        #[prost(message, tag = "2")]
        DialResponse(DialResponse),
        /// The server asks for data before it dials a foreign address.
        #[prost(message, tag = "3")]
        DialDataRequest(DialDataRequest),
        /// The client pays with data.
        #[prost(message, tag = "4")]
        DialDataResponse(DialDataResponse),
    }

    /// Asks for a dial to the first address the server can dial.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct DialRequest {
        /// Binary multiaddrs, the most wanted first.
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub addrs: Vec<Vec<u8>>,
        /// To be sent back over the dialled connection.
        #[prost(fixed64, tag = "2")]
        pub nonce: u64,
    }

    /// Asks for data, so that the server cannot be used to amplify.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct DialDataRequest {
        /// Which of the addresses asks for it.
        #[prost(uint32, tag = "1")]
        pub addr_idx: u32,
        /// How many bytes.
        #[prost(uint64, tag = "2")]
        pub num_bytes: u64,
    }

    /// Tells how a request went.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct DialResponse {
        /// A [`ResponseStatus`]; see [`known_status`](Self::known_status).
        #[prost(int32, tag = "1")]
        pub status: i32,
        /// Which address was dialled.
        #[prost(uint32, tag = "2")]
        pub addr_idx: u32,
        /// A [`DialStatus`]; see [`known_dial_status`](Self::known_dial_status).
        #[prost(int32, tag = "3")]
        pub dial_status: i32,
    }

    impl DialResponse {
        /// The status of the request, if it is known.
        pub fn known_status(&self) -> Option<ResponseStatus> {
            self.status.try_into().ok()
        }

        /// The status of the dial, if it is known.
        pub fn known_dial_status(&self) -> Option<DialStatus> {
            self.dial_status.try_into().ok()
        }
    }

    /// A part of the data asked for.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct DialDataResponse {
        /// Any bytes; 4096 at most.
        #[prost(bytes = "vec", tag = "1")]
        pub data: Vec<u8>,
    }

    /// The message on a dial-back stream.
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct DialBack {
        /// The nonce of the request.
        #[prost(fixed64, tag = "1")]
        pub nonce: u64,
    }

    impl Wire for DialBack {
        const MAX_FIELDS: usize = 16;
    }

    /// Answers [`DialBack`].
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub struct DialBackResponse {
        /// A [`DialBackStatus`].
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    impl Wire for DialBackResponse {
        const MAX_FIELDS: usize = 16;
    }

    /// How a dial went.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum DialStatus {
        /// There was none.
        Unused = 0,
        /// No connection came about.
        DialError = 100,
        /// There was a connection, but the nonce could not be delivered.
        DialBackError = 101,
        /// The nonce was delivered.
        Ok = 200,
    }

    /// How a request went.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum ResponseStatus {
        /// The server failed.
        InternalError = 0,
        /// The server is too busy or does not serve this peer.
        RequestRejected = 100,
        /// The server cannot dial any of the addresses.
        DialRefused = 101,
        /// There was a dial.
        Ok = 200,
    }

    /// How a [`DialBack`] was taken.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum DialBackStatus {
        /// Received.
        Ok = 0,
    }
}

/// `/libp2p/autonat/1.0.0`; see the
/// [AutoNAT v1 specification](https://github.com/libp2p/specs/blob/master/autonat/autonat-v1.md#rpc-messages).
pub mod v1 {
    use crate::pb::{Shape, Wire};

    /// The one message of the protocol.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct Message {
        /// A [`MessageType`]; see [`kind`](Self::kind).
        #[prost(int32, optional, tag = "1")]
        pub r#type: Option<i32>,
        /// With DIAL.
        #[prost(message, optional, tag = "2")]
        pub dial: Option<Dial>,
        /// With DIAL_RESPONSE.
        #[prost(message, optional, tag = "3")]
        pub dial_response: Option<DialResponse>,
    }

    impl Message {
        /// The type, if it is present and known.
        pub fn kind(&self) -> Option<MessageType> {
            self.r#type?.try_into().ok()
        }
    }

    impl Wire for Message {
        const MAX_FIELDS: usize = 256;
        const SHAPE: Shape = Shape(&[(2, Shape(&[(1, Shape::FLAT)])), (3, Shape::FLAT)]);
    }

    /// The peer to dial.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct PeerInfo {
        /// Its binary peer id.
        #[prost(bytes = "vec", optional, tag = "1")]
        pub id: Option<Vec<u8>>,
        /// Its binary multiaddrs.
        #[prost(bytes = "vec", repeated, tag = "2")]
        pub addrs: Vec<Vec<u8>>,
    }

    /// Asks to be dialled.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct Dial {
        /// Who asks, and where to dial.
        #[prost(message, optional, tag = "1")]
        pub peer: Option<PeerInfo>,
    }

    /// Tells how it went.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub struct DialResponse {
        /// A [`ResponseStatus`]; see [`known_status`](Self::known_status).
        #[prost(int32, optional, tag = "1")]
        pub status: Option<i32>,
        /// Says more, for humans.
        #[prost(string, optional, tag = "2")]
        pub status_text: Option<String>,
        /// The binary multiaddr that was reached.
        #[prost(bytes = "vec", optional, tag = "3")]
        pub addr: Option<Vec<u8>>,
    }

    impl DialResponse {
        /// The status, if it is present and known.
        pub fn known_status(&self) -> Option<ResponseStatus> {
            self.status?.try_into().ok()
        }
    }

    /// The types of a [`Message`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum MessageType {
        /// Asks.
        Dial = 0,
        /// Answers.
        DialResponse = 1,
    }

    /// How a request ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum ResponseStatus {
        /// An address was reached.
        Ok = 0,
        /// None was.
        DialError = 100,
        /// The server does not dial these.
        DialRefused = 101,
        /// The request is not one.
        BadRequest = 200,
        /// The server failed.
        InternalError = 300,
    }
}
