#![allow(clippy::disallowed_methods, reason = "real threads in real time")]

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerless_core::storage::{Rows, StorageAsk, Write};

use self::faulty::Machine;
use super::*;

mod faulty;

const PATIENCE: Duration = Duration::from_secs(60);

fn put(key: &str, value: &[u8]) -> Write {
    Write::Put { key: key.to_owned().into(), value: value.to_vec().into() }
}

fn store(engine: &mut Engine, table: &str, writes: &[Write]) -> Result<(), String> {
    engine.answer(table, &StorageAsk::Store(writes.to_vec())).map(drop)
}

fn load_all(engine: &mut Engine, table: &str) -> Result<Vec<(Bytes, Bytes)>, String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let answer = engine.answer(table, &StorageAsk::Load { after })?;
        let StorageAnswer::Loaded(Rows { rows, more }) = answer else { panic!("{answer:?}") };
        after = rows.last().map(|(key, _)| key.clone());
        all.extend(rows);
        if !more {
            return Ok(all);
        }
    }
}

fn refused(path: &Path) -> String {
    match Store::open(path).map(drop) {
        Err(Failure::Usage(sentence)) => sentence,
        other => panic!("{other:?} for {}", path.display()),
    }
}

#[test]
fn what_is_stored_is_there_after_it_was_opened_again_in_order_and_by_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut engine = Store::open(&path).unwrap().engine;
    assert_eq!(load_all(&mut engine, "a").unwrap(), []);
    let writes: Vec<_> = (0..1000).map(|n| put(&format!("{n:04}"), &[n as u8; 1000])).collect();
    store(&mut engine, "a", &writes).unwrap();
    store(&mut engine, "b", &[put("x", b"1"), put("x", b"2"), put("y", b"3")]).unwrap();
    store(&mut engine, "b", &[Write::Delete { key: "y".into() }, Write::Delete { key: "z".into() }]).unwrap();
    drop(engine);
    let mut engine = Store::open(&path).unwrap().engine;
    let a = load_all(&mut engine, "a").unwrap();
    assert!(a.is_sorted() && a.len() == 1000, "{} rows", a.len());
    assert_eq!(load_all(&mut engine, "b").unwrap(), [("x".into(), "2".into())]);
    let Ok(StorageAnswer::Loaded(page)) = engine.answer("a", &StorageAsk::Load { after: None }) else {
        panic!()
    };
    assert!(page.more, "in bounded batches");
}

#[test]
fn what_is_no_store_is_refused_in_one_sentence_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let mut engine = Store::open(&good).unwrap().engine;
    let writes: Vec<_> = (0..1000).map(|n| put(&format!("{n:04}"), &[n as u8; 1000])).collect();
    store(&mut engine, "a", &writes).unwrap();
    // As a crash leaves it, and as a proper end does.
    let torn = fs::read(&good).unwrap();
    drop(engine);
    let good = fs::read(&good).unwrap();
    let at = good.windows(64).position(|window| *window == [77; 64]).unwrap();
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cut = |bytes: &[u8], len: usize| bytes[..len].to_vec();
    let path = folder.path().join("bad");
    let mut cases = vec![
        (b"not a database, by a long way".to_vec(), "not a store"),
        (vec![0; 100_000], "not a store"),
        (b"re".to_vec(), "not a store"),
        (flip(3), "not a store"),
        (flip(at), "damaged"),
    ];
    for whole in [&good, &torn] {
        for len in [9, 100, 320, 4095, 4096, 8192, whole.len() / 2, whole.len() - 1] {
            cases.push((cut(whole, len), "damaged"));
        }
    }
    for (bytes, word) in cases {
        fs::write(&path, &bytes).unwrap();
        let sentence = refused(&path);
        assert!(
            sentence.contains(word) && sentence.contains("bad") && !sentence.contains('\n'),
            "{sentence}"
        );
        assert!(fs::read(&path).unwrap() == bytes, "it was written to: {sentence}");
    }
    // What a crash leaves is mended.
    fs::write(&path, &torn).unwrap();
    assert_eq!(load_all(&mut Store::open(&path).unwrap().engine, "a").unwrap().len(), 1000);
    // An empty file has nothing to lose.
    fs::write(&path, "").unwrap();
    let open = Store::open(&path).unwrap();
    assert!(refused(&path).contains("in use"));
    drop(open);
    assert!(refused(folder.path()).contains("directory"));
    assert!(refused(&folder.path().join("no/store")).contains("does not exist"));
    #[cfg(unix)]
    assert!(refused(Path::new("/dev/null")).contains("device"));
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_it_even_if_it_was_open_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    fs::write(&path, "not a store").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&path);
    assert_eq!(mode(), 0o644, "what is not ours stays as it is");
}

type Model = BTreeMap<Bytes, Bytes>;

/// Some changes, and what they make of the rows.
fn changes(machine: &Machine, model: &Model) -> (Vec<Write>, Model) {
    let mut model = model.clone();
    let writes = machine.with(|state| {
        let row = |state: &mut faulty::State| {
            let key = Bytes::from(format!("{:02}", state.below(60)));
            match state.below(3) {
                0 => Write::Delete { key },
                _ => {
                    let (byte, len) = (state.below(256) as u8, state.below(3000) as usize);
                    Write::Put { key, value: vec![byte; len].into() }
                }
            }
        };
        (0..=state.below(20)).map(|_| row(state)).collect::<Vec<_>>()
    });
    for write in &writes {
        match write.clone() {
            Write::Put { key, value } => _ = model.insert(key, value),
            Write::Delete { key } => _ = model.remove(&key),
        }
    }
    (writes, model)
}

/// A store on a disk that fails at random, and a machine that crashes at random. What was acknowledged is there whenever
/// it can be read, and what failed is there as a whole or not at all, and stays so. redb writes pages in an order of its
/// own, so that a seed gives the same faults, but not always in the same places.
fn ordeal(seed: u64) -> ([u32; 6], u32) {
    let machine = Machine::new(seed);
    let mut engine = Engine::open(machine.source()).unwrap();
    let (mut model, mut maybe, mut recovered) = (Model::new(), None, 0);
    for turn in 0..60 {
        machine.with(|state| state.per_mille = [0, 2, 10, 50][state.below(4) as usize]);
        let (writes, after) = changes(&machine, &model);
        match store(&mut engine, "t", &writes) {
            Ok(()) => model = after,
            Err(_) => maybe = Some(after),
        }
        let crashes = machine.with(|state| state.below(4) == 0);
        if crashes {
            machine.crash();
            drop(engine);
            machine.with(|state| state.per_mille = 0);
            engine =
                Engine::open(machine.source()).unwrap_or_else(|error| panic!("seed {seed}, {turn}: {error}"));
        }
        let mut tries = 0;
        let rows = loop {
            match load_all(&mut engine, "t") {
                Ok(rows) => break rows,
                Err(_) => {
                    tries += 1;
                    machine.with(|state| state.per_mille /= 1 + u64::from(tries > 5));
                    let opened = engine.reopen().map_err(|error| error.to_string());
                    if let Err(error) = opened.and_then(|()| engine.try_out(10_000)) {
                        assert!(tries < 20, "seed {seed}, turn {turn}: {error}");
                    } else {
                        recovered += 1;
                    }
                }
            }
        };
        let found: Model = rows.into_iter().collect();
        let expected = [Some(&model), maybe.as_ref()];
        assert!(expected.contains(&Some(&found)), "seed {seed}, turn {turn}: rows were lost");
        (model, maybe) = (found, None);
    }
    (machine.with(|state| state.failed), recovered)
}

#[test]
fn what_was_acknowledged_outlives_disks_that_fail_and_machines_that_crash() {
    let range = std::env::var("PEERLESS_STORE_SEEDS").unwrap_or_else(|_| "0..12".into());
    let (first, end) = range.split_once("..").expect("PEERLESS_STORE_SEEDS is a range");
    let seeds: std::ops::Range<u64> = first.parse().unwrap()..end.parse().unwrap();
    let (mut failed, mut recovered) = ([0; 6], 0);
    for seed in seeds.clone() {
        let (of_seed, times) = ordeal(seed);
        failed.iter_mut().zip(of_seed).for_each(|(sum, n)| *sum += n);
        recovered += times;
    }
    println!("seeds {range}, recovered {recovered} times, failed: {failed:?}");
    assert!(seeds.count() < 12 || failed.iter().all(|n| *n > 0) && recovered > 20, "{failed:?} {recovered}");
}

#[test]
fn what_is_read_after_a_sync_that_failed_is_on_the_disk() {
    let machine = Machine::new(0);
    let mut engine = Engine::open(machine.source()).unwrap();
    store(&mut engine, "t", &[put("a", b"1")]).unwrap();
    machine.with(|state| state.syncs_fail = true);
    store(&mut engine, "t", &[put("b", b"2")]).unwrap_err();
    machine.with(|state| state.syncs_fail = false);
    engine.reopen().unwrap();
    let rows = load_all(&mut engine, "t").unwrap();
    machine.crash();
    drop(engine);
    let mut engine = Engine::open(machine.source()).unwrap();
    assert_eq!(load_all(&mut engine, "t").unwrap(), rows);
}

/// A store that is served, and what it says.
struct Served {
    machine: Machine,
    serving: Option<Serving>,
    told: Receiver<(StorageId, Result<StorageAnswer, StoreError>)>,
    said: Receiver<String>,
    next: u64,
}

const TIMES: Times = Times {
    stall: Duration::from_millis(200),
    first: Duration::from_millis(10),
    most: Duration::from_millis(80),
    end: Duration::from_millis(500),
};

impl Served {
    fn new(times: Times) -> Self {
        let machine = Machine::new(0);
        let engine = Engine::open(machine.source()).unwrap();
        let (tell, told) = channel();
        let (say, said): (Sender<String>, _) = channel();
        let serving = Store { engine }.serve_with(
            times,
            move |id, answer| _ = tell.send((id, answer)),
            move |line| _ = say.send(serde_json::to_string(line).unwrap()),
        );
        Self { machine, serving: Some(serving.unwrap()), told, said, next: 0 }
    }

    fn ask(&mut self, ask: StorageAsk) -> StorageId {
        let id = StorageId(self.next);
        self.next += 1;
        self.serving.as_ref().unwrap().ask(StorageRequest { id, table: "t", ask });
        id
    }

    /// The answer, which is the next.
    fn answer(&mut self, ask: StorageAsk) -> Result<StorageAnswer, StoreError> {
        let id = self.ask(ask);
        let (of, answer) = self.told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(of, id);
        answer
    }

    fn write(&mut self, key: &str) -> Result<StorageAnswer, StoreError> {
        self.answer(StorageAsk::Store(vec![put(key, b"value")]))
    }

    fn keys(&mut self) -> Vec<Bytes> {
        match self.answer(StorageAsk::Load { after: None }) {
            Ok(StorageAnswer::Loaded(rows)) => rows.rows.into_iter().map(|(key, _)| key).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn watch(&self) -> Watch {
        self.serving.as_ref().unwrap().watch()
    }

    fn line(&self) -> String {
        self.said.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn a_store_that_failed_says_so_once_and_works_again_when_its_disk_does() {
    let mut served = Served::new(TIMES);
    served.write("a").unwrap();
    assert!(served.watch().figures().up && served.watch().fault().is_none());
    served.machine.with(|state| state.per_mille = 1000);
    let error = served.write("b").unwrap_err();
    assert!(error.to_string().contains("os error"), "{error}");
    assert!(served.line().starts_with(r#"{"event":"store_down","reason":""#));
    let begun = Instant::now();
    while served.watch().figures().failures < 6 {
        served.write("c").unwrap_err();
        assert!(served.watch().fault().is_some() && !served.watch().figures().up);
    }
    // 10, 20, 40, 80, 80 ms.
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    served.machine.with(|state| state.per_mille = 0);
    assert!(served.line().starts_with(r#"{"event":"store_up","seconds":"#), "and nothing between them");
    assert!(served.watch().figures().up && served.watch().fault().is_none());
    assert_eq!(served.watch().figures().reopened, 1);
    served.write("d").unwrap();
    assert_eq!(served.keys(), ["a", "d"]);
    assert!(matches!(served.said.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout)));
}

#[test]
fn a_store_that_stalls_answers_in_time_all_the_same_and_does_not_hold_up_the_end() {
    let mut served = Served::new(TIMES);
    served.write("a").unwrap();
    served.machine.with(|state| state.stalls = true);
    let many: Vec<_> =
        (0..100).map(|n| served.ask(StorageAsk::Store(vec![put(&format!("b{n}"), b"")]))).collect();
    let told: Vec<_> = (0..100).map(|_| served.told.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(told.iter().all(|(id, answer)| many.contains(id) && answer.is_err()), "{told:?}");
    assert!(served.line().contains("more than 0.2 s"));
    assert!(served.watch().fault().unwrap().contains("more than 0.2 s"));
    let figures = served.watch().figures();
    assert_eq!((figures.up, figures.stalls, figures.refused), (false, 1, 100));
    served.write("c").unwrap_err();

    served.machine.with(|state| state.stalls = false);
    assert!(served.line().starts_with(r#"{"event":"store_up""#));
    served.write("d").unwrap();
    assert_eq!(served.keys(), ["a", "b0", "d"], "what had begun was done");

    served.machine.with(|state| state.stalls = true);
    served.ask(StorageAsk::Store(vec![put("e", b"")]));
    let begun = Instant::now();
    served.serving = None;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let lines: Vec<_> = served.said.try_iter().collect();
    assert!(lines.last().unwrap().contains("did not end in time"), "{lines:?}");
    served.machine.with(|state| state.stalls = false);
}

#[test]
fn what_was_asked_for_before_the_end_is_done() {
    let mut served = Served::new(Times::USUAL);
    for n in 0..10 {
        served.ask(StorageAsk::Store(vec![put(&n.to_string(), b"")]));
    }
    let machine = served.machine.clone();
    served.serving = None;
    assert_eq!(served.told.try_iter().filter(|(_, answer)| answer.is_ok()).count(), 10);
    assert_eq!(load_all(&mut Engine::open(machine.source()).unwrap(), "t").unwrap().len(), 10);
}
