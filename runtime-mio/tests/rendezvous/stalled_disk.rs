//! A point on a disk that stalls: it lives, says so, and can be ended.

use std::{fs::File, thread};

use super::{
    full_disk::{get, register},
    *,
};

/// What a shutdown may take: the goodbyes, and what the store is waited for, on a slow machine.
const END: Duration = Duration::from_secs(20);

#[test]
fn a_disk_that_stalls_holds_up_neither_the_point_nor_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (library, stall) = (folder.path().join("stall.so"), folder.path().join("stall"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rendezvous/stall.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().unwrap().success(), "a C compiler is what the build needs too");

    let env: [(&str, &Path); 2] = [("LD_PRELOAD", &library), ("PEERLESS_STALL", &stall)];
    let mut point = Point::start_with(folder.path(), 0, &env);
    let port = peerless_proto::address::parse_quic_v1(&point.address).unwrap().0.port();
    let mut client = Client::new();
    client.connect(&point);
    let stream = client.open();
    assert_eq!(register(&mut client, stream, "before"), Some(0));

    File::create(&stall).unwrap();
    assert_ne!(register(&mut client, stream, "stalled"), Some(0), "answered in time, and not with success");
    assert!(point.event("store_down")["reason"].as_str().unwrap().contains("more than 10 s"));
    let health = get(&point.metrics, "/healthz");
    assert!(health.starts_with("HTTP/1.1 503 ") && health.contains("more than 10 s"), "{health}");
    let metrics = get(&point.metrics, "/metrics");
    assert!(
        metrics.contains("\npeerless_store_up 0\n") && metrics.contains("\npeerless_store_stalls_total 1\n")
    );
    assert_eq!(all(&mut client).into_keys().collect::<Vec<_>>(), ["before"]);

    std::fs::remove_file(&stall).unwrap();
    point.event("store_up");
    let end = Instant::now() + PATIENCE;
    while register(&mut client, stream, "after") != Some(0) {
        assert!(Instant::now() < end, "nothing is accepted any more");
        thread::sleep(Duration::from_millis(100));
    }
    assert!(get(&point.metrics, "/healthz").ends_with("\r\n\r\nok\n"));

    File::create(&stall).unwrap();
    client.register(stream, "lost".into());
    client.runtime.turn(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    let pid = point.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert!(point.child.wait().unwrap().success());
    assert!(begun.elapsed() < END, "it took {:?} to end", begun.elapsed());
    drop(client);

    let point = Point::start(folder.path(), port);
    let mut client = Client::new();
    client.connect(&point);
    let found: Vec<_> = all(&mut client).into_keys().filter(|ns| ns != "lost").collect();
    assert_eq!(found, ["after", "before"]);
}
