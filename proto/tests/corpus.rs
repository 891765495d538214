//! Replays the committed corpus of every fuzz target.

#[path = "../../tests/fuzz/src/lib.rs"]
#[allow(unreachable_pub, missing_docs)]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus")
}

fn names_in(folder: &PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("the folder can be read").file_name().into_string().expect("names are ASCII")
    };
    entries.map(name).collect()
}

#[test]
fn every_target_takes_its_corpus() {
    for (name, target) in targets::TARGETS {
        let folder = corpus().join(name);
        let files = names_in(&folder);
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            target(&fs::read(folder.join(file)).unwrap());
        }
    }
}

#[test]
fn targets_binaries_and_corpora_are_the_same_set() {
    let targets: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names_in(&corpus()), targets);
    let binaries = names_in(&corpus().join("../fuzz_targets"));
    assert_eq!(binaries, targets.iter().map(|name| format!("{name}.rs")).collect());
}

#[test]
fn every_target_takes_noise() {
    let mut state = 1u64;
    let mut byte = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    for len in 0..200 {
        let data: Vec<u8> = (0..len).map(|_| byte()).collect();
        for (_, target) in targets::TARGETS {
            target(&data);
        }
    }
}
