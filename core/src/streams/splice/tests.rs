use std::collections::VecDeque;

use super::*;
use crate::{
    ids::{Id, SpliceId},
    streams::Read,
    time::Deadline,
};

/// Two streams as queues, with room for `room` written bytes each.
#[derive(Default)]
struct Fake {
    incoming: [VecDeque<Read>; 2],
    written: [Vec<u8>; 2],
    room: [usize; 2],
    finished: [bool; 2],
    reset: [bool; 2],
    asked_to_stop: [bool; 2],
    source_reset: Option<usize>,
    stopped: [Option<u64>; 2],
}

fn id(n: u32) -> StreamId {
    StreamId::from_parts(n, 0)
}

impl Pipes for Fake {
    fn take(&mut self, stream: StreamId, most: usize, into: &mut Batch) -> Result<Taken, StreamFault> {
        if self.source_reset == Some(stream.index() as usize) {
            return Err(StreamFault::Remote(7));
        }
        let queue = &mut self.incoming[stream.index() as usize];
        let mut left = most;
        while left > 0 {
            match queue.front_mut() {
                None => return Ok(Taken::Blocked),
                Some(Read::Data(chunk)) if chunk.len() > left => into.push(chunk.split_to(left)),
                Some(_) => match queue.pop_front().unwrap() {
                    Read::Data(chunk) => into.push(chunk),
                    _ => return Ok(Taken::Finished),
                },
            }
            left -= into.last().map_or(0, Bytes::len);
        }
        Ok(Taken::Most)
    }

    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteFault> {
        let n = stream.index() as usize;
        let taken = data.len().min(self.room[n]);
        self.room[n] -= taken;
        self.written[n].extend_from_slice(&data.split_to(taken));
        Ok(taken)
    }

    fn stopped(&self, stream: StreamId) -> Option<u64> {
        self.stopped[stream.index() as usize]
    }

    fn finish(&mut self, stream: StreamId) {
        self.finished[stream.index() as usize] = true;
    }

    fn reset(&mut self, stream: StreamId) {
        self.reset[stream.index() as usize] = true;
    }

    fn stop(&mut self, stream: StreamId) {
        self.asked_to_stop[stream.index() as usize] = true;
    }
}

fn splice(limit: u64) -> (Splice, Fake) {
    let fake = Fake { room: [usize::MAX; 2], ..Fake::default() };
    (
        Splice::new(
            Token(0),
            0,
            (id(0), id(1)),
            SpliceLimit { bytes: limit, ..SpliceLimit::default() },
            Instant::ZERO,
        ),
        fake,
    )
}

fn turn(splice: &mut Splice, fake: &mut Fake) -> Turn {
    splice.turn(fake, Instant::ZERO, &mut None)
}

fn data(len: usize) -> Read {
    Read::Data(vec![7; len].into())
}

#[test]
fn each_direction_ends_on_its_own() {
    let (mut splice, mut fake) = splice(0);
    fake.incoming[0].extend([data(10), Read::Finished]);
    assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
    assert_eq!((fake.finished, splice.counts()), ([false, true], (10, 0)));
    fake.incoming[1].extend([data(3), Read::Finished]);
    assert_eq!(turn(&mut splice, &mut fake), Turn::Over(SpliceEnd::Finished));
    assert_eq!((fake.finished, splice.counts()), ([true, true], (10, 3)));
}

#[test]
fn a_blocked_sink_stops_the_reading_of_its_source_only() {
    let (mut splice, mut fake) = splice(0);
    fake.room[1] = 4;
    fake.incoming[0].push_back(data(10));
    fake.incoming[1].push_back(data(5));
    assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
    assert_eq!(splice.counts(), (4, 5));
    fake.incoming[0].push_back(data(10));
    assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
    assert_eq!((fake.incoming[0].len(), splice.counts()), (1, (4, 5)));
    fake.room[1] = 100;
    assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
    assert_eq!(splice.counts(), (20, 5));
}

#[test]
fn a_turn_moves_a_quantum_at_most() {
    let (mut splice, mut fake) = splice(0);
    fake.incoming[0].extend((0..5).map(|_| data(QUANTUM / 2)));
    assert_eq!(turn(&mut splice, &mut fake), Turn::More);
    assert_eq!(splice.counts().0, QUANTUM as u64);
}

#[test]
fn exactly_the_limit_passes_and_only_the_next_byte_exceeds_it() {
    for direction in 0..2 {
        let (mut splice, mut fake) = splice(100);
        fake.incoming[direction].push_back(data(100));
        assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
        fake.incoming[direction].push_back(data(1));
        assert_eq!(turn(&mut splice, &mut fake), Turn::Limit);
        assert_eq!(fake.written[1 - direction].len(), 100);
    }
}

#[test]
fn a_source_that_finishes_at_the_limit_has_kept_it() {
    let (mut splice, mut fake) = splice(100);
    fake.incoming[0].extend([data(100), Read::Finished]);
    fake.incoming[1].push_back(Read::Finished);
    assert_eq!(turn(&mut splice, &mut fake), Turn::Over(SpliceEnd::Finished));
}

#[test]
fn what_was_read_before_the_splice_counts_and_comes_first() {
    let (mut splice, mut fake) = splice(10);
    assert_eq!(splice.preload(vec![Bytes::from_static(b"early")], vec![]), Ok(()));
    fake.incoming[0].push_back(data(6));
    assert_eq!(turn(&mut splice, &mut fake), Turn::Limit);
    assert_eq!(&fake.written[1], b"early\x07\x07\x07\x07\x07");
    assert_eq!(splice.preload(vec![Bytes::from_static(&[0; 11])], vec![]), Err(SpliceEnd::Limit));
}

#[test]
fn a_reset_of_one_direction_leaves_the_other() {
    let (mut splice, mut fake) = splice(0);
    fake.source_reset = Some(0);
    fake.incoming[1].push_back(data(3));
    assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
    assert_eq!((fake.reset, splice.counts()), ([false, true], (0, 3)));
    fake.incoming[1].push_back(Read::Finished);
    let end = SpliceEnd::A(StreamFault::Remote(7));
    assert_eq!((turn(&mut splice, &mut fake), fake.finished), (Turn::Over(end), [true, false]));
}

#[test]
fn a_sink_that_wants_no_more_stops_its_source_even_while_nothing_flows() {
    let (mut splice, mut fake) = splice(0);
    fake.stopped[1] = Some(5);
    assert_eq!(turn(&mut splice, &mut fake), Turn::Idle);
    assert_eq!(fake.asked_to_stop, [true, false]);
    fake.incoming[1].extend([data(9), Read::Finished]);
    assert_eq!(turn(&mut splice, &mut fake), Turn::Over(SpliceEnd::B(StreamFault::Remote(5))));
    assert_eq!((splice.counts(), fake.finished), ((0, 9), [true, false]));
}

/// Turns until nothing moves any more; says when the splice wants to go on.
fn drain(splices: &mut Splices, id: SpliceId, fake: &mut Fake, now: Instant) -> Turn {
    loop {
        match splices.turn(id, fake, now) {
            Turn::More => {}
            turn => return turn,
        }
    }
}

fn millis(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn joined(splices: &mut Splices, a: u32, b: u32, limit: SpliceLimit) -> SpliceId {
    splices.insert(Splice::new(Token(0), 0, (id(a), id(b)), limit, Instant::ZERO))
}

#[test]
fn a_direction_moves_its_burst_and_then_its_rate_and_the_other_has_its_own() {
    let mut splices = Splices::default();
    let mut fake = Fake { room: [usize::MAX; 2], ..Fake::default() };
    let pair = joined(&mut splices, 0, 1, SpliceLimit { rate: 8 << 10, ..SpliceLimit::default() });
    fake.incoming[0].push_back(data(1 << 20));
    fake.incoming[1].push_back(data(100));
    let dry = millis(125);
    assert_eq!(drain(&mut splices, pair, &mut fake, millis(0)), Turn::Paced(dry));
    assert_eq!([fake.written[1].len(), fake.written[0].len()], [4096, 100]);
    assert_eq!(splices.deadline(), Some(Deadline::new(dry, "circuit rate")));
    let early = Instant::from_nanos(dry.as_nanos() - 1);
    assert_eq!(splices.pop_resumed(early), None);
    assert_eq!(drain(&mut splices, pair, &mut fake, early), Turn::Idle, "woken by its source, too early");
    assert_eq!(fake.written[1].len(), 4096);
    for second in 1..=4 {
        while let Some(resumed) = splices.deadline().filter(|d| d.at <= millis(second * 1000)) {
            let due = splices.pop_resumed(resumed.at).expect("it is due");
            drain(&mut splices, due, &mut fake, resumed.at);
        }
        assert_eq!(fake.written[1].len() as u64, 4096 + second * (8 << 10));
    }
    splices.remove(pair);
    assert_eq!((splices.deadline(), splices.timers()), (None, 0));
}

#[test]
fn all_together_keep_the_shared_rate_and_share_it_evenly() {
    let mut splices = Splices::new(1 << 20, Instant::ZERO);
    // Each splice has a pair of queues of its own.
    let mut fakes: Vec<_> = (0..8).map(|_| Fake { room: [usize::MAX; 2], ..Fake::default() }).collect();
    let ids: Vec<_> = (0..8).map(|_| joined(&mut splices, 0, 1, SpliceLimit::default())).collect();
    for fake in &mut fakes {
        fake.incoming[0].extend((0..64).map(|_| data(QUANTUM)));
        fake.incoming[1].extend((0..64).map(|_| data(QUANTUM)));
    }
    for (id, fake) in ids.iter().zip(&mut fakes) {
        assert_eq!(drain(&mut splices, *id, fake, Instant::ZERO), Turn::Queued);
    }
    let end = millis(8000);
    while let Some(next) = splices.deadline().filter(|deadline| deadline.at <= end) {
        assert_eq!(next.why, "relay rate");
        while let Some(id) = splices.pop_line(next.at) {
            let n = ids.iter().position(|other| *other == id).unwrap();
            if splices.turn_first(id, &mut fakes[n], next.at) == Turn::More {
                drain(&mut splices, id, &mut fakes[n], next.at);
            }
        }
    }
    let moved: Vec<_> = fakes.iter().map(|fake| fake.written[0].len() + fake.written[1].len()).collect();
    let all: usize = moved.iter().sum();
    let most = (1 << 17) + 8 * (1 << 20);
    assert!(all <= most && all + QUANTUM > most, "{all} of {most}");
    let squares: f64 = moved.iter().map(|n| (*n as f64).powi(2)).sum();
    let jain = (all as f64).powi(2) / (8.0 * squares);
    assert!(jain > 0.98, "{jain}: {moved:?}");
    for fake in &fakes {
        let [back, forth] = [fake.written[0].len() as f64, fake.written[1].len() as f64];
        assert!((0.8..1.25).contains(&(forth / back)), "both directions: {forth} {back}");
    }
    ids.into_iter().for_each(|id| drop(splices.remove(id)));
    assert!(splices.deadline().is_none() && splices.is_nobody_in_line());
}

#[test]
fn a_splice_is_idle_at_the_exact_tick_after_its_last_byte() {
    let mut splices = Splices::default();
    let mut fake = Fake { room: [usize::MAX; 2], ..Fake::default() };
    let limit = SpliceLimit { idle: std::time::Duration::from_secs(10), ..SpliceLimit::default() };
    let pair = joined(&mut splices, 0, 1, limit);
    fake.incoming[1].push_back(data(1));
    assert_eq!(splices.turn(pair, &mut fake, millis(4000)), Turn::Idle);
    assert_eq!(splices.turn(pair, &mut fake, millis(9000)), Turn::Idle, "nothing moves");
    assert_eq!(splices.pop_over(millis(10_000)), None, "armed anew");
    assert_eq!(splices.deadline(), Some(Deadline::new(millis(14_000), "circuit idle")));
    assert_eq!(splices.pop_over(Instant::from_nanos(millis(14_000).as_nanos() - 1)), None);
    assert_eq!(splices.pop_over(millis(14_000)), Some((pair, SpliceEnd::Idle)));
    splices.remove(pair);
    assert_eq!(splices.timers(), 0);
}

#[test]
fn the_largest_and_the_smallest_caps_are_kept_to_the_byte() {
    for (cap, sent, end) in
        [(1, 1, Turn::Idle), (1, 2, Turn::Limit), (u64::MAX, 1 << 20, Turn::Idle), (0, 1 << 20, Turn::Idle)]
    {
        for direction in 0..2 {
            let (mut splice, mut fake) = splice(cap);
            fake.incoming[direction].push_back(data(sent));
            let last = loop {
                match turn(&mut splice, &mut fake) {
                    Turn::More => {}
                    last => break last,
                }
            };
            assert_eq!(last, end, "{cap} {sent}");
            let passed = fake.written[1 - direction].len() as u64;
            assert_eq!(passed, if cap == 0 { sent as u64 } else { (sent as u64).min(cap) });
        }
    }
}
