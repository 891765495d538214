use std::collections::VecDeque;

use super::*;

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
    fn read(&mut self, stream: StreamId, max: usize) -> Result<Read, StreamFault> {
        if self.source_reset == Some(stream.index() as usize) {
            return Err(StreamFault::Remote(7));
        }
        let queue = &mut self.incoming[stream.index() as usize];
        match queue.front_mut() {
            None => Ok(Read::Blocked),
            Some(Read::Data(chunk)) if chunk.len() > max => Ok(Read::Data(chunk.split_to(max))),
            Some(_) => Ok(queue.pop_front().unwrap()),
        }
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
