//! Two ends in memory: every identity, every chunking, every way to be refused.

use libp2p_identity::Keypair;
use proptest::prelude::*;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::super::certificate::CertificateError;
use super::super::config::{ALPN_LIBP2P, ALPN_YAMUX, TlsIdentity, WallClock};
use super::super::testing::{NOW, ed25519, identities, secp256k1, tls_identity};
use super::super::verifier::{WrongPeer, wrong_peer};
use super::*;
use crate::time::UnixTime;

const ALPN: &[&[u8]] = &[ALPN_YAMUX, ALPN_LIBP2P];

fn peer_of(keypair: &Keypair) -> PeerId {
    keypair.public().to_peer_id()
}

/// Moves what waits at `from` to `to` in chunks of the given lengths, reading what arrives. Empty when idle.
fn carry(
    from: &mut TlsStream,
    to: &mut TlsStream,
    chunk: &mut impl FnMut() -> usize,
) -> Result<Vec<u8>, TlsError> {
    let mut plaintext = Vec::new();
    while let Some(bytes) = from.poll_transmit() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = chunk().clamp(1, rest.len());
            let accepted = to.handle_bytes(&rest[..len])?;
            rest = &rest[accepted..];
            while let Some(bytes) = to.read(1000) {
                plaintext.extend_from_slice(&bytes);
            }
        }
    }
    Ok(plaintext)
}

/// Carries both ways until both are done with the handshake and nothing is under way.
fn shake_hands(
    client: &mut TlsStream,
    server: &mut TlsStream,
    mut chunk: impl FnMut() -> usize,
) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let (mut at_client, mut at_server) = (Ok(()), Ok(()));
    for _ in 0..4 {
        at_server = at_server.and(carry(client, server, &mut chunk).map(|_| ()));
        at_client = at_client.and(carry(server, client, &mut chunk).map(|_| ()));
    }
    (at_client, at_server)
}

fn all_at_once() -> usize {
    usize::MAX
}

fn pair(client: &Keypair, server: &Keypair) -> (TlsStream, TlsStream) {
    let (config, _) = tls_identity(client).client_config(Some(peer_of(server)), ALPN);
    let client = TlsStream::client(config).unwrap();
    let server = TlsStream::server(tls_identity(server).server_config(None, ALPN)).unwrap();
    (client, server)
}

fn connected() -> (TlsStream, TlsStream) {
    let (mut client, mut server) = pair(&ed25519(1), &ed25519(2));
    assert_eq!(shake_hands(&mut client, &mut server, all_at_once), (Ok(()), Ok(())));
    (client, server)
}

#[test]
fn every_identity_with_every_other() {
    let keys = identities();
    for a in &keys {
        for b in &keys {
            let (mut client, mut server) = pair(a, b);
            assert!(client.is_handshaking() && client.peer().is_none() && client.alpn().is_none());
            assert_eq!(shake_hands(&mut client, &mut server, all_at_once), (Ok(()), Ok(())));
            assert!(!client.is_handshaking() && !server.is_handshaking());
            assert_eq!((client.peer(), server.peer()), (Some(peer_of(b)), Some(peer_of(a))));
            assert_eq!((client.alpn(), server.alpn()), (Some(ALPN_YAMUX), Some(ALPN_YAMUX)));
        }
    }
}

#[test]
fn one_byte_at_a_time() {
    let (a, b) = (ed25519(3), secp256k1(4));
    let (mut client, mut server) = pair(&a, &b);
    assert_eq!(shake_hands(&mut client, &mut server, || 1), (Ok(()), Ok(())));
    assert_eq!((client.peer(), server.peer()), (Some(peer_of(&b)), Some(peer_of(&a))));
    assert_eq!(client.write(b"dribble"), 7);
    assert_eq!(carry(&mut client, &mut server, &mut || 1).unwrap(), b"dribble");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_chunks(lens in prop::collection::vec(1..5000usize, 1..20), data in prop::collection::vec(any::<u8>(), 1..60_000)) {
        let mut lens = lens.into_iter().cycle();
        let mut chunk = || lens.next().unwrap_or(1);
        let (mut client, mut server) = pair(&ed25519(5), &ed25519(6));
        prop_assert_eq!(shake_hands(&mut client, &mut server, &mut chunk), (Ok(()), Ok(())));
        prop_assert_eq!(client.write(&data), data.len());
        prop_assert_eq!(carry(&mut client, &mut server, &mut chunk).unwrap(), data);
    }
}

#[test]
fn one_mebibyte_each_way() {
    let data: Vec<u8> = (0..1u32 << 20).map(|i| (i ^ (i >> 8)) as u8).collect();
    let (mut client, mut server) = connected();
    for flip in [false, true] {
        let (from, to) = if flip { (&mut server, &mut client) } else { (&mut client, &mut server) };
        let (mut sent, mut received) = (0, Vec::new());
        while sent < data.len() {
            let accepted = from.write(&data[sent..]);
            assert!((1..=64 * 1024).contains(&accepted));
            assert_eq!(from.write(&data), 0, "unsent ciphertext stops the writer");
            sent += accepted;
            received.extend(carry(from, to, &mut all_at_once).unwrap());
        }
        assert!(received == data);
    }
}

#[test]
fn unread_plaintext_stops_the_reader() {
    let (mut client, mut server) = connected();
    let data = vec![7; 60_000];
    assert_eq!(client.write(&data), data.len());
    let bytes = client.poll_transmit().unwrap();
    let mut at = server.handle_bytes(&bytes).unwrap();
    assert!(at > 0 && at <= 2 * 18_432, "{at} bytes accepted and nothing read");
    assert_eq!(server.handle_bytes(&bytes[at..]), Ok(0));
    let mut received = Vec::new();
    loop {
        while let Some(plaintext) = server.read(777) {
            assert!(plaintext.len() <= 777);
            received.extend_from_slice(&plaintext);
        }
        if at == bytes.len() {
            break;
        }
        at += server.handle_bytes(&bytes[at..]).unwrap();
    }
    assert!(received == data);
    assert_eq!(server.read(1), None);
}

#[test]
fn the_wrong_peer_fails_within_the_handshake() {
    let (me, expected, stranger) = (ed25519(7), peer_of(&ed25519(8)), ed25519(9));
    let (config, verdict) = tls_identity(&me).client_config(Some(expected), ALPN);
    let mut client = TlsStream::client(config).unwrap();
    let mut server = TlsStream::server(tls_identity(&stranger).server_config(None, ALPN)).unwrap();
    assert_eq!(client.write(b"secret"), 6);
    let (at_client, at_server) = shake_hands(&mut client, &mut server, all_at_once);

    let wrong = WrongPeer { expected, got: peer_of(&stranger) };
    let error = PeerError::WrongPeer(Box::new(wrong.clone()));
    assert_eq!(at_client, Err(TlsError::Peer(error.clone())));
    assert_eq!(verdict.get(), Some(&Err(error.clone())));
    assert_eq!(wrong_peer(&rustls::Error::from(error.clone())), Some(wrong));
    assert!(client.is_handshaking() && client.peer().is_none());
    // The stranger learns that it was refused, not whom we wanted, and no byte of ours.
    assert!(matches!(at_server, Err(TlsError::Tls(rustls::Error::AlertReceived(_)))), "{at_server:?}");
    assert!(server.is_handshaking() && server.peer().is_none() && server.read(100).is_none());
    assert!(!rustls::Error::from(error).to_string().contains(&expected.to_base58()));
    // The error is final.
    assert_eq!(client.handle_bytes(b"x"), at_client.map(|()| 0));
    assert_eq!(client.write(b"x"), 0);
}

#[test]
fn the_right_peer_is_in_the_verdict() {
    let (me, other) = (tls_identity(&ed25519(10)), ed25519(11));
    let (config, verdict) = me.client_config(None, ALPN);
    let mut client = TlsStream::client(config).unwrap();
    let mut server = TlsStream::server(tls_identity(&other).server_config(None, ALPN)).unwrap();
    assert_eq!(verdict.get(), None);
    assert_eq!(shake_hands(&mut client, &mut server, all_at_once), (Ok(()), Ok(())));
    assert_eq!(verdict.get(), Some(&Ok(peer_of(&other))));
}

#[test]
fn a_server_may_expect_a_peer_too() {
    let (me, expected) = (ed25519(12), peer_of(&ed25519(13)));
    let server = tls_identity(&ed25519(14));
    let mut client = TlsStream::client(tls_identity(&me).client_config(None, ALPN).0).unwrap();
    let mut server = TlsStream::server(server.server_config(Some(expected), ALPN)).unwrap();
    let (at_client, at_server) = shake_hands(&mut client, &mut server, all_at_once);
    let wrong = WrongPeer { expected, got: peer_of(&me) };
    assert_eq!(at_server, Err(PeerError::WrongPeer(Box::new(wrong)).into()));
    assert!(matches!(at_client, Err(TlsError::Tls(rustls::Error::AlertReceived(_)))), "{at_client:?}");
}

/// A client that is ours in all but the certificates it shows.
fn client_showing(chain: Vec<rustls::pki_types::CertificateDer<'static>>) -> TlsStream {
    let identity = ed25519(15);
    let (config, _) = tls_identity(&identity).client_config(None, ALPN);
    let (own, key) = super::super::certificate::generate(&identity, UnixTime::from_secs(NOW)).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    let chain = if chain.is_empty() { vec![own.clone(), own] } else { chain };
    let mut config = ClientConfig::clone(&config);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    TlsStream::client(Arc::new(config)).unwrap()
}

fn refusal_of(mut client: TlsStream) -> TlsError {
    let server = tls_identity(&ed25519(16)).server_config(None, ALPN);
    let mut server = TlsStream::server(server).unwrap();
    let (at_client, at_server) = shake_hands(&mut client, &mut server, all_at_once);
    assert!(at_client.is_err() && server.peer().is_none() && server.is_handshaking());
    at_server.unwrap_err()
}

#[test]
fn a_client_shows_exactly_one_certificate() {
    let refused = |count| TlsError::Peer(CertificateError::NotOne(count).into());
    assert_eq!(refusal_of(client_showing(vec![])), refused(2));

    let (config, _) = tls_identity(&ed25519(17)).client_config(None, ALPN);
    let mut config = ClientConfig::clone(&config);
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    assert_eq!(refusal_of(TlsStream::client(Arc::new(config)).unwrap()), refused(0));
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_stolen_certificate_is_of_no_use() {
    let (stolen, _) = super::super::certificate::generate(&ed25519(18), UnixTime::from_secs(NOW)).unwrap();
    let error = refusal_of(client_showing(vec![stolen]));
    assert!(matches!(error, TlsError::Tls(rustls::Error::InvalidCertificate(_))), "{error:?}");
}

#[test]
fn certificates_are_checked_by_the_clock_we_are_given_once() {
    let keypair = ed25519(19);
    let clock = WallClock::new(UnixTime::from_secs(NOW));
    let server = TlsIdentity::new(&keypair, clock.clone()).unwrap();
    let dial = |now: u64| {
        clock.set(UnixTime::from_secs(now));
        let config = server.client_config(None, ALPN).0;
        (TlsStream::client(config).unwrap(), TlsStream::server(server.server_config(None, ALPN)).unwrap())
    };
    let (mut client, mut far) = dial(NOW - 4000);
    let (at_client, _) = shake_hands(&mut client, &mut far, all_at_once);
    let early = CertificateError::NotYetValid { not_before: NOW as i64 - 3600, now: NOW - 4000 };
    assert_eq!(at_client, Err(TlsError::Peer(early.into())));

    let century = 100 * 365 * 24 * 3600;
    let (mut client, mut far) = dial(NOW + century);
    assert_eq!(shake_hands(&mut client, &mut far, all_at_once), (Ok(()), Ok(())));
    clock.set(UnixTime::from_secs(NOW + century + 1));
    assert_eq!(client.peer(), Some(peer_of(&keypair)));
    assert_eq!(client.write(b"still here"), 10);
    assert_eq!(carry(&mut client, &mut far, &mut all_at_once).unwrap(), b"still here");

    let (mut client, mut far) = dial(NOW + century + 1);
    let (at_client, _) = shake_hands(&mut client, &mut far, all_at_once);
    assert!(matches!(
        at_client,
        Err(TlsError::Peer(PeerError::Certificate(CertificateError::Expired { .. })))
    ));
}

fn agreed(client: &[&[u8]], server: &[&[u8]]) -> (Result<(), TlsError>, Option<Vec<u8>>) {
    let (a, b) = (tls_identity(&ed25519(20)), tls_identity(&ed25519(21)));
    let mut client = TlsStream::client(a.client_config(None, client).0).unwrap();
    let mut server = TlsStream::server(b.server_config(None, server)).unwrap();
    let (_, at_server) = shake_hands(&mut client, &mut server, all_at_once);
    assert_eq!(client.alpn(), server.alpn());
    (at_server, client.alpn().map(<[u8]>::to_vec))
}

#[test]
fn application_protocols() {
    assert_eq!(agreed(ALPN, ALPN), (Ok(()), Some(ALPN_YAMUX.to_vec())));
    assert_eq!(agreed(ALPN, &[ALPN_LIBP2P]), (Ok(()), Some(ALPN_LIBP2P.to_vec())));
    assert_eq!(agreed(&[ALPN_LIBP2P], ALPN), (Ok(()), Some(ALPN_LIBP2P.to_vec())));
    assert_eq!(agreed(&[], ALPN), (Ok(()), None));
    let none = TlsError::Tls(rustls::Error::NoApplicationProtocol);
    assert_eq!(agreed(&[b"h2"], ALPN), (Err(none), None));
}

#[test]
fn close_notify_closes_one_direction() {
    let (mut client, mut server) = connected();
    assert_eq!(client.write(b"last words"), 10);
    client.close();
    assert_eq!(client.write(b"too late"), 0);
    assert_eq!(carry(&mut client, &mut server, &mut all_at_once).unwrap(), b"last words");
    assert!(server.peer_closed() && !client.peer_closed());
    assert_eq!(server.handle_bytes(b"junk after the end"), Ok(18));

    assert_eq!(server.write(b"answer"), 6);
    server.close();
    assert_eq!(carry(&mut server, &mut client, &mut all_at_once).unwrap(), b"answer");
    assert!(client.peer_closed());
    assert_eq!((client.poll_transmit(), server.poll_transmit()), (None, None));
}

#[test]
fn a_forged_record_breaks_the_stream_and_says_so() {
    let (mut client, mut server) = connected();
    assert_eq!(client.write(b"true words"), 10);
    let mut bytes = client.poll_transmit().unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let error = server.handle_bytes(&bytes).unwrap_err();
    assert_eq!(error, TlsError::Tls(rustls::Error::DecryptError));
    assert!(server.read(100).is_none());
    assert_eq!(server.handle_bytes(&bytes), Err(error));
    let alert = carry(&mut server, &mut client, &mut all_at_once);
    assert!(matches!(alert, Err(TlsError::Tls(rustls::Error::AlertReceived(_)))), "{alert:?}");
}

#[test]
fn what_came_before_an_error_is_not_lost() {
    let (mut client, mut server) = connected();
    assert_eq!(client.write(b"true words"), 10);
    let mut bytes = client.poll_transmit().unwrap().to_vec();
    bytes.extend_from_slice(&bytes.clone());
    assert_eq!(server.handle_bytes(&bytes), Err(TlsError::Tls(rustls::Error::DecryptError)));
    assert_eq!(server.read(4).as_deref(), Some(&b"true"[..]));
    assert_eq!(server.read(100).as_deref(), Some(&b" words"[..]));
    assert_eq!(server.read(100), None);
}

#[test]
fn garbage_is_refused() {
    let (_, mut server) = pair(&ed25519(22), &ed25519(23));
    assert!(server.handle_bytes(b"\x13/multistream/1.0.0\n\x0d/tls/1.0.0\n").is_err());
    let (_, mut server) = pair(&ed25519(24), &ed25519(25));
    assert!(server.handle_bytes(&[0x16; 100_000]).is_err());
}

#[test]
fn no_session_is_ever_resumed() {
    let (a, b) = (tls_identity(&ed25519(26)), tls_identity(&ed25519(27)));
    let (config, _) = a.client_config(None, ALPN);
    let server_config = b.server_config(None, ALPN);
    for _ in 0..2 {
        let mut client = TlsStream::client(config.clone()).unwrap();
        let mut server = TlsStream::server(server_config.clone()).unwrap();
        assert_eq!(shake_hands(&mut client, &mut server, all_at_once), (Ok(()), Ok(())));
        assert_eq!(client.connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}
