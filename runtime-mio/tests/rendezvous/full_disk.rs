//! A point on a disk that gets full: it refuses what it cannot keep, says so, and goes on by itself when there is room again.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Command,
    thread,
};

use peerless_tests::machine;

use super::*;

/// Enough for a store, its identity and little else.
const DISK: &str = "size=4m";

/// Disks can be mounted only where nobody else sees them.
#[test]
fn a_full_disk_costs_what_was_refused_and_nothing_else() {
    let alone = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--mount", "--map-root-user"]).args(args);
        command.env("PEERLESS_ALONE", "1").output()
    };
    let folder = tempfile::tempdir().unwrap();
    match alone(&["mount", "-t", "tmpfs", "none", folder.path().to_str().unwrap()]) {
        Ok(output) if output.status.success() => {}
        found => return machine::lacks(format_args!("a mount namespace with a tmpfs ({found:?})")),
    }
    let own = std::env::current_exe().unwrap();
    let test = ["--ignored", "--exact", "full_disk::on_a_disk_of_its_own", "--nocapture"];
    let output = alone(&[&[own.to_str().unwrap()][..], &test].concat()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

pub(super) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Leaves no room on the disk.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 << 10, 4 << 10, 512] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// Registers, and says how that was answered.
pub(super) fn register(client: &mut Client, stream: StreamId, ns: &str) -> Option<i32> {
    client.register(stream, ns.into());
    let (_, answer) = client.until(|client| client.answers.pop_front());
    answer.register_response.unwrap().status
}

#[test]
#[ignore = "started by a_full_disk_costs_what_was_refused_and_nothing_else"]
fn on_a_disk_of_its_own() {
    assert!(std::env::var_os("PEERLESS_ALONE").is_some(), "this would hide a folder of the machine");
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(disk).status().unwrap();
    assert!(mounted.success());
    let mut point = Point::start(disk, 0);
    let port = peerless_proto::address::parse_quic_v1(&point.address).unwrap().0.port();
    let mut client = Client::new();
    client.connect(&point);
    let stream = client.open();
    let mut acknowledged = Vec::new();
    let mut names = (0..).map(|n| format!("{n} {}", "x".repeat(200)));
    for ns in names.by_ref().take(100) {
        assert_eq!(register(&mut client, stream, &ns), Some(0));
        acknowledged.push(ns);
    }
    assert!(get(&point.metrics, "/healthz").ends_with("\r\n\r\nok\n"));
    assert!(get(&point.metrics, "/metrics").contains("\npeerless_store_up 1\n"));

    let mut down = 0;
    for room_returns in [true, true, false] {
        let filler = disk.join("filler");
        fill(&filler);
        // What is free within the file is used up first.
        while let ns = names.next().unwrap()
            && register(&mut client, stream, &ns) == Some(0)
        {
            acknowledged.push(ns);
        }
        down += 1;
        let reason = point.event("store_down")["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("No space left"), "{reason}");
        let health = get(&point.metrics, "/healthz");
        assert!(
            health.starts_with("HTTP/1.1 503 ") && health.contains("the store has been down"),
            "{health}"
        );
        assert!(health.contains("No space left"), "{health}");
        assert!(get(&point.metrics, "/metrics").contains("\npeerless_store_up 0\n"));
        for ns in names.by_ref().take(20) {
            let begun = Instant::now();
            assert_ne!(register(&mut client, stream, &ns), Some(0));
            assert!(begun.elapsed() < Duration::from_secs(10), "at once, as it seems to a client");
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(all(&mut client).len(), acknowledged.len(), "it answers who is registered");
        fs::remove_file(filler).unwrap();
        if !room_returns {
            break;
        }
        point.event("store_up");
        assert!(get(&point.metrics, "/healthz").ends_with("\r\n\r\nok\n"));
        let end = Instant::now() + PATIENCE;
        while let ns = names.next().unwrap()
            && register(&mut client, stream, &ns) != Some(0)
        {
            assert!(Instant::now() < end, "nothing is accepted any more");
            thread::sleep(Duration::from_millis(100));
        }
        // The last one was accepted.
        acknowledged = all(&mut client).into_keys().collect();
        let metrics = get(&point.metrics, "/metrics");
        assert!(metrics.contains("\npeerless_store_up 1\n"), "{metrics}");
        assert!(metrics.contains(&format!("\npeerless_store_reopened_total {down}\n")), "{metrics}");
    }
    point.kill();
    drop(client);

    let mode = fs::metadata(disk.join("store")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let point = Point::start(disk, port);
    let mut client = Client::new();
    client.connect(&point);
    let found: Vec<_> = all(&mut client).into_keys().collect();
    acknowledged.sort();
    assert!(found == acknowledged, "{} acknowledged, {} found", acknowledged.len(), found.len());
    println!("{} acknowledged, and all of them found", found.len());
}
