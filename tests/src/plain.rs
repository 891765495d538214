//! A handshake without secrets, for tests: same inputs, same bytes.
//!
//! It stands where TLS stands in QUIC and sends what TLS carries for libp2p, transport parameters and peer ids, in the
//! clear. Packets are not encrypted; they end in a keyed checksum, so that a damaged, forged or misdirected packet is
//! dropped as it would be in earnest. It proves nothing and hides nothing.
//!
//! ```text
//!   client                                    server
//!   Initial:   HELLO transport parameters ─>
//!                                          <─ Initial:   HELLO
//!                                          <─ Handshake: IDENTITY peer id, transport parameters
//!   Handshake: IDENTITY peer id           ─>
//! ```

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use bytes::{Buf as _, BytesMut};
use peerless_core::{
    PeerId,
    errors::CloseReason,
    quic::{ClientHandshake, QuicCrypto},
};
use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey,
        ServerConfig, Session, UnsupportedVersion,
    },
    transport_parameters::TransportParameters,
};

/// The identity of a node whose handshakes are in the clear.
#[derive(Clone, Copy, Debug)]
pub struct PlainCrypto {
    peer: PeerId,
}

impl PlainCrypto {
    /// Handshakes that say they are `peer`'s.
    pub fn new(peer: PeerId) -> Self {
        Self { peer }
    }
}

impl QuicCrypto for PlainCrypto {
    fn client(&self, expected: Option<PeerId>) -> ClientHandshake {
        let found = Arc::new(OnceLock::new());
        let config = PlainClient { peer: self.peer, expected, found: found.clone() };
        let refusal = move || {
            let (expected, found) = (expected?, *found.get()?);
            (found != expected).then_some(CloseReason::WrongPeer { expected, found })
        };
        ClientHandshake { config: Arc::new(config), refusal: Box::new(refusal) }
    }

    fn server(&self) -> Arc<dyn ServerConfig> {
        Arc::new(PlainServer { peer: self.peer })
    }

    fn peer_of(&self, identity: Box<dyn Any>) -> Option<PeerId> {
        identity.downcast().ok().map(|peer| *peer)
    }
}

struct PlainClient {
    peer: PeerId,
    expected: Option<PeerId>,
    /// Who answered, for the one connection this is for.
    found: Arc<OnceLock<PeerId>>,
}

impl ClientConfig for PlainClient {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        _server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let mut session = PlainSession::new(Side::Client, self.peer, params);
        session.expected = self.expected;
        session.found = Some(self.found.clone());
        Ok(Box::new(session))
    }
}

struct PlainServer {
    peer: PeerId,
}

impl ServerConfig for PlainServer {
    fn initial_keys(&self, _version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(keys(checksum(INITIAL, &[dst_cid]), Side::Server))
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; TAG_LEN] {
        retry_tag(orig_dst_cid, &[packet])
    }

    fn start_session(self: Arc<Self>, _version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(PlainSession::new(Side::Server, self.peer, params))
    }
}

const HELLO: u8 = 1;
const IDENTITY: u8 = 2;

/// Where a session is: what it waits for, and which keys it has handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// The client has its HELLO to send.
    Start,
    AwaitingHello,
    /// The HELLO has come; the answer and the handshake keys are due.
    GotHello,
    /// Handshake keys are out. The server's IDENTITY and its data keys are due.
    HandshakeKeys,
    AwaitingIdentity,
    /// The client's IDENTITY and its data keys are due.
    GotIdentity,
    Done,
}

struct PlainSession {
    side: Side,
    progress: Progress,
    peer: PeerId,
    expected: Option<PeerId>,
    found: Option<Arc<OnceLock<PeerId>>>,
    params: Vec<u8>,
    /// What has come of a message that is not whole yet.
    inbox: BytesMut,
    remote_params: Option<Vec<u8>>,
    remote_peer: Option<PeerId>,
    /// Over all that both sides sent in HELLOs, which hold random connection ids.
    secret: u64,
    /// Secret of the data keys last handed out.
    data_secret: u64,
}

impl PlainSession {
    fn new(side: Side, peer: PeerId, params: &TransportParameters) -> Self {
        let mut encoded = Vec::new();
        params.write(&mut encoded);
        Self {
            side,
            progress: if side.is_client() { Progress::Start } else { Progress::AwaitingHello },
            peer,
            expected: None,
            found: None,
            params: encoded,
            inbox: BytesMut::new(),
            remote_params: None,
            remote_peer: None,
            secret: 0,
            data_secret: 0,
        }
    }

    fn on_message(&mut self, kind: u8, body: &[u8]) -> Result<(), TransportError> {
        match (self.progress, kind, self.side) {
            (Progress::AwaitingHello, HELLO, Side::Server) => {
                self.secret = checksum(HANDSHAKE, &[body]);
                self.remote_params = Some(body.to_vec());
                self.progress = Progress::GotHello;
            }
            (Progress::AwaitingHello, HELLO, Side::Client) => {
                self.secret = checksum(HANDSHAKE, &[&self.params]);
                self.progress = Progress::GotHello;
            }
            (Progress::AwaitingIdentity, IDENTITY, _) => {
                let (peer, params) =
                    split_identity(body).ok_or_else(|| alert(DECODE_ERROR, "no identity"))?;
                self.on_identity(peer)?;
                if self.side.is_client() {
                    self.remote_params = Some(params.to_vec());
                    self.progress = Progress::GotIdentity;
                } else {
                    self.progress = Progress::Done;
                }
            }
            _ => return Err(alert(UNEXPECTED_MESSAGE, "message out of turn")),
        }
        Ok(())
    }

    fn on_identity(&mut self, peer: PeerId) -> Result<(), TransportError> {
        if let Some(found) = &self.found {
            // One handshake has one answer.
            let _ = found.set(peer);
        }
        if self.expected.is_some_and(|expected| expected != peer) {
            return Err(alert(BAD_CERTIFICATE, "not the peer that was dialled"));
        }
        self.remote_peer = Some(peer);
        Ok(())
    }

    fn write_identity(&self, out: &mut Vec<u8>) {
        let peer = self.peer.to_bytes();
        let mut body = vec![peer.len() as u8];
        body.extend_from_slice(&peer);
        if self.side.is_server() {
            body.extend_from_slice(&self.params);
        }
        write_message(out, IDENTITY, &body);
    }

    fn data_keys(&mut self) -> Keys {
        self.data_secret = checksum(DATA, &[&self.secret.to_le_bytes()]);
        keys(self.data_secret, self.side)
    }
}

impl Session for PlainSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        keys(checksum(INITIAL, &[dst_cid]), side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.remote_params.as_ref().map(|_| Box::new(()) as Box<dyn Any>)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.remote_peer.map(|peer| Box::new(peer) as Box<dyn Any>)
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        // As in TLS, the client is done when it has the server's last message, the server when it has the client's.
        self.progress < Progress::GotIdentity
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let had_params = self.remote_params.is_some();
        self.inbox.extend_from_slice(buf);
        while let Some((kind, body)) = take_message(&mut self.inbox) {
            self.on_message(kind, &body)?;
        }
        Ok(!had_params && self.remote_params.is_some())
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(params) = &self.remote_params else { return Ok(None) };
        Ok(Some(TransportParameters::read(self.side, &mut &params[..])?))
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match self.progress {
            Progress::Start => {
                write_message(buf, HELLO, &self.params);
                self.progress = Progress::AwaitingHello;
                None
            }
            Progress::GotHello => {
                if self.side.is_server() {
                    write_message(buf, HELLO, &[]);
                    self.progress = Progress::HandshakeKeys;
                } else {
                    self.progress = Progress::AwaitingIdentity;
                }
                Some(keys(self.secret, self.side))
            }
            Progress::HandshakeKeys => {
                self.write_identity(buf);
                self.progress = Progress::AwaitingIdentity;
                Some(self.data_keys())
            }
            Progress::GotIdentity => {
                self.write_identity(buf);
                self.progress = Progress::Done;
                Some(self.data_keys())
            }
            Progress::AwaitingHello | Progress::AwaitingIdentity | Progress::Done => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.data_secret = checksum(DATA, &[&self.data_secret.to_le_bytes()]);
        Some(keys(self.data_secret, self.side).packet)
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((payload, tag)) = payload.split_last_chunk::<TAG_LEN>() else { return false };
        retry_tag(orig_dst_cid, &[header, payload]) == *tag
    }

    fn export_keying_material(
        &self,
        _output: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

// TLS alerts, RFC 8446 section 6.
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_CERTIFICATE: u8 = 42;
const DECODE_ERROR: u8 = 50;

fn alert(code: u8, reason: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason: reason.into() }
}

/// A message is its kind, the length of its body in two bytes, and its body.
fn write_message(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend_from_slice(body);
}

fn take_message(inbox: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let [kind, high, low] = *inbox.first_chunk::<3>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if inbox.len() < 3 + len {
        return None;
    }
    inbox.advance(3);
    Some((kind, inbox.split_to(len)))
}

fn split_identity(body: &[u8]) -> Option<(PeerId, &[u8])> {
    let (len, rest) = body.split_first()?;
    let (peer, params) = rest.split_at_checked(usize::from(*len))?;
    Some((PeerId::from_bytes(peer).ok()?, params))
}

const TAG_LEN: usize = 16;

// What a checksum is for.
const INITIAL: u64 = 1;
const HANDSHAKE: u64 = 2;
const DATA: u64 = 3;
const RETRY: u64 = 4;
const CLIENT: u64 = 5;
const SERVER: u64 = 6;

fn keys(secret: u64, side: Side) -> Keys {
    let secret = secret.to_le_bytes();
    let client = Box::new(ChecksumKey(checksum(CLIENT, &[&secret])));
    let server = Box::new(ChecksumKey(checksum(SERVER, &[&secret])));
    let (local, remote) = if side.is_client() { (client, server) } else { (server, client) };
    Keys {
        header: KeyPair { local: Box::new(OpenHeader), remote: Box::new(OpenHeader) },
        packet: KeyPair { local, remote },
    }
}

/// Leaves the payload as it is and appends a checksum of packet number, header and payload.
struct ChecksumKey(u64);

impl ChecksumKey {
    fn tag(&self, packet: u64, header: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
        let sum = checksum(self.0 ^ packet.wrapping_mul(PRIME), &[header, payload]);
        tag_of(sum)
    }
}

impl PacketKey for ChecksumKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let (body, tag) = buf.split_at_mut(buf.len() - TAG_LEN);
        let (header, payload) = body.split_at(header_len);
        tag.copy_from_slice(&self.tag(packet, header, payload));
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let (body, tag) = payload.split_last_chunk::<TAG_LEN>().ok_or(CryptoError)?;
        if self.tag(packet, header, body) != *tag {
            return Err(CryptoError);
        }
        payload.truncate(payload.len() - TAG_LEN);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Headers are not protected.
struct OpenHeader;

impl HeaderKey for OpenHeader {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        TAG_LEN
    }
}

fn retry_tag(orig_dst_cid: &ConnectionId, packet: &[&[u8]]) -> [u8; TAG_LEN] {
    let key = checksum(RETRY, &[orig_dst_cid]);
    let sum = packet.concat();
    tag_of(checksum(key, &[&sum]))
}

fn tag_of(sum: u64) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    tag[..8].copy_from_slice(&sum.to_le_bytes());
    tag[8..].copy_from_slice(&sum.wrapping_mul(PRIME).to_be_bytes());
    tag
}

const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// A keyed sum of all bytes and where each part ends. Fast, and good against accidents only.
fn checksum(key: u64, parts: &[&[u8]]) -> u64 {
    let mut sum = key ^ PRIME;
    let mut add = |word: u64| sum = (sum ^ word).wrapping_mul(PRIME).rotate_left(29);
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        add(u64::from_le_bytes(last));
        add(part.len() as u64);
    }
    sum ^ (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(packet: u64) -> (Vec<u8>, BytesMut) {
        let mut buf = b"header: some payload".to_vec();
        buf.resize(buf.len() + TAG_LEN, 0);
        ChecksumKey(7).encrypt(packet, &mut buf, 7);
        (buf[..7].to_vec(), BytesMut::from(&buf[7..]))
    }

    #[test]
    fn what_was_sealed_opens_and_any_flipped_bit_is_found() {
        let (header, payload) = sealed(3);
        let mut opened = payload.clone();
        assert!(ChecksumKey(7).decrypt(3, &header, &mut opened).is_ok());
        assert_eq!(&opened[..], b" some payload");
        assert!(ChecksumKey(7).decrypt(4, &header, &mut payload.clone()).is_err());
        assert!(ChecksumKey(8).decrypt(3, &header, &mut payload.clone()).is_err());
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ChecksumKey(7).decrypt(3, &header, &mut damaged).is_err(), "bit {bit}");
        }
        assert!(ChecksumKey(7).decrypt(3, b"headeR:", &mut payload.clone()).is_err());
    }

    #[test]
    fn messages_arrive_whole_however_they_are_cut() {
        let mut wire = Vec::new();
        write_message(&mut wire, HELLO, b"abc");
        let mut inbox = BytesMut::new();
        for byte in &wire[..wire.len() - 1] {
            inbox.extend_from_slice(&[*byte]);
            assert_eq!(take_message(&mut inbox), None);
        }
        inbox.extend_from_slice(&wire[wire.len() - 1..]);
        assert_eq!(take_message(&mut inbox), Some((HELLO, BytesMut::from(&b"abc"[..]))));
    }
}
