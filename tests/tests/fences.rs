//! What the pure packages must not contain, and how long a file and a function may be.
//!
//! Comments, string literals and test code are not looked at. Grouped imports are: `use std::{thread, time::Instant}`
//! counts as `std::thread` and `std::time::Instant`.

#[path = "fences/rooms.rs"]
mod rooms;
#[path = "fences/source.rs"]
mod source;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rooms::{GROUND, Rooms};
use source::Source;

/// Words that must not stand in some folders.
struct Fence {
    name: &'static str,
    folders: &'static [&'static str],
    words: &'static [&'static str],
    /// In this file or folder, this text is no offence.
    exceptions: &'static [(&'static str, &'static str)],
}

const PURE: &[&str] = &["core/src/", "proto/src/"];

const FENCES: &[Fence] = &[
    Fence {
        name: "sockets, files and processes belong to the runtimes",
        folders: PURE,
        words: &[
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "UnixStream",
            "ToSocketAddrs",
            "std::fs",
            "std::env",
            "std::process",
            "mio",
            "socket2",
            "quinn_udp",
        ],
        exceptions: &[],
    },
    Fence {
        name: "time is an input",
        folders: PURE,
        words: &["std::time::Instant", "Instant::now", "SystemTime", "UNIX_EPOCH"],
        exceptions: &[
            ("core/src/quic/clock.rs", "std::time::Instant"),
            ("core/src/quic/clock.rs", "SystemTime"),
            ("core/src/quic/clock.rs", "UNIX_EPOCH"),
        ],
    },
    Fence {
        name: "randomness is an input",
        folders: PURE,
        words: &[
            "thread_rng",
            "rand::rng",
            "rand::random",
            "OsRng",
            "from_entropy",
            "from_os_rng",
            "getrandom",
            "RandomState",
            "generate_ed25519",
        ],
        exceptions: &[],
    },
    Fence {
        name: "no threads",
        folders: PURE,
        words: &[
            "std::thread",
            "thread::spawn",
            "thread_local",
            "Mutex",
            "RwLock",
            "Condvar",
            "mpsc",
            "rayon",
        ],
        exceptions: &[("core/src/quic/endpoint.rs", "Mutex")],
    },
    Fence {
        name: "no async",
        folders: PURE,
        words: &["async", "await", "tokio", "async_std", "smol", "futures", "Future", "Waker"],
        exceptions: &[],
    },
    Fence {
        name: "no printing",
        folders: PURE,
        words: &["println!", "eprintln!", "print!", "eprint!", "dbg!", "std::io::stdout", "std::io::stderr"],
        exceptions: &[],
    },
    Fence {
        name: "no shared mutability",
        folders: PURE,
        words: &["Rc", "RefCell", "static mut", "unsafe"],
        exceptions: &[],
    },
    Fence {
        name: "quinn_proto stays in the QUIC pipe",
        folders: PURE,
        words: &["quinn_proto"],
        exceptions: &[("core/src/quic/", "quinn_proto")],
    },
    Fence {
        name: "rustls and rcgen stay in the TLS folder",
        folders: PURE,
        words: &["rustls", "rcgen"],
        exceptions: &[
            ("core/src/tls/", "rustls"),
            ("core/src/tls/", "rcgen"),
            ("core/src/quic/crypto.rs", "quinn_proto::crypto::rustls"),
            ("core/src/quic/crypto.rs", "rustls::pki_types::CertificateDer"),
        ],
    },
    Fence {
        name: "hash order must never be seen",
        folders: PURE,
        words: &["std::collections::HashMap", "std::collections::HashSet", "hash_map::DefaultHasher"],
        exceptions: &[],
    },
    Fence {
        name: "metrics are numbers; their text belongs to the runtimes",
        folders: &["core/src/node/metrics.rs", "core/src/node/metrics/"],
        words: &["format!", "write!", "String", "to_string", "Display", "std::fmt"],
        exceptions: &[],
    },
    Fence {
        name: "no panic on input, and nothing left to do",
        folders: PURE,
        words: &[".unwrap()", "unwrap_unchecked", "todo!", "unimplemented!"],
        exceptions: &[],
    },
];

/// Who reads text of peer ids and addresses otherwise refuses some that must be read (CIDs, slashes at the end).
const TEXT: Fence = Fence {
    name: "text is read by `parse_peer_id` and `parse_multiaddr` of peerless-proto",
    folders: &["core/src/", "proto/src/", "runtime-mio/", "runtime-async-std/", "tests/examples/"],
    words: &["PeerId::from_str", "parse::<PeerId>", "Multiaddr::from_str", "parse::<Multiaddr>"],
    exceptions: &[],
};

/// Lines that read text as what the compiler finds out, where that is a peer id or an address.
fn inferred(path: &str, source: &Source) -> Vec<String> {
    let is_fenced = |line: &str| {
        let names = contains(line, "Multiaddr") || contains(line, "PeerId") || contains(line, "Self::Peer");
        names && line.contains(".parse()")
    };
    let found = source.lines().filter(|(_, line)| is_fenced(line));
    found.map(|(number, _)| format!("{path}:{number}: {}", TEXT.name)).collect()
}

const MAX_FILE: usize = 600;
const MAX_FUNCTION: usize = 80;
/// Where the budgets hold.
const BUDGETED: &[&str] = &[
    "core/src/",
    "proto/src/",
    "runtime-mio/src/",
    "runtime-mio/udp/src/",
    "runtime-async-std/src/",
    "benches/",
];

impl Fence {
    /// What is wrong with this file, if it stands at `path`.
    fn violations(&self, path: &str, source: &Source) -> Vec<String> {
        if !self.folders.iter().any(|folder| path.starts_with(folder)) {
            return Vec::new();
        }
        let mut violations = Vec::new();
        for (number, line) in source.lines() {
            let mut line = line.to_owned();
            for (place, text) in self.exceptions {
                if path.starts_with(place) {
                    line = line.replace(text, "");
                }
            }
            for word in self.words.iter().filter(|word| contains(&line, word)) {
                violations.push(format!("{path}:{number}: `{word}`: {}", self.name));
            }
        }
        violations
    }
}

/// Whether `word` stands in `line` and is not a part of a longer name.
fn contains(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_name);
        let after = line[at + word.len()..].chars().next().is_some_and(is_name);
        !(word.starts_with(is_name) && before || word.ends_with(is_name) && after)
    })
}

/// What is wrong with the lengths in this file.
fn over_budget(path: &str, source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    if source.len() > MAX_FILE {
        violations.push(format!("{path}: {} lines, more than {MAX_FILE}", source.len()));
    }
    for (number, name, len) in source.functions() {
        if len > MAX_FUNCTION {
            violations.push(format!("{path}:{number}: fn {name} has {len} lines, more than {MAX_FUNCTION}"));
        }
    }
    violations
}

/// The files of these folders that are not test modules, by their path from the root.
fn sources(folders: &[&str]) -> Vec<(String, Source)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    let mut files = BTreeSet::new();
    for folder in folders {
        collect(&root.join(folder), &mut files);
    }
    let sources: Vec<_> = files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            (file, Source::new(&text))
        })
        .collect();
    let tests: BTreeSet<PathBuf> =
        sources.iter().flat_map(|(file, source)| test_modules(file, source)).collect();
    let is_test =
        |file: &Path| file.ancestors().any(|f| tests.contains(f) || tests.contains(&f.with_extension("")));
    sources
        .into_iter()
        .filter(|(file, _)| !is_test(file))
        .map(|(file, source)| {
            let path = file.strip_prefix(root).expect("under the root");
            (path.to_string_lossy().replace('\\', "/"), source)
        })
        .collect()
}

/// Where the modules lie that `file` declares for tests only, without `.rs`.
fn test_modules(file: &Path, source: &Source) -> Vec<PathBuf> {
    let stem = file.file_stem().unwrap_or_default();
    let parent = file.parent().unwrap_or(file);
    let folder = match stem.to_str() {
        Some("mod" | "lib" | "main") => parent.to_owned(),
        _ => parent.join(stem),
    };
    source.test_modules().iter().map(|name| folder.join(name)).collect()
}

fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(path);
        }
    }
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn the_pure_packages_stay_behind_their_fences() {
    let sources = sources(PURE);
    assert!(sources.len() > 30, "only {} files found", sources.len());
    let violations: Vec<_> = sources
        .iter()
        .flat_map(|(path, source)| FENCES.iter().flat_map(|fence| fence.violations(path, source)))
        .collect();
    assert_none(&violations);
}

#[test]
fn text_of_peer_ids_and_addresses_is_read_in_one_place() {
    let folders =
        ["core/src/", "proto/src/", "runtime-mio/src/", "runtime-async-std/src/", "tests/examples/"];
    let violations: Vec<_> = sources(&folders)
        .iter()
        .flat_map(|(path, source)| [TEXT.violations(path, source), inferred(path, source)].concat())
        .collect();
    assert_none(&violations);
    let sample = |text: &str| {
        let (path, source) = ("core/src/sample.rs", Source::new(text));
        [TEXT.violations(path, &source), inferred(path, &source)].concat().len()
    };
    for bad in [
        "let address: Multiaddr = text.parse()?;",
        "text.parse().map(Self::Peer)",
        "text.parse::<Multiaddr>()",
        "PeerId::from_str(text)",
    ] {
        assert_eq!(sample(bad), 1, "{bad}");
    }
    assert_eq!(sample("let address: SocketAddr = text.parse()?;"), 0);
}

#[test]
fn no_rooms_of_the_core_import_each_other_in_a_circle() {
    let sources = sources(&["core/src/"]);
    for name in GROUND {
        assert!(sources.iter().any(|(path, _)| *path == format!("core/src/{name}.rs")), "no {name}.rs");
    }
    let mut rooms = Rooms::default();
    sources.iter().for_each(|(path, source)| rooms.add(path, source));
    assert_eq!(rooms.circle(), None);
    // One import in the wrong direction, written either way, closes a circle.
    for wrong in ["use crate::node::Node;", "use super::node::Node;", "fn f() { crate::node::f() }"] {
        let mut rooms = Rooms::default();
        sources.iter().for_each(|(path, source)| rooms.add(path, source));
        rooms.add("core/src/time.rs", &Source::new(wrong));
        let circle = rooms.circle().expect("a circle");
        assert!(circle.contains(&"the ground -> node at core/src/time.rs:1".to_owned()), "{circle:?}");
    }
}

#[test]
fn files_and_functions_keep_to_their_budgets() {
    let violations: Vec<_> =
        sources(BUDGETED).iter().flat_map(|(path, source)| over_budget(path, source)).collect();
    assert_none(&violations);
}

#[test]
fn every_fence_fails_when_its_word_is_put_in() {
    for fence in FENCES {
        for (word, folder) in fence.words.iter().flat_map(|w| fence.folders.iter().map(move |f| (w, f))) {
            let path = format!("{folder}sample.rs");
            let found = |text: &str| fence.violations(&path, &Source::new(text)).len();
            assert_eq!(found(&format!("fn f() {{ x{}{word}(y) }}", separator(word))), 1, "{word}");
            assert_eq!(
                found(&format!("/// {word}\n/* {word} */ fn f() {{ g(\"{word}\") }} // {word}")),
                0,
                "{word}"
            );
            assert_eq!(found(&format!("#[cfg(test)]\nmod tests {{ fn f() {{ ({word}) }} }}")), 0, "{word}");
            assert_eq!(fence.violations("runtime-mio/src/lib.rs", &Source::new(word)), [""; 0], "{word}");
        }
    }
}

/// A method follows what it is called on; other words stand apart.
fn separator(word: &str) -> &'static str {
    if word.starts_with('.') { "" } else { " " }
}

#[test]
fn grouped_imports_are_seen() {
    let import = "use std::{\n    thread,\n    time::{Duration, Instant as Clock},\n};";
    let found: Vec<_> = FENCES
        .iter()
        .flat_map(|fence| fence.violations("core/src/sample.rs", &Source::new(import)))
        .collect();
    assert_eq!(
        found,
        [
            "core/src/sample.rs:1: `std::time::Instant`: time is an input",
            "core/src/sample.rs:1: `std::thread`: no threads",
        ]
    );
}

#[test]
fn an_exception_holds_for_its_place_and_its_text_alone() {
    let fence = FENCES.iter().find(|fence| fence.words.contains(&"rustls")).expect("there is one");
    let allowed = Source::new("use quinn_proto::{Dir, crypto::{self, rustls::QuicClientConfig}};");
    assert_eq!(fence.violations("core/src/quic/crypto.rs", &allowed).len(), 0);
    assert_eq!(fence.violations("core/src/quic/endpoint.rs", &allowed).len(), 1);
    let refused = Source::new("use rustls::ClientConfig;");
    assert_eq!(fence.violations("core/src/quic/crypto.rs", &refused).len(), 1);
    assert_eq!(fence.violations("core/src/tls/config.rs", &refused).len(), 0);
}

#[test]
fn a_word_within_a_longer_name_is_no_offence() {
    let text = "fn f(rc: Arc<u8>, r: Sourced) { asynchronous(); my_thread_rng2(); unwrap_or(1); }";
    for fence in FENCES {
        assert_eq!(fence.violations("core/src/sample.rs", &Source::new(text)), [""; 0]);
    }
}

#[test]
fn a_file_or_a_function_that_is_too_long_is_found() {
    let long_file = "const X: u8 = 1;\n".repeat(MAX_FILE + 1);
    assert_eq!(over_budget("f.rs", &Source::new(&long_file)), ["f.rs: 601 lines, more than 600"]);
    let function =
        |lines| format!("struct S;\n\nfn f<T: Fn()>(\n{}) {{}}\n", "    // long\n".repeat(lines - 2));
    assert_eq!(over_budget("f.rs", &Source::new(&function(MAX_FUNCTION))), [""; 0]);
    assert_eq!(
        over_budget("f.rs", &Source::new(&function(MAX_FUNCTION + 1))),
        ["f.rs:3: fn f has 81 lines, more than 80"]
    );
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long_file}}}\n");
    assert_eq!(over_budget("f.rs", &Source::new(&tests)), [""; 0]);
}
