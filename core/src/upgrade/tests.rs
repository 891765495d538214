use super::*;
use crate::{
    Keypair,
    time::UnixTime,
    tls::{TlsIdentity, WallClock},
};

const START: Instant = Instant::from_nanos(1_000_000_000);

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).unwrap()
}

fn id(n: u8) -> PeerId {
    key(n).public().to_peer_id()
}

fn credentials(n: u8) -> Arc<Credentials> {
    let clock = WallClock::new(UnixTime::from_secs(1_767_225_600));
    Arc::new(Credentials { keypair: key(n), tls: TlsIdentity::new(&key(n), clock).unwrap() })
}

fn config(security: &[Security]) -> Config {
    Config { security: security.to_vec(), ..Config::default() }
}

fn end(role: UpgradeRole, security: &[Security], expected: Option<PeerId>) -> SecuredConnection {
    let n = if role == UpgradeRole::Initiator { 1 } else { 2 };
    SecuredConnection::new(role, config(security), credentials(n), expected, [n; 32], START)
}

fn initiator(security: &[Security]) -> SecuredConnection {
    end(UpgradeRole::Initiator, security, Some(id(2)))
}

fn responder(security: &[Security]) -> SecuredConnection {
    end(UpgradeRole::Responder, security, None)
}

const BOTH: &[Security] = &[Security::Tls, Security::Noise];
const TLS: &[Security] = &[Security::Tls];
const NOISE: &[Security] = &[Security::Noise];

fn transmitted(end: &mut SecuredConnection) -> Bytes {
    let mut out = BytesMut::new();
    while let Some(bytes) = end.poll_transmit() {
        assert!(!bytes.is_empty());
        out.extend_from_slice(&bytes);
    }
    out.freeze()
}

/// Carries what `from` has to say to `to` in pieces of `step` bytes; tells how much that was.
fn carry(from: &mut SecuredConnection, to: &mut SecuredConnection, step: usize) -> usize {
    let said = transmitted(from);
    for piece in said.chunks(step) {
        to.handle_bytes(START, Bytes::copy_from_slice(piece));
    }
    said.len()
}

/// Lets both talk until neither has more to say; tells how many times one flew to the other.
fn settle(a: &mut SecuredConnection, b: &mut SecuredConnection, step: usize) -> usize {
    let mut flights = 0;
    let mut quiet = 0;
    let mut ends = [a, b];
    while quiet < 2 {
        let [from, to] = &mut ends;
        let said = carry(from, to, step);
        (flights, quiet) = if said == 0 { (flights, quiet + 1) } else { (flights + 1, 0) };
        ends.swap(0, 1);
    }
    flights
}

fn events(end: &mut SecuredConnection) -> Vec<Event> {
    std::iter::from_fn(|| end.poll_event()).collect()
}

fn established(peer: PeerId, security: Security) -> Event {
    Event::Established { peer, security, muxer: "/yamux/1.0.0" }
}

fn joined(security: &[Security]) -> [SecuredConnection; 2] {
    let (mut a, mut b) = (initiator(security), responder(security));
    settle(&mut a, &mut b, usize::MAX);
    assert_eq!(events(&mut a), [established(id(2), security[0])]);
    assert_eq!(events(&mut b), [established(id(1), security[0])]);
    [a, b]
}

fn violate(end: &mut SecuredConnection, bytes: &[u8]) -> Event {
    end.handle_bytes(START, Bytes::copy_from_slice(bytes));
    let mut events = events(end);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(!end.is_established() && end.deadline().is_none());
    end.handle_bytes(START, Bytes::from_static(b"more"));
    assert_eq!((end.poll_event(), end.buffered() - end.output.len()), (None, 0));
    events.remove(0)
}

#[test]
fn both_protocols_establish_however_bytes_arrive() {
    for security in [Security::Tls, Security::Noise] {
        for step in [1, 7, 100, usize::MAX] {
            let (mut a, mut b) = (initiator(&[security]), responder(BOTH));
            settle(&mut a, &mut b, step);
            assert_eq!(events(&mut a), [established(id(2), security)]);
            assert_eq!(events(&mut b), [established(id(1), security)]);
            let stream = a.open().unwrap();
            a.write(stream, &mut Bytes::from_static(b"hello")).unwrap();
            settle(&mut a, &mut b, step);
            let seen = [MuxEvent::Opened(stream), MuxEvent::Readable(stream)].map(Event::Mux);
            assert_eq!(events(&mut b), seen);
            assert_eq!(b.read(stream, 100), Ok(Read::Data(Bytes::from_static(b"hello"))));
        }
    }
}

#[test]
fn the_initiators_order_decides_and_refusals_are_survived() {
    let agreed = |ours: &[Security], theirs: &[Security]| {
        let (mut a, mut b) = (initiator(ours), responder(theirs));
        settle(&mut a, &mut b, usize::MAX);
        match events(&mut a).first() {
            Some(Event::Established { security, .. }) => Some(*security),
            _ => None,
        }
    };
    assert_eq!(agreed(&[Security::Noise, Security::Tls], BOTH), Some(Security::Noise));
    assert_eq!(agreed(BOTH, BOTH), Some(Security::Tls));
    assert_eq!(agreed(BOTH, NOISE), Some(Security::Noise));
}

#[test]
fn a_single_proposal_saves_a_round_trip() {
    let flights = |ours: &[Security]| {
        let (mut a, mut b) = (initiator(ours), responder(BOTH));
        let mut flights = 0;
        while !(a.is_established() && b.is_established()) {
            flights += 1;
            carry(&mut a, &mut b, usize::MAX);
            std::mem::swap(&mut a, &mut b);
        }
        flights
    };
    assert_eq!((flights(NOISE), flights(TLS)), (3, 3));
    assert_eq!((flights(&[Security::Noise, Security::Tls]), flights(BOTH)), (5, 5));
}

#[test]
fn a_remote_without_early_muxers_negotiates_yamux_inside() {
    let mut a = initiator(NOISE);
    let mut remote = noise::Noise::new(UpgradeRole::Responder, &key(2), None, [2; 32], &[]).unwrap();
    let mut listener = Listener::new();
    let mut out = BytesMut::new();
    let first = transmitted(&mut a);
    assert_eq!(listener.handle_bytes(first, |name| (name == "/noise").then_some(()), &mut out), Ok(Some(())));
    a.handle_bytes(START, out.split().freeze());
    for mut rest in listener.take_rest() {
        remote.handle_bytes(&mut rest).unwrap();
    }
    a.handle_bytes(START, remote.poll_transmit().unwrap());
    assert_eq!(a.deadline().unwrap().why, "muxer negotiation");
    remote.handle_bytes(&mut transmitted(&mut a)).unwrap();
    let proposal: Bytes = std::iter::from_fn(|| remote.read(1000)).flatten().collect();
    let mut listener = Listener::new();
    listener
        .handle_bytes(proposal, |name| (name == "/yamux/1.0.0").then_some(()), &mut out)
        .unwrap()
        .unwrap();
    // The agreement, and behind it a yamux ping.
    out.extend_from_slice(&[0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
    remote.write(&out);
    a.handle_bytes(START, remote.poll_transmit().unwrap());
    assert_eq!(events(&mut a), [established(id(2), Security::Noise)]);
    remote.handle_bytes(&mut transmitted(&mut a)).unwrap();
    let answers: Vec<u8> = std::iter::from_fn(|| remote.read(1000)).flatten().collect();
    assert_eq!(answers[..12], [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9], "the pong");
}

#[test]
fn a_dial_to_the_wrong_peer_fails() {
    for security in [TLS, NOISE] {
        let mut a = end(UpgradeRole::Initiator, security, Some(id(3)));
        let mut b = responder(security);
        settle(&mut a, &mut b, usize::MAX);
        let wrong = UpgradeError::WrongPeer { expected: id(3), found: id(2) };
        assert_eq!(events(&mut a), [Event::Failed(wrong)]);
        assert!(!b.is_established() && a.is_drained());
    }
    let mut a = initiator(NOISE);
    let mut b = end(UpgradeRole::Responder, NOISE, Some(id(3)));
    settle(&mut a, &mut b, usize::MAX);
    assert_eq!(events(&mut b), [Event::Failed(UpgradeError::WrongPeer { expected: id(3), found: id(1) })]);
}

#[test]
fn an_alert_tells_the_remote_why() {
    let mut a = end(UpgradeRole::Initiator, TLS, Some(id(3)));
    let mut b = responder(TLS);
    settle(&mut a, &mut b, usize::MAX);
    assert!(
        matches!(&events(&mut b)[..], [Event::Failed(UpgradeError::Handshake(why))] if why.contains("alert"))
    );
}

#[test]
fn nothing_in_common_fails() {
    let (mut a, mut b) = (initiator(&[Security::Tls, Security::Noise]), responder(&[]));
    settle(&mut a, &mut b, usize::MAX);
    assert!(matches!(&events(&mut a)[..], [Event::Failed(UpgradeError::Negotiation(_))]));
    assert_eq!(events(&mut b), [], "it may yet propose something else");
    b.handle_finish();
    let ended = UpgradeError::Carrier(StreamFault::ConnectionLost);
    assert_eq!(events(&mut b), [Event::Failed(ended)]);
}

#[test]
fn garbage_fails_in_every_stage() {
    let mut end = responder(BOTH);
    assert!(matches!(
        violate(&mut end, &b"GET / HTTP/1.1\r\n".repeat(9)),
        Event::Failed(UpgradeError::Negotiation(_))
    ));
    let mut end = initiator(BOTH);
    assert!(matches!(violate(&mut end, &[0x80; 20]), Event::Failed(UpgradeError::Negotiation(_))));
    for security in [TLS, NOISE] {
        let (mut a, mut b) = (initiator(security), responder(security));
        carry(&mut a, &mut b, usize::MAX);
        assert_eq!(b.deadline().unwrap().why, "security handshake");
        let failed = violate(&mut b, &[0x16; 400_000]);
        assert!(matches!(failed, Event::Failed(UpgradeError::Handshake(_))), "{failed:?}");
    }
}

#[test]
fn damage_to_an_established_connection_ends_it() {
    for security in [TLS, NOISE] {
        let [mut a, mut b] = joined(security);
        let stream = a.open().unwrap();
        a.write(stream, &mut Bytes::from(vec![7; 100])).unwrap();
        let mut wire = transmitted(&mut a).to_vec();
        wire[20] ^= 1;
        b.handle_bytes(START, wire.into());
        let events = events(&mut b);
        assert!(matches!(&events[..], [Event::Mux(MuxEvent::Closed(CloseReason::Broken(_)))]), "{events:?}");
        assert!(b.deadline().is_none());
    }
}

#[test]
fn an_upgrade_takes_ten_seconds_at_most() {
    let later = START + Duration::from_secs(10);
    let (mut a, mut b) = (initiator(TLS), responder(TLS));
    assert_eq!(a.deadline(), Some(Deadline::new(later, "security negotiation")));
    carry(&mut a, &mut b, usize::MAX);
    a.handle_timeout(START + Duration::from_secs(9));
    assert_eq!(events(&mut a), []);
    for (end, stage) in [(&mut a, "security negotiation"), (&mut b, "security handshake")] {
        end.handle_timeout(later);
        assert_eq!(events(end), [Event::Failed(UpgradeError::TimedOut(stage))]);
        assert_eq!(end.deadline(), None);
    }
    let [mut a, _] = joined(NOISE);
    a.handle_timeout(later);
    assert!(a.is_established());
}

#[test]
fn the_end_of_the_pipe_ends_the_connection_behind_its_data() {
    let [mut a, mut b] = joined(NOISE);
    let stream = a.open().unwrap();
    a.write(stream, &mut Bytes::from_static(b"last words")).unwrap();
    carry(&mut a, &mut b, usize::MAX);
    b.handle_finish();
    assert_eq!(events(&mut b).last(), Some(&Event::Mux(MuxEvent::Closed(CloseReason::Ended))));
    assert_eq!(b.read(stream, 100), Ok(Read::Data(Bytes::from_static(b"last words"))));
    assert_eq!(b.read(stream, 100), Err(ReadError::Closed));
    a.handle_reset(StreamFault::Remote(0));
    assert!(matches!(&events(&mut a)[..], [Event::Mux(MuxEvent::Closed(CloseReason::Broken(_)))]));
    assert!(a.is_drained() && b.is_drained());
    let mut early = initiator(TLS);
    early.handle_reset(StreamFault::Remote(7));
    assert_eq!(events(&mut early), [Event::Failed(UpgradeError::Carrier(StreamFault::Remote(7)))]);
}

#[test]
fn closing_says_so_to_the_remote() {
    for security in [TLS, NOISE] {
        let [mut a, mut b] = joined(security);
        a.close();
        settle(&mut a, &mut b, usize::MAX);
        assert_eq!(events(&mut a), [Event::Mux(MuxEvent::Closed(CloseReason::Local))]);
        assert_eq!(events(&mut b), [Event::Mux(MuxEvent::Closed(CloseReason::Remote(GoAway::Normal)))]);
        assert!(a.is_drained() && b.is_drained());
    }
}

#[test]
fn the_same_seeds_give_the_same_bytes_over_noise() {
    let run = || {
        let (mut a, mut b) = (initiator(NOISE), responder(NOISE));
        let mut wire = Vec::new();
        for _ in 0..4 {
            let said = transmitted(&mut a);
            wire.push(said.clone());
            b.handle_bytes(START, said);
            std::mem::swap(&mut a, &mut b);
        }
        wire
    };
    assert_eq!(run(), run());
}

/// What an end sends on a stream, and how far it is with reading the other's.
struct Transfer {
    left: Bytes,
    received: usize,
    is_finished: bool,
}

impl Transfer {
    fn new(size: usize, salt: u8) -> Self {
        let left: Vec<u8> = (0..size).map(|at| (at >> 3) as u8 ^ at as u8 ^ salt).collect();
        Self { left: left.into(), received: 0, is_finished: false }
    }

    /// Writes and reads what is possible now. Read bytes must be those of `salt`.
    fn drive(&mut self, end: &mut SecuredConnection, stream: MuxStream, salt: u8) {
        while !self.left.is_empty() && end.write(stream, &mut self.left).is_ok() {}
        if self.left.is_empty() {
            let _ = end.finish(stream);
        }
        while !self.is_finished {
            match end.read(stream, 50_000) {
                Ok(Read::Data(data)) => {
                    for byte in data {
                        assert_eq!(byte, (self.received >> 3) as u8 ^ self.received as u8 ^ salt);
                        self.received += 1;
                    }
                }
                Ok(Read::Finished) => self.is_finished = true,
                Ok(Read::Blocked) | Err(_) => break,
            }
        }
    }
}

#[test]
fn megabytes_flow_both_ways_on_two_streams_and_nothing_is_left() {
    const SIZE: usize = 2 << 20;
    for security in [TLS, NOISE] {
        let [mut a, mut b] = joined(security);
        let streams = [a.open().unwrap(), a.open().unwrap()];
        let mut ours = [0, 1].map(|_| Transfer::new(SIZE, 1));
        let mut theirs = [0, 1].map(|_| Transfer::new(SIZE, 2));
        for _ in 0..10_000 {
            for (n, stream) in streams.into_iter().enumerate() {
                ours[n].drive(&mut a, stream, 2);
                theirs[n].drive(&mut b, stream, 1);
            }
            carry(&mut a, &mut b, 20_000);
            carry(&mut b, &mut a, 20_000);
            if ours.iter().chain(&theirs).all(|transfer| transfer.is_finished) {
                break;
            }
        }
        for transfer in ours.iter().chain(&theirs) {
            assert_eq!((transfer.received, transfer.is_finished), (SIZE, true));
        }
        assert_eq!([a.stream_count(), b.stream_count(), a.buffered(), b.buffered()], [0; 4]);
    }
}

#[test]
fn unread_streams_stop_the_pipe_and_reading_starts_it_again() {
    for security in [TLS, NOISE] {
        let mut small = config(security);
        small.yamux.max_connection_window = 300_000;
        let mut a = initiator(security);
        let responder = UpgradeRole::Responder;
        let mut b = SecuredConnection::new(responder, small, credentials(2), None, [2; 32], START);
        settle(&mut a, &mut b, usize::MAX);
        let streams = [0, 1, 2].map(|_| a.open().unwrap());
        let mut left = [0, 1, 2].map(|_| Bytes::from(vec![7; 256 << 10]));
        let mut pipe: VecDeque<Bytes> = VecDeque::new();
        for _ in 0..100 {
            for (stream, left) in streams.into_iter().zip(&mut left) {
                while !left.is_empty() && a.write(stream, left).is_ok() {}
            }
            while let Some(bytes) = a.poll_transmit() {
                pipe.push_back(bytes);
            }
            while b.wants_input()
                && let Some(bytes) = pipe.pop_front()
            {
                b.handle_bytes(START, bytes);
            }
        }
        assert!(left.iter().all(Bytes::is_empty) && !b.wants_input() && !pipe.is_empty());
        assert!(b.buffered() < 300_000 + 4 * MAX_READ, "{}", b.buffered());
        let mut received = 0;
        for _ in 0..100 {
            for stream in streams {
                while let Ok(Read::Data(data)) = b.read(stream, 10_000) {
                    received += data.len();
                }
            }
            while b.wants_input()
                && let Some(bytes) = pipe.pop_front()
            {
                b.handle_bytes(START, bytes);
            }
        }
        assert_eq!((received, pipe.len(), b.buffered()), (3 * (256 << 10), 0, 0));
    }
}

#[test]
fn a_flood_of_events_stops_the_pipe_until_they_are_taken() {
    let [mut a, mut b] = joined(NOISE);
    let mut opened = 0;
    while b.wants_input() {
        let stream = a.open().unwrap();
        carry(&mut a, &mut b, usize::MAX);
        a.reset(stream);
        carry(&mut a, &mut b, usize::MAX);
        opened += 1;
        assert!(opened < 10_000);
    }
    b.handle_bytes(START, transmitted_after(&mut a, b"late"));
    assert!(!b.wants_input());
    let seen = events(&mut b);
    assert!(b.wants_input() && matches!(seen.last(), Some(Event::Mux(MuxEvent::Readable(_)))));
}

fn transmitted_after(end: &mut SecuredConnection, data: &'static [u8]) -> Bytes {
    let stream = end.open().unwrap();
    end.write(stream, &mut Bytes::from_static(data)).unwrap();
    transmitted(end)
}
