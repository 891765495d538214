//! What a fuzzer does with its bytes: one function a decoder.
//!
//! Each decodes, and checks what must hold of anything that decodes. The same functions are replayed on the committed
//! corpus by an ordinary test of `peerless-proto`, which includes this file.

use bytes::{Bytes, BytesMut};
use peerless_proto::dns::{DnsError, TextQuery};
use peerless_proto::keys::{self, Keypair};
use peerless_proto::multistream::{self, LineDecoder};
use peerless_proto::noise::{self, HandshakePayload, MessageDecoder};
use peerless_proto::pb::rendezvous::RegisterRecord;
use peerless_proto::pb::{self, Wire};
use peerless_proto::peer_record::Dialect;
use peerless_proto::{
    CircuitAddr, Envelope, FrameDecoder, Framing, Multiaddr, PeerRecord, Voucher, address, encode_frame,
    varint, voucher, yamux,
};

/// A target's name, which is its binary's and its corpus folder's, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("autonat_v1", autonat_v1),
    ("autonat_v2", autonat_v2),
    ("dcutr", dcutr),
    ("dns_texts", dns_texts),
    ("envelope", envelope),
    ("frame", frame),
    ("identify", identify),
    ("multiaddr", multiaddr),
    ("multistream", multistream),
    ("noise_message", noise_message),
    ("noise_payload", noise_payload),
    ("peer_id", peer_id),
    ("peer_record", peer_record),
    ("private_key", private_key),
    ("public_key", public_key),
    ("register_record", register_record),
    ("relay_hop", relay_hop),
    ("relay_stop", relay_stop),
    ("rendezvous", rendezvous),
    ("varint", varint),
    ("voucher", voucher),
    ("yamux", yamux),
];

pub fn varint(data: &[u8]) {
    if let Ok(Some((value, len))) = varint::decode(data) {
        let mut out = BytesMut::new();
        varint::encode(value, &mut out);
        assert_eq!(out[..], data[..len]);
    }
}

/// The answer to a question with the id 7, and to no other.
pub fn dns_texts(data: &[u8]) {
    let read = |id, data: &[u8]| {
        let query = TextQuery::new(id, "_dnsaddr.example.org").expect("it is a name");
        query.read_answer(data)
    };
    if let Ok(texts) = read(7, data) {
        assert!(texts.iter().map(String::len).sum::<usize>() <= data.len());
        assert_eq!(read(8, data), Err(DnsError::NotOurs));
        assert!(read(7, &data[..11]).is_err());
    }
}

/// The first byte says into what pieces the rest is cut.
pub fn frame(data: &[u8]) {
    const FRAMING: Framing = Framing::Varint { max: 4096 };
    let Some((&step, stream)) = data.split_first() else { return };
    let read = |step: usize| {
        let mut decoder = FrameDecoder::new(FRAMING);
        let mut frames = Vec::new();
        for piece in stream.chunks(step) {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Ok(Some(frame)) = decoder.next_frame() {
                frames.push(frame);
            }
            assert!(decoder.buffered() <= 4096 + varint::MAX_LEN);
        }
        let failed = decoder.next_frame().err();
        (frames, failed, decoder.take_rest().concat())
    };
    let whole = read(stream.len().max(1));
    assert_eq!(whole, read(usize::from(step).max(1)));
    let (frames, failed, rest) = whole;
    if failed.is_none() {
        let mut again = frames.iter().flat_map(|frame| encode_frame(FRAMING, frame)).collect::<Vec<_>>();
        again.extend_from_slice(&rest);
        assert_eq!(again, stream);
    }
}

pub fn multistream(data: &[u8]) {
    let mut decoder = LineDecoder::new();
    decoder.push(Bytes::copy_from_slice(data));
    let mut again = BytesMut::new();
    while let Ok(Some(line)) = decoder.next_line() {
        multistream::encode_line(line.as_str(), &mut again);
    }
    if decoder.next_line().is_ok() {
        again.extend_from_slice(&decoder.take_rest().concat());
        assert_eq!(again[..], *data);
    }
}

pub fn yamux(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else { return };
    if let Ok(header) = yamux::Header::decode(bytes) {
        assert_eq!(header.encode(), *bytes);
        let _ = format!("{header:?}");
    }
}

pub fn noise_message(data: &[u8]) {
    let mut decoder = MessageDecoder::new();
    let mut again = BytesMut::new();
    for piece in data.chunks(7) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(message) = decoder.next_message() {
            noise::encode_message(&message, &mut again).expect("what was read can be written");
        }
    }
    again.extend_from_slice(&decoder.take_rest().concat());
    assert_eq!(again[..], *data);
}

pub fn noise_payload(data: &[u8]) {
    if let Ok(payload) = HandshakePayload::decode(data) {
        let _ = payload.verify(&[9; 32]);
        assert_eq!(HandshakePayload::decode(&payload.encode()), Ok(payload));
    }
}

pub fn public_key(data: &[u8]) {
    if let Ok(key) = keys::decode_public_key(data) {
        assert_eq!(keys::encode_public_key(&key), data);
        assert_eq!(keys::decode_peer_id(&key.to_peer_id().to_bytes()), Ok(key.to_peer_id()));
        assert!(!key.verify(b"message", data));
    }
}

/// An RSA key whose parts do not fit together is read, but cannot sign.
pub fn private_key(data: &[u8]) {
    if let Ok(keypair) = keys::decode_private_key(data)
        && let Ok(signature) = keypair.sign(b"message")
    {
        assert!(keypair.public().verify(b"message", &signature));
    }
}

/// Binary and text.
pub fn peer_id(data: &[u8]) {
    if let Ok(peer) = keys::decode_peer_id(data) {
        assert_eq!(peer.to_bytes(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(peer) = keys::parse_peer_id(text) {
        assert_eq!(keys::parse_peer_id(&peer.to_base58()), Ok(peer));
        assert_eq!(keys::parse_peer_id(&keys::peer_id_to_cid(&peer)), Ok(peer));
    }
}

pub fn multiaddr(data: &[u8]) {
    let Ok(parsed) = address::decode_multiaddr(data.to_vec()) else { return };
    let (front, peer) = address::split_peer(&parsed);
    if let Some(peer) = peer
        && let Ok(joined) = address::with_peer(front, peer)
    {
        assert_eq!(address::split_peer(&joined).1, Some(peer));
    }
    if let Ok((socket, _)) = address::parse_quic_v1(&parsed) {
        assert_eq!(address::ip_of(&parsed), Some(socket.ip()));
    }
    if let Ok(circuit) = CircuitAddr::parse(&parsed) {
        assert!(address::is_circuit(&parsed));
        assert_eq!(Multiaddr::from(circuit), parsed);
    }
}

pub fn envelope(data: &[u8]) {
    if let Ok(envelope) = Envelope::decode(data) {
        let _ = envelope.verify("domain", envelope.payload_type());
        assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
    }
}

/// As a whole envelope, and as the payload of one that is rightly signed.
pub fn peer_record(data: &[u8]) {
    if let Ok(envelope) = Envelope::decode(data) {
        let _ = PeerRecord::open(&envelope);
    }
    let dialect = Dialect::Standard;
    if let Ok(record) = PeerRecord::open(&signed(dialect.domain(), dialect.payload_type(), data)) {
        let sealed = record.seal(&keypair(), dialect).expect("what was opened can be sealed");
        assert_eq!(PeerRecord::open(&sealed), Ok(record));
    }
}

/// As a whole envelope, and as the payload of one that is rightly signed.
pub fn voucher(data: &[u8]) {
    if let Ok(envelope) = Envelope::decode(data) {
        let _ = Voucher::open(&envelope);
    }
    if let Ok(voucher) = Voucher::open(&signed(voucher::DOMAIN, voucher::PAYLOAD_TYPE, data)) {
        let sealed = voucher.seal(&keypair()).expect("what was opened can be sealed");
        assert_eq!(Voucher::open(&sealed), Ok(voucher));
    }
}

pub fn register_record(data: &[u8]) {
    let _ = RegisterRecord::decode(data);
}

pub fn identify(data: &[u8]) {
    message::<pb::identify::Identify>(data);
}

pub fn relay_hop(data: &[u8]) {
    message::<pb::relay::HopMessage>(data);
}

pub fn relay_stop(data: &[u8]) {
    message::<pb::relay::StopMessage>(data);
}

pub fn dcutr(data: &[u8]) {
    message::<pb::dcutr::HolePunch>(data);
}

pub fn rendezvous(data: &[u8]) {
    message::<pb::rendezvous::Message>(data);
}

pub fn autonat_v1(data: &[u8]) {
    message::<pb::autonat::v1::Message>(data);
}

pub fn autonat_v2(data: &[u8]) {
    message::<pb::autonat::v2::Message>(data);
    message::<pb::autonat::v2::DialBack>(data);
    message::<pb::autonat::v2::DialBackResponse>(data);
}

/// What decodes survives its own encoding.
fn message<M: Wire + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(message) = pb::decode::<M>(data) {
        assert_eq!(pb::decode::<M>(&message.encode_to_vec()), Ok(message));
    }
}

fn keypair() -> Keypair {
    Keypair::ed25519_from_bytes([1; 32]).expect("any 32 bytes are a key")
}

fn signed(domain: &str, payload_type: &[u8], payload: &[u8]) -> Envelope {
    Envelope::sign(&keypair(), domain, payload_type, payload.to_vec()).expect("an Ed25519 key signs")
}
