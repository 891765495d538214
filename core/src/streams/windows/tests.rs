use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MS: Duration = Duration::from_millis(1);

fn windows() -> Windows {
    Windows::new(Config::default(), 8 << 20, 40 << 20)
}

fn at(ms: u32) -> Instant {
    Instant::ZERO + ms * MS
}

/// Circuits that are busy, each on a connection of its own with this round trip.
fn busy(windows: &mut Windows, circuits: usize, rtt: Duration) -> Vec<(Meter, Window)> {
    let mut all: Vec<_> = (0..circuits).map(|_| (Meter::default(), windows.opened())).collect();
    for (meter, window) in &mut all {
        windows.resize(window, rtt, true);
        assert!(windows.moved(at(1), (meter, MIB, false), window));
    }
    for (_, window) in &mut all {
        windows.resize(window, rtt, true);
    }
    all
}

#[test]
fn one_circuit_gets_what_fills_its_path() {
    for (rtt, least) in [(100 * MS, 8 * MIB), (200 * MS, 8 * MIB), (10 * MS, 5 * MIB), (MS, 3 * MIB)] {
        let all = busy(&mut windows(), 1, rtt);
        assert!(all[0].1.size >= least, "{} bytes over {rtt:?}", all[0].1.size);
    }
}

#[test]
fn circuits_over_short_paths_share_what_the_socket_holds() {
    for circuits in [1, 2, 16, 64, 128] {
        let all = busy(&mut windows(), circuits, MS);
        let sum: u64 = all.iter().map(|(_, window)| window.size).sum();
        assert!((3 * MIB..4 * MIB).contains(&sum), "{circuits} circuits have {sum} bytes");
        assert!(all.iter().all(|(_, window)| window.size == all[0].1.size));
    }
}

#[test]
fn many_circuits_over_long_paths_share_what_a_second_can_bring() {
    let all = busy(&mut windows(), 1000, 200 * MS);
    let sum: u64 = all.iter().map(|(_, window)| window.size).sum();
    assert!(sum <= 60 * MIB, "{sum} bytes");
    let all = busy(&mut windows(), 10_000, Duration::from_secs(9));
    assert!(all.iter().map(|(_, window)| window.size).sum::<u64>() <= 300 * MIB);
}

#[test]
fn a_connection_has_a_part_for_each_busy_circuit_on_it() {
    let mut windows = windows();
    let mut window = windows.opened();
    let mut meters: Vec<_> = (0..4).map(|_| Meter::default()).collect();
    let all = busy(&mut windows, 4, MS);
    for meter in &mut meters {
        windows.moved(at(1), (meter, MIB, false), &mut window);
    }
    let size = windows.resize(&mut window, MS, true).unwrap();
    let others: u64 = all.into_iter().map(|(_, mut w)| windows.resize(&mut w, MS, true).unwrap()).sum();
    assert_eq!(size, others);
}

#[test]
fn connections_without_a_busy_circuit_share_too_and_long_paths_get_more() {
    let mut windows = windows();
    let mut all: Vec<_> = (0..128).map(|_| windows.opened()).collect();
    assert_eq!(windows.resize(&mut all[0], MS / 10, true), Some(IDLE));
    assert!(windows.resize(&mut all[1], 100 * MS, true).unwrap() > MIB);
}

#[test]
fn a_trickle_is_not_busy_and_a_circuit_that_stops_makes_room() {
    let mut windows = windows();
    let (mut trickle, mut window) = (Meter::default(), windows.opened());
    for n in 1..100 {
        let again = windows.moved(at(100 * n), (&mut trickle, u64::from(n) * KIB, false), &mut window);
        assert!(!again, "at {n}");
    }
    assert_eq!(windows.totals(), (0, 0));
    let mut all = busy(&mut windows, 2, MS);
    let (meter, window) = &mut all[0];
    assert!(windows.look(at(251), (meter, 2 * MIB, false), window), "it goes on");
    for n in 1..8 {
        assert!(windows.look(at(251 + 250 * n), (meter, 2 * MIB, false), window), "a pause");
    }
    assert!(!windows.look(at(2251), (meter, 2 * MIB, false), window), "it has stopped");
    assert_eq!((windows.totals().0, window.busy), (1, 0));
    let (_, other) = &mut all[1];
    assert!(windows.resize(other, MS, true).unwrap() > 3 * MIB);
}

#[test]
fn a_longer_round_trip_is_our_own_queue_until_the_path_changes() {
    let mut all = busy(&mut windows(), 1, MS);
    let mut windows = windows();
    windows.busy = 1;
    let window = &mut all[0].1;
    assert_eq!(windows.resize(window, 60 * MS, true), None);
    window.path_changed();
    assert_eq!(windows.resize(window, 60 * MS, true), Some(8 * MIB));
}

#[test]
fn small_changes_are_left_alone() {
    let mut windows = windows();
    let mut all = busy(&mut windows, 16, MS);
    windows.busy += 1;
    assert_eq!(windows.resize(&mut all[0].1, MS, true), None);
    windows.busy += 3;
    assert!(windows.resize(&mut all[0].1, MS, true).is_some());
}

#[test]
fn what_lies_unread_is_credited_step_by_step_and_taken_back() {
    let mut windows = windows();
    let mut all = busy(&mut windows, 1, MS);
    let (meter, window) = &mut all[0];
    for n in 1..=8 {
        assert!(windows.look(at(250 * n), (meter, MIB, true), window));
        assert_eq!(windows.totals().1, u64::from(n) * STEP);
    }
    assert!(!windows.look(at(2250), (meter, MIB, true), window), "it has a whole stream's window");
    assert!(windows.resize(window, MS, true).unwrap() >= 8 * MIB);
    assert!(windows.moved(at(2300), (meter, MIB, false), window), "it is to be taken back");
    for n in 0..8 {
        assert!(windows.look(at(2500 + 250 * n), (meter, MIB, false), window));
    }
    assert_eq!((windows.totals().1, window.unread), (0, 0));
    assert!(windows.resize(window, MS, true).unwrap() < 4 * MIB);
}

#[test]
fn credit_for_unread_bytes_is_bounded_and_nobody_takes_all_of_it() {
    let mut windows = windows();
    let mut greedy = windows.opened();
    let mut meters: Vec<_> = (0..100).map(|_| Meter::default()).collect();
    for _ in 0..20 {
        for meter in &mut meters {
            windows.look(at(1), (meter, 0, true), &mut greedy);
        }
    }
    assert_eq!(greedy.unread, windows.config.unread / 2);
    windows.resize(&mut greedy, MS, true);
    assert_eq!(greedy.size, windows.connection);
    let (mut other, mut meter) = (windows.opened(), Meter::default());
    assert!(windows.look(at(1), (&mut meter, 0, true), &mut other));
    assert_eq!(meter.unread, STEP);
}

#[test]
fn what_ends_gives_back_everything_whatever_ends_first() {
    for connection_first in [false, true] {
        let mut windows = windows();
        let mut all = busy(&mut windows, 3, MS);
        for (meter, window) in &mut all {
            windows.look(at(250), (meter, 2 * MIB, true), window);
        }
        assert_eq!(windows.totals(), (3, 3 * STEP));
        for (meter, window) in &mut all {
            windows.ended(meter, Some(&mut *window).filter(|_| !connection_first));
            windows.closed();
            assert!(connection_first || (window.busy, window.unread) == (0, 0));
        }
        assert_eq!((windows.totals(), windows.connections), ((0, 0), 0));
    }
}

#[test]
fn a_window_shrinks_at_once_and_grows_when_it_is_looked_at() {
    let mut windows = windows();
    let mut all = busy(&mut windows, 4, MS);
    let window = &mut all[0].1;
    windows.busy = 8;
    assert!(windows.resize(window, MS, false).is_some());
    windows.busy = 2;
    assert_eq!(windows.resize(window, MS, false), None);
    assert!(windows.resize(window, MS, true).is_some());
}
