use proptest::{collection::vec, prelude::*};

use super::*;

const YAMUX: &str = "/yamux/1.0.0";

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).unwrap()
}

fn id(n: u8) -> PeerId {
    key(n).public().to_peer_id()
}

fn initiator(expected: Option<PeerId>, muxers: &[&str]) -> Noise {
    Noise::new(UpgradeRole::Initiator, &key(1), expected, [1; 32], muxers).unwrap()
}

fn responder(muxers: &[&str]) -> Noise {
    Noise::new(UpgradeRole::Responder, &key(2), None, [2; 32], muxers).unwrap()
}

/// Carries what `from` has to say to `to` in pieces of `step` bytes; returns it.
fn carry(from: &mut Noise, to: &mut Noise, step: usize) -> Result<Vec<u8>, NoiseError> {
    let mut said = Vec::new();
    while let Some(bytes) = from.poll_transmit() {
        said.extend_from_slice(&bytes);
    }
    for piece in said.chunks(step) {
        to.handle_bytes(&mut Bytes::copy_from_slice(piece))?;
    }
    Ok(said)
}

fn handshake(a: &mut Noise, b: &mut Noise, step: usize) -> Result<Vec<u8>, NoiseError> {
    let mut wire = carry(a, b, step)?;
    wire.extend(carry(b, a, step)?);
    wire.extend(carry(a, b, step)?);
    Ok(wire)
}

fn joined() -> [Noise; 2] {
    let (mut a, mut b) = (initiator(None, &[]), responder(&[]));
    handshake(&mut a, &mut b, usize::MAX).unwrap();
    [a, b]
}

fn read_all(noise: &mut Noise) -> Vec<u8> {
    std::iter::from_fn(|| noise.read(usize::MAX)).flatten().collect()
}

#[test]
fn both_ends_learn_who_the_other_is_however_bytes_arrive() {
    for step in [1, 2, 3, 31, 97, usize::MAX] {
        let (mut a, mut b) = (initiator(Some(id(2)), &[]), responder(&[]));
        assert!(a.is_handshaking() && b.is_handshaking());
        assert_eq!((a.write(b"early"), b.write(b"early")), (0, 0));
        handshake(&mut a, &mut b, step).unwrap();
        assert!(!a.is_handshaking() && !b.is_handshaking());
        assert_eq!((a.peer(), b.peer()), (Some(id(2)), Some(id(1))));
        assert_eq!((a.muxer(), b.muxer()), (None, None));
        assert_eq!(b.write(b"hello"), 5);
        carry(&mut b, &mut a, step).unwrap();
        assert_eq!(read_all(&mut a), b"hello");
    }
}

#[test]
fn the_same_seeds_give_the_same_bytes_and_others_give_others() {
    let run = |seed| {
        let mut a = Noise::new(UpgradeRole::Initiator, &key(1), None, seed, &[YAMUX]).unwrap();
        let mut b = responder(&[YAMUX]);
        let mut wire = handshake(&mut a, &mut b, usize::MAX).unwrap();
        a.write(b"hello");
        wire.extend(carry(&mut a, &mut b, usize::MAX).unwrap());
        wire
    };
    assert_eq!(run([1; 32]), run([1; 32]));
    let (first, other) = (run([1; 32]), run([3; 32]));
    assert_ne!(first[2..34], other[2..34], "the ephemeral keys");
    let e = &first[2..34];
    assert!(first[34..].windows(32).all(|window| window != e), "ephemeral and static key differ");
}

#[test]
fn the_initiators_order_decides_on_the_muxer() {
    let agreed = |ours: &[&str], theirs: &[&str]| {
        let (mut a, mut b) = (initiator(None, ours), responder(theirs));
        handshake(&mut a, &mut b, usize::MAX).unwrap();
        assert_eq!(a.muxer(), b.muxer());
        a.muxer().map(str::to_owned)
    };
    assert_eq!(agreed(&["/b", "/a"], &["/a", "/b"]).as_deref(), Some("/b"));
    assert_eq!(agreed(&["/c", "/a"], &["/a", "/b"]).as_deref(), Some("/a"));
    assert_eq!(agreed(&["/c"], &["/a"]), None);
    assert_eq!(agreed(&[YAMUX], &[]), None);
}

#[test]
fn a_dial_to_the_wrong_peer_fails_in_the_handshake_without_our_proof() {
    let (mut a, mut b) = (initiator(Some(id(3)), &[]), responder(&[]));
    let wrong = NoiseError::WrongPeer(Box::new(WrongPeer { expected: id(3), got: id(2) }));
    assert_eq!(handshake(&mut a, &mut b, usize::MAX), Err(wrong.clone()));
    assert_eq!((a.poll_transmit(), a.peer(), a.is_handshaking()), (None, None, false));
    assert_eq!(a.handle_bytes(&mut Bytes::from_static(b"more")), Err(wrong));
}

#[test]
fn a_listener_may_expect_somebody_too() {
    let mut a = initiator(None, &[]);
    let mut b = Noise::new(UpgradeRole::Responder, &key(2), Some(id(3)), [2; 32], &[]).unwrap();
    let wrong = NoiseError::WrongPeer(Box::new(WrongPeer { expected: id(3), got: id(1) }));
    assert_eq!(handshake(&mut a, &mut b, usize::MAX), Err(wrong));
}

#[test]
fn every_damaged_byte_is_noticed() {
    let wire = {
        let (mut a, mut b) = (initiator(None, &[]), responder(&[]));
        carry(&mut a, &mut b, usize::MAX).unwrap();
        b.poll_transmit().unwrap()
    };
    for at in 2..wire.len() {
        let mut damaged = wire.to_vec();
        damaged[at] ^= 0x40;
        let result = initiator(None, &[]).handle_bytes(&mut damaged.into());
        assert_eq!(result, Err(NoiseError::Handshake), "byte {at}");
    }
    let [mut a, mut b] = joined();
    a.write(b"hello");
    let mut message = a.poll_transmit().unwrap().to_vec();
    message[4] ^= 1;
    assert_eq!(b.handle_bytes(&mut message.into()), Err(NoiseError::Decrypt));
}

#[test]
fn a_repeated_message_is_noticed() {
    let [mut a, mut b] = joined();
    a.write(b"pay once");
    let message = a.poll_transmit().unwrap();
    b.handle_bytes(&mut message.clone()).unwrap();
    assert_eq!(b.handle_bytes(&mut message.clone()), Err(NoiseError::Decrypt));
}

#[test]
fn a_key_of_small_order_fails_the_handshake() {
    let mut greeting = vec![0, 32];
    greeting.extend_from_slice(&[0; 32]);
    assert_eq!(responder(&[]).handle_bytes(&mut greeting.into()), Err(NoiseError::Handshake));
}

#[test]
fn a_proof_for_another_key_is_refused() {
    let (mut a, mut b) = (initiator(None, &[]), responder(&[]));
    b.payload = Some(HandshakePayload::new(&key(2), &[9; 32]).unwrap());
    let refused = Err(NoiseError::Payload(PayloadError::Signature));
    assert_eq!(handshake(&mut a, &mut b, usize::MAX), refused);
    let (mut a, mut b) = (initiator(None, &[]), responder(&[]));
    b.payload = None;
    let refused = Err(NoiseError::Payload(PayloadError::NoSignature));
    assert_eq!(handshake(&mut a, &mut b, usize::MAX), refused);
}

#[test]
fn unread_plaintext_stops_the_input_and_unsent_plaintext_the_writer() {
    let [mut a, mut b] = joined();
    assert_eq!(a.write(&vec![7; 1 << 20]), MAX_PLAINTEXT);
    assert_eq!(a.write(b"more"), 0);
    let mut wire = BytesMut::new();
    for _ in 0..10 {
        wire.extend_from_slice(&a.poll_transmit().unwrap());
        a.write(&vec![7; 1 << 20]);
    }
    let mut wire = wire.freeze();
    b.handle_bytes(&mut wire).unwrap();
    assert!(!b.wants_input() && !wire.is_empty() && b.unread < 3 * MAX_MESSAGE);
    let mut received = 0;
    while let Some(plaintext) = b.read(10_000) {
        assert!(plaintext.len() <= 10_000);
        received += plaintext.len();
        b.handle_bytes(&mut wire).unwrap();
    }
    assert_eq!((received, wire.len()), (10 * MAX_PLAINTEXT, 0));
}

#[test]
fn empty_messages_are_nothing() {
    let [mut a, mut b] = joined();
    let State::Transport(transport) = &mut a.state else { panic!() };
    let mut message = vec![0; 18];
    transport.write_message(&[], &mut message[2..]).unwrap();
    message[1] = 16;
    b.handle_bytes(&mut message.into()).unwrap();
    assert_eq!(b.read(10), None);
}

proptest! {
    #[test]
    fn plaintext_arrives_whole(writes in vec(vec(any::<u8>(), 0..3000), 0..12), step in 1usize..5000) {
        let [mut a, mut b] = joined();
        for data in &writes {
            prop_assert_eq!(a.write(data), data.len());
        }
        carry(&mut a, &mut b, step).unwrap();
        prop_assert_eq!(read_all(&mut b), writes.concat());
    }

    #[test]
    fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..300), step in 1usize..50) {
        for mut end in [initiator(None, &[]), responder(&[])] {
            for piece in bytes.chunks(step) {
                let _ = end.handle_bytes(&mut Bytes::copy_from_slice(piece));
            }
            prop_assert!(end.peer().is_none());
        }
    }
}
