use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use peerless_proto::yamux::{HEADER_LEN, INITIAL_WINDOW};
use proptest::{collection::vec, prelude::*};

use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000);

fn session(role: UpgradeRole) -> Yamux {
    Yamux::new(role, YamuxConfig::default(), START)
}

/// A responder that has sent its first ping and knows the answer.
fn listener() -> Yamux {
    let mut session = session(UpgradeRole::Responder);
    transmitted(&mut session);
    session
}

fn transmitted(session: &mut Yamux) -> Bytes {
    let mut out = BytesMut::new();
    while let Some(piece) = session.poll_transmit() {
        assert!(!piece.is_empty());
        out.extend_from_slice(&piece);
    }
    out.freeze()
}

/// The headers of everything a session has to say, with the payloads skipped.
fn headers(session: &mut Yamux) -> Vec<Header> {
    let bytes = transmitted(session);
    let mut headers = Vec::new();
    let mut rest = &bytes[..];
    while let Some((header, tail)) = rest.split_first_chunk::<HEADER_LEN>() {
        let header = Header::decode(header).unwrap();
        rest = &tail[header.body_len() as usize..];
        headers.push(header);
    }
    headers
}

fn events(session: &mut Yamux) -> Vec<MuxEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn hear(
    session: &mut Yamux,
    kind: FrameType,
    flags: Flags,
    stream: u32,
    length: u32,
) -> Result<(), YamuxError> {
    let bytes = Bytes::copy_from_slice(&frame(kind, flags, stream, length).encode());
    session.handle_bytes(session.now, bytes)
}

fn hear_data(session: &mut Yamux, flags: Flags, stream: u32, data: &[u8]) -> Result<(), YamuxError> {
    hear(session, FrameType::Data, flags, stream, data.len() as u32)?;
    session.handle_bytes(session.now, Bytes::copy_from_slice(data))
}

/// Feeds a frame that must end the session, and checks that it ended in every way.
#[track_caller]
fn violates(mut session: Yamux, bytes: &[Header], error: YamuxError) {
    let wire: Vec<u8> = bytes.iter().flat_map(|header| header.encode()).collect();
    assert_eq!(session.handle_bytes(START, wire.into()), Err(error));
    assert_eq!(events(&mut session).last(), Some(&MuxEvent::Closed(CloseReason::Violation(error))));
    let said = headers(&mut session);
    assert_eq!(said, [frame(FrameType::GoAway, Flags::NONE, SESSION, 1)]);
    assert!(session.is_drained());
    assert_eq!(session.open(), Err(OpenError::Closed));
    assert_eq!(session.deadline(), None);
}

const SYN: Flags = Flags::SYN;
const NONE: Flags = Flags::NONE;
use FrameType::{Data, GoAway as Away, Ping as PingFrame, WindowUpdate};

#[test]
fn data_beyond_the_window_ends_the_session() {
    violates(listener(), &[frame(Data, SYN, 1, INITIAL_WINDOW + 1)], YamuxError::WindowExceeded(1));
    let mut open = listener();
    hear_data(&mut open, SYN, 1, &[7; 1000]).unwrap();
    transmitted(&mut open);
    violates(open, &[frame(Data, NONE, 1, INITIAL_WINDOW - 999)], YamuxError::WindowExceeded(1));
}

#[test]
fn the_window_is_usable_to_its_last_byte() {
    let mut session = listener();
    hear_data(&mut session, SYN, 1, &vec![7; INITIAL_WINDOW as usize]).unwrap();
    assert_eq!(session.buffered(), INITIAL_WINDOW as usize);
}

#[test]
fn credit_overflow_ends_the_session() {
    violates(listener(), &[frame(WindowUpdate, SYN, 1, u32::MAX)], YamuxError::CreditOverflow(1));
    let mut full = listener();
    hear(&mut full, WindowUpdate, SYN, 1, u32::MAX - INITIAL_WINDOW).unwrap();
    transmitted(&mut full);
    violates(full, &[frame(WindowUpdate, NONE, 1, 1)], YamuxError::CreditOverflow(1));
}

#[test]
fn credit_for_unknown_streams_is_ignored() {
    let mut session = listener();
    for id in [1, 2, 3, 40, u32::MAX] {
        hear(&mut session, WindowUpdate, NONE, id, u32::MAX).unwrap();
        hear(&mut session, WindowUpdate, Flags::FIN | Flags::ACK, id, 1).unwrap();
        hear(&mut session, WindowUpdate, Flags::RST, id, 0).unwrap();
    }
    assert_eq!((session.stream_count(), events(&mut session), headers(&mut session)), (0, vec![], vec![]));
}

#[test]
fn data_for_unknown_streams_is_bounded_by_what_can_be_under_way() {
    violates(listener(), &[frame(Data, NONE, 9, 1)], YamuxError::StrayData(9));
    let mut session = listener();
    hear_data(&mut session, SYN, 1, &[7; 100]).unwrap();
    session.reset(MuxStream(1));
    assert_eq!(session.buffered(), 0);
    hear_data(&mut session, NONE, 1, &vec![7; INITIAL_WINDOW as usize - 100]).unwrap();
    assert_eq!((session.buffered(), session.stream_count()), (0, 0));
    assert_eq!(hear(&mut session, Data, NONE, 1, 1), Err(YamuxError::StrayData(1)));
}

#[test]
fn a_reset_amid_a_body_skips_the_rest_of_it() {
    let mut session = listener();
    hear(&mut session, Data, SYN, 1, 1000).unwrap();
    session.handle_bytes(START, Bytes::from_static(&[7; 400])).unwrap();
    session.reset(MuxStream(1));
    session.handle_bytes(START, Bytes::from_static(&[7; 600])).unwrap();
    hear_data(&mut session, SYN, 3, b"next").unwrap();
    assert_eq!(session.read(MuxStream(3), 100), Ok(Read::Data(Bytes::from_static(b"next"))));
}

#[test]
fn pings_are_answered_in_a_bounded_number() {
    let mut session = listener();
    hear(&mut session, PingFrame, SYN, 0, 77).unwrap();
    assert_eq!(headers(&mut session), [frame(PingFrame, Flags::ACK, 0, 77)]);
    for _ in 0..10_000 {
        hear(&mut session, PingFrame, SYN, 0, 77).unwrap();
        assert_eq!(headers(&mut session).len(), 1, "a peer that reads its answers may ask on");
    }
    let flood = std::iter::repeat_n((), 10_000).find_map(|()| hear(&mut session, PingFrame, SYN, 0, 1).err());
    assert_eq!(flood, Some(YamuxError::ReplyFlood));
}

#[test]
fn refused_streams_are_reset_in_a_bounded_number() {
    let mut session = listener();
    let open = |session: &mut Yamux, n: u32| hear(session, WindowUpdate, SYN, 2 * n + 1, 0);
    for n in 0..512 {
        open(&mut session, n).unwrap();
    }
    assert_eq!((session.stream_count(), events(&mut session).len()), (512, 512));
    transmitted(&mut session);
    open(&mut session, 512).unwrap();
    assert_eq!(headers(&mut session), [frame(WindowUpdate, Flags::RST, 1025, 0)]);
    assert_eq!((session.stream_count(), events(&mut session)), (512, vec![]));
    hear_data(&mut session, NONE, 1025, b"sent before the reset came").unwrap();
    let flood = (513..10_000).find_map(|n| open(&mut session, n).err());
    assert_eq!(flood, Some(YamuxError::ReplyFlood));
}

#[test]
fn identifiers_are_the_openers_and_used_once() {
    violates(listener(), &[frame(Data, SYN, 2, 0)], YamuxError::InvalidStream(2));
    violates(
        session_after_ping(UpgradeRole::Initiator),
        &[frame(Data, SYN, 1, 0)],
        YamuxError::InvalidStream(1),
    );
    let syn = |id| frame(WindowUpdate, SYN, id, 0);
    violates(listener(), &[syn(5), syn(5)], YamuxError::StreamReused(5));
    let mut session = listener();
    for id in [5, 1, 9, 7, u32::MAX, 3] {
        hear(&mut session, WindowUpdate, SYN, id, 0)
            .unwrap_or_else(|error| assert_eq!((id, error), (3, YamuxError::StreamReused(3))));
    }
    assert_eq!(session.stream_count(), 5, "late but new identifiers are fine, forgotten ones are not");
    let mut session = listener();
    hear(&mut session, WindowUpdate, SYN, 1, 0).unwrap();
    hear(&mut session, WindowUpdate, Flags::RST, 1, 0).unwrap();
    violates_after(session, syn(1), YamuxError::StreamReused(1));
    let mut session = listener();
    hear(&mut session, WindowUpdate, SYN, u32::MAX, 0).unwrap();
    violates_after(session, syn(u32::MAX), YamuxError::StreamReused(u32::MAX));
}

fn session_after_ping(role: UpgradeRole) -> Yamux {
    let mut session = session(role);
    transmitted(&mut session);
    session
}

#[track_caller]
fn violates_after(mut session: Yamux, header: Header, error: YamuxError) {
    transmitted(&mut session);
    violates(session, &[header], error);
}

#[test]
fn a_header_that_is_none_ends_the_session() {
    let mut session = listener();
    let error = session.handle_bytes(START, Bytes::from_static(&[1; 12])).unwrap_err();
    assert!(matches!(error, YamuxError::Header(_)));
}

#[test]
fn data_behind_the_end_of_data_is_dropped_within_the_window() {
    let mut session = listener();
    let id = MuxStream(1);
    hear_data(&mut session, SYN | Flags::FIN, 1, b"all").unwrap();
    hear_data(&mut session, NONE, 1, b"late").unwrap();
    assert_eq!(session.read(id, 100), Ok(Read::Data(Bytes::from_static(b"all"))));
    assert_eq!(session.read(id, 100), Ok(Read::Finished));
    session.finish(id).unwrap();
    transmitted(&mut session);
    assert_eq!((session.stream_count(), session.buffered()), (0, 0));
    hear_data(&mut session, NONE, 1, b"later").unwrap();
    let rest = INITIAL_WINDOW - 12;
    assert_eq!(hear(&mut session, Data, NONE, 1, rest + 1), Err(YamuxError::StrayData(1)));
}

#[test]
fn unacknowledged_streams_are_limited() {
    let config = YamuxConfig { max_outbound_streams: 1000, ..YamuxConfig::default() };
    let mut session = Yamux::new(UpgradeRole::Initiator, config, START);
    transmitted(&mut session);
    for n in 0..256 {
        assert_eq!(session.open(), Ok(MuxStream(2 * n + 1)));
    }
    assert_eq!(session.open(), Err(OpenError::Blocked));
    assert_eq!(headers(&mut session).len(), 256);
    hear(&mut session, WindowUpdate, Flags::ACK, 3, 0).unwrap();
    hear(&mut session, WindowUpdate, Flags::ACK, 3, 0).unwrap();
    assert_eq!(events(&mut session), [MuxEvent::Available]);
    assert_eq!(session.open(), Ok(MuxStream(513)));
    assert_eq!(session.open(), Err(OpenError::Blocked));
    session.reset(MuxStream(5));
    hear(&mut session, WindowUpdate, Flags::RST, 7, 0).unwrap();
    assert_eq!(events(&mut session), [MuxEvent::Available, MuxEvent::Reset(MuxStream(7), 0)]);
    assert!(session.open().is_ok() && session.open().is_ok());
}

#[test]
fn open_streams_are_limited_acknowledged_or_not() {
    let mut session = session_after_ping(UpgradeRole::Initiator);
    for n in 0..256 {
        let id = session.open().unwrap().get();
        assert_eq!(id, 2 * n + 1);
        transmitted(&mut session);
        hear(&mut session, WindowUpdate, Flags::ACK, id, 0).unwrap();
    }
    assert_eq!(session.open(), Err(OpenError::Blocked));
    assert_eq!(events(&mut session), []);
    session.reset(MuxStream(1));
    assert_eq!(events(&mut session), [MuxEvent::Available]);
    assert!(session.open().is_ok());
}

#[test]
fn the_first_data_opens_a_stream_and_a_frame_of_its_own_ends_it() {
    let mut session = session_after_ping(UpgradeRole::Initiator);
    let id = session.open().unwrap();
    session.write(id, &mut Bytes::from_static(b"hello")).unwrap();
    session.finish(id).unwrap();
    assert_eq!(headers(&mut session), [frame(Data, SYN, 1, 5), frame(Data, Flags::FIN, 1, 0)]);
    assert_eq!(events(&mut session), [MuxEvent::Finished(id)]);
    let silent = session.open().unwrap();
    assert_eq!(headers(&mut session), [frame(WindowUpdate, SYN, silent.get(), 0)]);
    let unsent = session.open().unwrap();
    session.reset(unsent);
    assert_eq!(headers(&mut session), [], "a stream the remote never heard of needs no reset");
}

#[test]
fn an_accepted_stream_is_acknowledged_with_what_is_sent_first() {
    let mut session = listener();
    hear(&mut session, WindowUpdate, SYN, 1, 0).unwrap();
    hear(&mut session, WindowUpdate, SYN, 3, 0).unwrap();
    session.write(MuxStream(3), &mut Bytes::from_static(b"welcome")).unwrap();
    assert_eq!(headers(&mut session), [frame(WindowUpdate, Flags::ACK, 1, 0), frame(Data, Flags::ACK, 3, 7)]);
}

#[test]
fn a_reset_after_the_remotes_end_only_stops_our_half() {
    let mut session = listener();
    hear_data(&mut session, SYN | Flags::FIN, 1, b"all I have").unwrap();
    session.write(MuxStream(1), &mut Bytes::from_static(b"queued")).unwrap();
    events(&mut session);
    hear(&mut session, WindowUpdate, Flags::RST, 1, 0).unwrap();
    assert_eq!(events(&mut session), [MuxEvent::Stopped(MuxStream(1), 0)]);
    assert_eq!(session.write(MuxStream(1), &mut Bytes::from_static(b"x")), Err(WriteError::Stopped));
    assert_eq!(session.read(MuxStream(1), 100), Ok(Read::Data(Bytes::from_static(b"all I have"))));
    assert_eq!(session.read(MuxStream(1), 100), Ok(Read::Finished));
    assert_eq!((session.stream_count(), session.buffered()), (0, 0));
}

#[test]
fn a_stopped_stream_drains_and_is_reset_once_we_are_finished() {
    let mut session = listener();
    let id = MuxStream(1);
    hear_data(&mut session, SYN, 1, &[7; 1000]).unwrap();
    session.stop(id);
    assert_eq!((session.buffered(), session.read(id, 1)), (0, Err(ReadError::Stopped)));
    for _ in 0..100 {
        hear_data(&mut session, NONE, 1, &vec![7; 200_000]).unwrap();
        assert_eq!(session.buffered(), 0);
    }
    session.finish(id).unwrap();
    transmitted(&mut session);
    hear_data(&mut session, NONE, 1, b"more").unwrap();
    assert_eq!(headers(&mut session), [frame(WindowUpdate, Flags::RST, 1, 0)]);
    assert_eq!(session.stream_count(), 0);
}

#[test]
fn a_stopped_and_finished_stream_ends_with_the_remotes_end() {
    let mut session = listener();
    hear(&mut session, WindowUpdate, SYN, 1, 0).unwrap();
    session.stop(MuxStream(1));
    session.finish(MuxStream(1)).unwrap();
    transmitted(&mut session);
    assert_eq!(session.stream_count(), 1);
    hear(&mut session, Data, Flags::FIN, 1, 0).unwrap();
    assert_eq!(session.stream_count(), 0);
}

#[test]
fn silence_after_a_ping_ends_the_session() {
    let mut session = session(UpgradeRole::Initiator);
    let pong = Deadline { at: START + Duration::from_secs(10), why: "yamux pong timeout" };
    assert_eq!(session.deadline(), Some(pong));
    assert_eq!(headers(&mut session), [frame(PingFrame, SYN, 0, 0)]);
    session.handle_timeout(START + Duration::from_secs(9));
    assert_eq!(
        (session.deadline(), events(&mut session)),
        (Some(pong), vec![]),
        "a call too early is nothing"
    );
    session.now = START + Duration::from_millis(40);
    hear(&mut session, PingFrame, Flags::ACK, 0, 1).unwrap();
    assert_eq!(session.rtt(), None, "an answer to nothing is no answer");
    hear(&mut session, PingFrame, Flags::ACK, 0, 0).unwrap();
    assert_eq!(session.rtt(), Some(Duration::from_millis(40)));
    let keepalive = Deadline { at: START + Duration::from_secs(30), why: "yamux keepalive" };
    assert_eq!(session.deadline(), Some(keepalive));
    session.handle_timeout(keepalive.at);
    assert_eq!(headers(&mut session), [frame(PingFrame, SYN, 0, 1)]);
    session.now = keepalive.at + Duration::from_secs(6);
    hear(&mut session, PingFrame, SYN, 0, 5).unwrap();
    let deadline = session.deadline().unwrap();
    assert_eq!(deadline.at, keepalive.at + Duration::from_secs(16), "any bytes are a sign of life");
    session.handle_timeout(deadline.at);
    assert_eq!(events(&mut session), [MuxEvent::Closed(CloseReason::Unresponsive)]);
    assert_eq!(session.deadline(), None);
}

#[test]
fn a_session_closes_behind_its_data() {
    let mut session = session_after_ping(UpgradeRole::Initiator);
    let id = session.open().unwrap();
    session.write(id, &mut Bytes::from_static(b"last words")).unwrap();
    session.close();
    session.close();
    assert_eq!(session.open(), Err(OpenError::Closed));
    assert_eq!(session.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Closed));
    assert_eq!(headers(&mut session), [frame(Data, SYN, 1, 10), frame(Away, NONE, 0, 0)]);
    assert_eq!(events(&mut session), [MuxEvent::Closed(CloseReason::Local)]);
    assert!(session.is_drained());
}

#[test]
fn after_the_remotes_go_away_its_data_can_still_be_read() {
    let mut session = listener();
    hear_data(&mut session, SYN, 1, b"read me").unwrap();
    hear_data(&mut session, SYN | Flags::FIN, 3, b"").unwrap();
    events(&mut session);
    hear(&mut session, Away, NONE, 0, 2).unwrap();
    assert_eq!(events(&mut session), [MuxEvent::Closed(CloseReason::Remote(GoAway::InternalError))]);
    hear_data(&mut session, NONE, 1, b"ignored").unwrap();
    assert_eq!(session.read(MuxStream(1), 100), Ok(Read::Data(Bytes::from_static(b"read me"))));
    assert_eq!(session.read(MuxStream(1), 100), Err(ReadError::Closed));
    assert_eq!(session.read(MuxStream(3), 100), Ok(Read::Finished));
    assert_eq!((headers(&mut session), session.is_drained()), (vec![], true));
}

#[test]
fn small_pieces_of_large_buffers_do_not_pin_them() {
    let mut session = listener();
    let mut wire = BytesMut::from(&frame(Data, SYN, 1, 600).encode()[..]);
    wire.extend_from_slice(&[1; 600]);
    wire.extend_from_slice(&frame(Data, SYN, 3, 60_000).encode());
    wire.extend_from_slice(&[3; 60_000]);
    let wire = wire.freeze();
    session.handle_bytes(START, wire.clone()).unwrap();
    let within = |read: Result<Read, ReadError>| match read.unwrap() {
        Read::Data(data) => wire.as_ptr_range().contains(&data.as_ptr()),
        other => panic!("{other:?}"),
    };
    assert!(!within(session.read(MuxStream(1), 1000)), "a hundredth of the buffer is copied");
    assert!(within(session.read(MuxStream(3), 100_000)), "most of the buffer is not");
}

impl stream::Recv {
    /// What the window is made of, between frames.
    fn accounted(&self) -> usize {
        self.credit as usize + self.consumed as usize + self.inbox.len()
    }
}

/// Two sessions joined by pipes with a delay, in virtual time.
struct Pair {
    ends: [Yamux; 2],
    now: Instant,
}

impl Pair {
    fn new(config: YamuxConfig) -> Self {
        let ends = [UpgradeRole::Initiator, UpgradeRole::Responder]
            .map(|role| Yamux::new(role, config.clone(), START));
        Self { ends, now: START }
    }

    /// One exchange: what both ends have to say, cut by `cut`, arrives `delay` later.
    fn exchange(&mut self, delay: Duration, mut cut: impl FnMut(usize) -> usize) -> bool {
        let said = self.ends.each_mut().map(transmitted);
        self.now = self.now + delay;
        let quiet = said.iter().all(Bytes::is_empty);
        for (mut bytes, to) in said.into_iter().zip([1, 0]) {
            while !bytes.is_empty() {
                let n = cut(bytes.len()).clamp(1, bytes.len());
                self.ends[to].handle_bytes(self.now, bytes.split_to(n)).unwrap();
            }
        }
        !quiet
    }

    fn settle(&mut self) {
        while self.exchange(Duration::ZERO, |len| len) {}
    }
}

#[test]
fn a_slow_reader_holds_at_most_its_window_and_blocks_nobody_else() {
    let mut pair = Pair::new(YamuxConfig::default());
    let [slow, quick] = [0, 1].map(|_| pair.ends[0].open().unwrap());
    let mut sent = 0;
    for _ in 0..100 {
        let mut data = Bytes::from(vec![1; 1 << 20]);
        while let Ok(n) = pair.ends[0].write(slow, &mut data) {
            sent += n;
        }
        pair.settle();
    }
    assert_eq!(sent, INITIAL_WINDOW as usize);
    assert_eq!(pair.ends.each_ref().map(Yamux::buffered), [0, INITIAL_WINDOW as usize]);
    let mut received = 0;
    for _ in 0..100 {
        while pair.ends[0].write(quick, &mut Bytes::from(vec![2; 1 << 16])).is_ok() {}
        pair.settle();
        while let Ok(Read::Data(data)) = pair.ends[1].read(quick, usize::MAX) {
            received += data.len();
        }
    }
    assert_eq!(received, 100 * MAX_STREAM_QUEUE);
    events(&mut pair.ends[0]);
    let Ok(Read::Data(_)) = pair.ends[1].read(slow, usize::MAX) else { panic!() };
    while let Ok(Read::Data(_)) = pair.ends[1].read(slow, usize::MAX) {}
    pair.settle();
    assert!(events(&mut pair.ends[0]).contains(&MuxEvent::Writable(slow)));
}

#[test]
fn many_unread_streams_stop_the_input() {
    let mut session = listener();
    for n in 0..64 {
        assert!(session.wants_input());
        hear_data(&mut session, SYN, 2 * n + 1, &vec![1; INITIAL_WINDOW as usize]).unwrap();
    }
    assert!(!session.wants_input());
    session.handle_timeout(START + Duration::from_secs(10));
    let closed = events(&mut session).iter().any(|event| matches!(event, MuxEvent::Closed(_)));
    assert!(!closed, "the pong may be in what is not read");
    session.reset(MuxStream(1));
    assert!(session.wants_input());
}

#[test]
fn unsent_data_is_bounded_and_writers_are_woken() {
    let mut session = session_after_ping(UpgradeRole::Initiator);
    let streams: Vec<_> = (0..10).map(|_| session.open().unwrap()).collect();
    transmitted(&mut session);
    for id in &streams {
        let mut data = Bytes::from(vec![1; 1 << 20]);
        while session.write(*id, &mut data).is_ok() {}
    }
    assert_eq!(session.buffered(), 256 << 10);
    let mut sent: BTreeMap<u32, usize> = BTreeMap::new();
    for header in headers(&mut session) {
        *sent.entry(header.stream).or_default() += header.length as usize;
    }
    assert_eq!(sent.values().filter(|n| **n == MAX_STREAM_QUEUE).count(), 4);
    let woken: BTreeSet<_> = events(&mut session)
        .into_iter()
        .map(|event| match event {
            MuxEvent::Writable(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(woken, streams.iter().copied().collect());
}

#[test]
fn streams_take_turns_of_a_frame() {
    let mut session = session_after_ping(UpgradeRole::Initiator);
    let [a, b] = [0, 1].map(|_| session.open().unwrap());
    for id in [a, b] {
        assert_eq!(session.write(id, &mut Bytes::from(vec![1; 40_000])), Ok(40_000));
    }
    let turns: Vec<_> = headers(&mut session).iter().map(|h| (h.stream, h.length)).collect();
    assert_eq!(turns, [(1, 16_372), (3, 16_372), (1, 16_372), (3, 16_372), (1, 7_256), (3, 7_256)]);
}

/// Sends 32 MiB over a round trip of 100 ms with an endless pipe; returns round trips and receive window.
fn transfer(config: YamuxConfig) -> (u32, u32) {
    let mut pair = Pair::new(config);
    let id = pair.ends[0].open().unwrap();
    let mut left = Bytes::from(vec![1; 32 << 20]);
    let (mut received, mut rounds, mut window) = (0, 0, 0);
    while received < 32 << 20 {
        let mut said = BytesMut::new();
        while !left.is_empty() && pair.ends[0].write(id, &mut left).is_ok() {
            said.extend_from_slice(&transmitted(&mut pair.ends[0]));
        }
        let back = transmitted(&mut pair.ends[1]);
        pair.now = pair.now + Duration::from_millis(50);
        pair.ends[1].handle_bytes(pair.now, said.freeze()).unwrap();
        pair.ends[0].handle_bytes(pair.now, back).unwrap();
        while let Ok(Read::Data(data)) = pair.ends[1].read(id, usize::MAX) {
            received += data.len();
        }
        window = window.max(pair.ends[1].streams[&id.0].recv.window);
        rounds += 1;
    }
    (rounds / 2, window)
}

#[test]
fn the_window_grows_with_the_path_up_to_its_limits() {
    let (rounds, window) = transfer(YamuxConfig::default());
    assert!(rounds < 20 && window >= 8 << 20, "{rounds} round trips, {window} bytes");
    let config = YamuxConfig { max_stream_window: INITIAL_WINDOW, ..YamuxConfig::default() };
    let (rounds, window) = transfer(config);
    assert!(rounds > 100 && window == INITIAL_WINDOW, "{rounds} round trips, {window} bytes");
    let config = YamuxConfig { max_connection_window: 1 << 20, ..YamuxConfig::default() };
    assert_eq!(transfer(config).1, 1 << 20);
}

#[derive(Clone, Debug)]
enum Op {
    Open { end: usize },
    Write { end: usize, stream: usize, len: usize },
    Read { end: usize, stream: usize, max: usize },
    Finish { end: usize, stream: usize },
    Reset { end: usize, stream: usize },
    Stop { end: usize, stream: usize },
    Exchange,
}

fn op() -> impl Strategy<Value = Op> {
    let at = || (0usize..2, 0usize..8);
    prop_oneof![
        2 => (0usize..2).prop_map(|end| Op::Open { end }),
        6 => (at(), 0usize..100_000).prop_map(|((end, stream), len)| Op::Write { end, stream, len }),
        6 => (at(), 1usize..100_000).prop_map(|((end, stream), max)| Op::Read { end, stream, max }),
        2 => at().prop_map(|(end, stream)| Op::Finish { end, stream }),
        1 => at().prop_map(|(end, stream)| Op::Reset { end, stream }),
        1 => at().prop_map(|(end, stream)| Op::Stop { end, stream }),
        6 => Just(Op::Exchange),
    ]
}

/// What a stream carries in one direction: bytes by position, so that order can be checked.
fn pattern(id: MuxStream, from: usize, len: usize) -> Bytes {
    (from..from + len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ id.0 as usize) as u8).collect()
}

#[derive(Default)]
struct Model {
    /// By end and stream: bytes written there, read there.
    written: BTreeMap<(usize, MuxStream), usize>,
    read: BTreeMap<(usize, MuxStream), usize>,
    finished: BTreeSet<(usize, MuxStream)>,
    /// Streams of which either end may have lost data.
    cut: BTreeSet<MuxStream>,
    known: [Vec<MuxStream>; 2],
}

impl Model {
    fn apply(&mut self, pair: &mut Pair, op: Op, cuts: &mut impl Iterator<Item = usize>) {
        let pick = |known: &Vec<MuxStream>, n: usize| known.get(n % known.len().max(1)).copied();
        match op {
            Op::Open { end } => self.known[end].extend(pair.ends[end].open()),
            Op::Write { end, stream, len } => {
                let Some(id) = pick(&self.known[end], stream) else { return };
                let from = self.written.entry((end, id)).or_default();
                if let Ok(n) = pair.ends[end].write(id, &mut pattern(id, *from, len)) {
                    *from += n;
                }
            }
            Op::Read { end, stream, max } => {
                let Some(id) = pick(&self.known[end], stream) else { return };
                self.take(pair, end, id, max);
            }
            Op::Finish { end, stream } => {
                let Some(id) = pick(&self.known[end], stream) else { return };
                let _ = pair.ends[end].finish(id);
            }
            Op::Reset { end, stream } => {
                let Some(id) = pick(&self.known[end], stream) else { return };
                pair.ends[end].reset(id);
                self.cut.insert(id);
            }
            Op::Stop { end, stream } => {
                let Some(id) = pick(&self.known[end], stream) else { return };
                pair.ends[end].stop(id);
                self.cut.insert(id);
            }
            Op::Exchange => {
                pair.exchange(Duration::from_millis(20), |_| cuts.next().unwrap_or(usize::MAX));
                for end in [0, 1] {
                    for stream in pair.ends[end].streams.values() {
                        assert_eq!(stream.recv.accounted(), stream.recv.window as usize);
                    }
                    for event in events(&mut pair.ends[end]) {
                        match event {
                            MuxEvent::Opened(id) => self.known[end].push(id),
                            MuxEvent::Closed(reason) => panic!("{reason:?}"),
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, pair: &mut Pair, end: usize, id: MuxStream, max: usize) -> bool {
        let from = self.read.entry((end, id)).or_default();
        match pair.ends[end].read(id, max) {
            Ok(Read::Data(data)) => {
                assert!(data.len() <= max && data == pattern(id, *from, data.len()));
                *from += data.len();
                true
            }
            Ok(Read::Finished) => {
                self.finished.insert((end, id));
                false
            }
            Ok(Read::Blocked) | Err(_) => false,
        }
    }

    /// Finishes every stream and reads all there is to read.
    fn wind_up(&mut self, pair: &mut Pair, cuts: &mut impl Iterator<Item = usize>) {
        for round in 0..4 {
            for end in [0, 1] {
                for id in self.known[end].clone() {
                    let _ = pair.ends[end].finish(id);
                    while self.take(pair, end, id, usize::MAX) {}
                }
            }
            self.apply(pair, Op::Exchange, cuts);
            assert!(round < 3 || pair.ends.iter().all(|end| end.buffered() == 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn all_bytes_arrive_in_order_and_nothing_is_left(
        ops in vec(op(), 1..120),
        cuts in vec(prop_oneof![1usize..40, 1usize..40_000], 0..400),
    ) {
        let mut pair = Pair::new(YamuxConfig::default());
        let mut model = Model::default();
        let mut cuts = cuts.into_iter();
        for op in ops {
            model.apply(&mut pair, op, &mut cuts);
        }
        model.apply(&mut pair, Op::Exchange, &mut cuts);
        model.wind_up(&mut pair, &mut cuts);
        for end in [0, 1] {
            for id in model.known[end].iter().filter(|id| !model.cut.contains(id)) {
                let sent = model.written.get(&(end, *id)).copied().unwrap_or(0);
                let got = model.read.get(&(1 - end, *id)).copied().unwrap_or(0);
                prop_assert_eq!(sent, got, "stream {:?}", id);
                prop_assert!(model.finished.contains(&(1 - end, *id)));
            }
            let session = &pair.ends[end];
            prop_assert_eq!((session.stream_count(), session.buffered()), (0, 0));
            prop_assert_eq!((session.inbound, session.unacked, session.windows), (0, 0, 0));
        }
    }

    #[test]
    fn garbage_is_an_error_or_ignored(frames in vec((0u8..5, 0u16..16, 0u32..8, 0u32..300_000), 1..200), cut in 1usize..500) {
        let mut session = listener();
        let wire: Vec<u8> = frames
            .iter()
            .flat_map(|(kind, flags, stream, length)| {
                let mut bytes = frame(Data, Flags(*flags), *stream, *length).encode();
                bytes[1] = *kind;
                bytes
            })
            .collect();
        for piece in wire.chunks(cut) {
            if session.handle_bytes(START, Bytes::copy_from_slice(piece)).is_err() {
                break;
            }
            transmitted(&mut session);
            prop_assert!(session.stream_count() <= 8);
        }
    }
}
