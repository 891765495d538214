use super::*;

const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn run(line: &str) -> Result<Cli, NoCommand> {
    parse(line.replace("PEER", PEER).split(' ').map(OsString::from))
}

fn wrong(line: &str) -> String {
    match run(line) {
        Err(NoCommand::Wrong(sentence)) => sentence,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn clap_finds_no_fault_in_the_definition() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn a_mistake_is_one_sentence_that_says_what_would_be_right() {
    for (line, words) in [
        (
            "peerless",
            "name a command: id, relay, rendezvous, register, discover, listen, status, ping, perf or echo",
        ),
        ("peerless rely", "unrecognized subcommand 'rely'; a similar subcommand exists: 'relay'"),
        ("peerless id --jsn", "unexpected argument '--jsn' found; a similar argument exists: '--json'"),
        ("peerless ping", "the following required arguments were not provided: <MULTIADDR>"),
        ("peerless relay --max-circuits many", "a whole number is needed, 0 for no limit"),
        ("peerless relay --preset none", "possible values: public, broad, unlimited"),
        ("peerless relay --circuit-rate 30", "like 30/2m; 0 for no limit"),
        ("peerless relay --listen /ip4/1.2.3.4/tcp/1", "looks like /ip4/0.0.0.0/udp/4001/quic-v1"),
        ("peerless rendezvous --max-record 1MiB", "a record has 1 to 65536 bytes"),
        ("peerless rendezvous --min-ttl soon", "a whole number followed by ms, s, m, h, d or w"),
        ("peerless relay --metrics localhost", "looks like 127.0.0.1:9090 or [::1]:9090"),
        (
            "peerless relay --circuit-bytes 1MX",
            "a whole number of bytes, or one followed by KiB, MiB, GiB, TiB, KB, MB, GB or TB",
        ),
        ("peerless relay --window 1", "a window has 16KiB to 64MiB"),
        ("peerless relay --window 5GiB", "a window has 16KiB to 64MiB"),
        ("peerless relay --circuit-duration 1y", "a whole number followed by ms, s, m, h, d or w"),
        (
            "peerless listen --relay /ip4/1.2.3.4/udp/1/quic-v1",
            "looks like /ip4/192.0.2.1/udp/4001/quic-v1/p2p/PEER",
        ),
        ("peerless register --namespace x", "were not provided: --point <MULTIADDR>"),
        (
            "peerless discover --namespace x --point /ip4/1.2.3.4/udp/1/quic-v1",
            "a point's address looks like",
        ),
        (
            "peerless register --namespace= --point /ip4/1.2.3.4/udp/1/quic-v1/p2p/PEER",
            "a namespace has 1 to 255 bytes, not 0",
        ),
        (
            "peerless register --namespace x --point /ip4/1.2.3.4/udp/1/quic-v1/p2p/PEER --ttl 73h",
            "lasts from 1s to 72h",
        ),
        ("peerless discover --namespace x --limit 1 --watch", "cannot be used with"),
        ("peerless ping nonsense", "or through a relay like"),
        ("peerless ping /ip4/1.2.3.4/udp/1/quic-v1/p2p-circuit/p2p/PEER", "or through a relay like"),
        ("peerless ping /ip4/1.2.3.4/udp/1/quic-v1/p2p/12D3Koo", "or through a relay like"),
        ("peerless ping /ip4/1.2.3.4/udp/1/quic-v1 -c 0", "a whole number from 1 up is needed"),
        ("peerless perf /ip4/1.2.3.4/udp/1/quic-v1 --streams 300", "a number from 1 to 256 is needed"),
        ("peerless id --security ssl", "possible values: tls, noise"),
        ("peerless id --ephemeral --identity x", "cannot be used with"),
    ] {
        let sentence = wrong(line);
        assert!(sentence.contains(words), "{line}: {sentence}");
        assert!(!sentence.contains('\n') && !sentence.contains("--help"), "{line}: {sentence}");
    }
}

#[test]
fn addresses_of_peers_are_direct_or_through_one_relay() {
    let peer = PEER.parse().ok();
    for (text, relay, to) in [
        ("/ip4/1.2.3.4/udp/1/quic-v1", None, None),
        ("/dnsaddr/example.org", None, None),
        ("/dnsaddr/example.org/p2p/PEER", None, peer),
        ("/dnsaddr/example.org/p2p/PEER/p2p-circuit/p2p/PEER", peer, peer),
        ("/dns/example.org/udp/1/quic-v1/p2p/PEER", None, peer),
        ("/ip6/::1/udp/1/quic-v1/p2p/PEER/p2p-circuit/p2p/PEER", peer, peer),
    ] {
        let address = remote_address(&text.replace("PEER", PEER)).unwrap();
        assert_eq!(shape(&address), Some(Shape { relay, peer: to }));
    }
}

#[test]
fn rates_are_a_burst_and_a_time() {
    assert_eq!(rate("30/2m"), Ok(Rate::new(30, 120)));
    assert_eq!(rate("0"), Ok(Rate::UNLIMITED));
    assert!(["", "30", "/2m", "30/", "-1/1s", "1.5/1s"].iter().all(|text| rate(text).is_err()));
}

#[test]
fn what_is_too_much_to_count_is_called_that() {
    for text in ["18446744073709551616", "18446744073709551615KiB", "99999999999999999999 MB"] {
        assert!(size(text).unwrap_err().contains("too much"), "{text}");
        assert!(
            time(&text.replace("KiB", "h").replace("MB", "d")).unwrap_err().contains("too long"),
            "{text}"
        );
    }
    assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
}

#[test]
fn sizes_and_times_have_units() {
    assert_eq!([size("0"), size("131072"), size("128KiB")], [Ok(0), Ok(131_072), Ok(131_072)]);
    assert_eq!([size("3MiB"), size("2GiB")], [Ok(3 << 20), Ok(2 << 30)]);
    assert_eq!(
        [size("1KiB"), size("1KB"), size("1kB"), size("10MB")],
        [Ok(1024), Ok(1000), Ok(1000), Ok(10_000_000)]
    );
    assert_eq!(
        [size("2 GB"), size("1TB"), size("1tib"), size("7B")],
        [Ok(2_000_000_000), Ok(1_000_000_000_000), Ok(1 << 40), Ok(7)]
    );
    assert!(
        ["", "-1", "1.5MiB", "99999999999GiB", "MiB", "1M", "1 0", "+1"]
            .iter()
            .all(|text| size(text).is_err())
    );
    let seconds = |n| Ok(Duration::from_secs(n));
    assert_eq!(
        [time("90"), time("90s"), time("2m"), time("1h")],
        [seconds(90), seconds(90), seconds(120), seconds(3600)]
    );
    assert_eq!(
        [time("1d"), time("2w"), time("3 H")],
        [seconds(86_400), seconds(14 * 86_400), seconds(10_800)]
    );
    assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
    assert!(["", "s", "1x", "99999999999999999999h"].iter().all(|text| time(text).is_err()));
}

#[test]
fn whoever_only_asks_has_a_new_identity_unless_one_is_named() {
    let address = "/ip4/1.2.3.4/udp/1/quic-v1/p2p/PEER";
    let is_ephemeral = |line: String| run(&line).unwrap().common.ephemeral;
    let point = format!("--namespace x --point {address}");
    for client in [
        format!("ping {address}"),
        format!("echo {address}"),
        format!("perf {address}"),
        format!("discover {point}"),
        format!("register {point}"),
    ] {
        assert!(is_ephemeral(format!("peerless {client}")), "{client}");
        assert!(!is_ephemeral(format!("peerless --identity x {client}")), "{client}");
        assert!(!is_ephemeral(format!("peerless --seed 1 {client}")), "{client}");
    }
    for server in [
        "id".into(),
        "relay".into(),
        "rendezvous".into(),
        "listen".into(),
        format!("register {point} --keep"),
    ] {
        assert!(!is_ephemeral(format!("peerless {server}")), "{server}");
    }
}

#[test]
fn flags_stand_under_the_heading_that_is_theirs() {
    use clap::CommandFactory;
    let mut cli = Cli::command();
    cli.build();
    let heading = |command: &str, flag: &str| {
        let command = cli.find_subcommand(command).unwrap();
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
        arg.get_help_heading().unwrap_or("Options").split([',', ';']).next().unwrap().to_owned()
    };
    for (command, flag, expected) in [
        ("relay", "listen", "Options"),
        ("relay", "window", "Options"),
        ("relay", "metrics", "Options"),
        ("relay", "store", "Options"),
        ("relay", "max-reservations", "Limits"),
        ("relay", "relay-byte-rate", "Limits"),
        ("relay", "rendezvous", "Rendezvous"),
        ("relay", "max-ttl", "Rendezvous"),
        ("relay", "json", "Options of all commands"),
        ("rendezvous", "metrics", "Options"),
        ("rendezvous", "store", "Options"),
        ("rendezvous", "max-ttl", "Rendezvous"),
    ] {
        assert_eq!(heading(command, flag), expected, "{command} --{flag}");
    }
}
