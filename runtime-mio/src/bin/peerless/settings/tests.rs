use super::*;

fn applied(text: &str) -> SwarmConfig {
    let mut config = SwarmConfig::default();
    Settings::parse(text).unwrap().apply(&mut config).unwrap();
    config
}

fn wrong(text: &str) -> String {
    Settings::parse(text).map(drop).unwrap_err()
}

#[test]
fn what_stands_in_the_file_is_changed_and_the_rest_stays() {
    let config = applied(
        r#"
        [limits]
        per_ip = 4
        rate_per_ip = "5/1s"
        networks = [{ network = "10.0.0.0/8", connections = "unlimited" }]
        [limits.system]
        memory = "64MiB"
        [gate]
        deny = ["192.0.2.0/24", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"]
        allow_private = false
        [pruner]
        grace = "1m"
        low_water = 10
        "#,
    );
    let defaults = Limits::default();
    assert_eq!((config.limits.per_ip, config.limits.per_v6_56), (4, defaults.per_v6_56));
    assert_eq!(config.limits.rate_per_ip, Rate { burst: 5, every: Duration::from_secs(1) });
    assert_eq!(config.limits.networks.len(), 1);
    assert_eq!(config.limits.system, ScopeLimit { memory: 64 << 20, ..defaults.system });
    assert_eq!((config.gate.deny_networks.len(), config.gate.deny_peers.len()), (1, 1));
    assert!(!config.gate.allow_private);
    let pruner = PrunerConfig { grace: Duration::from_secs(60), low_water: 10, ..PrunerConfig::default() };
    assert_eq!(config.pruner, pruner);
    assert_eq!(applied("").limits, defaults);
}

#[test]
fn every_part_of_connection_management_is_in_the_file() {
    let config = applied(
        r#"
        strategy = "latency_based"
        [dial]
        parallel = 7
        timeout = "9s"
        private_stagger = "0s"
        [dial.backoff]
        peer = "1m"
        jitter = 0.5
        [dial.black_hole]
        window = 20
        [auto_connect]
        peers = 12
        retries = 2
        cooldown = "30s"
        [health]
        enabled = true
        weights = [1, 0.5, 0]
        patience = 1
        max_latency = "2s"
        [peerstore]
        peers = 50
        stored = 20
        identify_ttl = "1h"
        "#,
    );
    let time = Duration::from_secs;
    let backoff = BackoffConfig { peer: time(60), jitter: 0.5, ..BackoffConfig::default() };
    let black_hole = BlackHoleConfig { window: 20, ..BlackHoleConfig::default() };
    let (timeout, private_stagger) = (time(9), Duration::ZERO);
    let dial = DialConfig::default();
    assert_eq!(
        config.dial,
        DialConfig { parallel: 7, timeout, private_stagger, backoff, black_hole, ..dial }
    );
    let auto_connect = AutoConnectConfig::default();
    let expected = AutoConnectConfig { peers: 12, retries: 2, cooldown: time(30), ..auto_connect };
    assert_eq!(config.auto_connect, expected);
    let health =
        HealthConfig { enabled: true, weights: [1.0, 0.5, 0.0], patience: 1, ..HealthConfig::default() };
    assert_eq!(config.health, HealthConfig { max_latency: time(2), ..health });
    assert_eq!(config.strategy, Strategy::LatencyBased);
    let expected =
        PeerstoreConfig { peers: 50, stored: 20, identify_ttl: time(3600), ..PeerstoreConfig::default() };
    assert_eq!(config.peerstore, expected);
}

#[test]
fn the_readme_shows_a_file_that_is_read() {
    let readme = include_str!("../../../../../README.md");
    let shown = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut config = SwarmConfig::default();
    Settings::parse(shown).unwrap().apply(&mut config).unwrap();
    let defaults = SwarmConfig::default();
    assert_eq!((config.dial, config.auto_connect), (defaults.dial, defaults.auto_connect));
    assert_eq!((config.health, config.strategy), (defaults.health, defaults.strategy));
    assert_eq!((config.peerstore, config.pruner), (defaults.peerstore, defaults.pruner));
}

#[test]
fn limits_of_a_relay_are_the_flags_and_a_flag_wins() {
    let text =
        "[relay]\nmax_circuits = 7\ncircuit_bytes = \"1MiB\"\ncircuit_rate = \"3/1m\"\ncircuit_idle = \"5s\"";
    let file = Settings::parse(text).unwrap().relay;
    let flags = LimitArgs { max_circuits: Some(9), ..LimitArgs::default() };
    let both = flags.or(file);
    assert_eq!((both.max_circuits, both.circuit_bytes), (Some(9), Some(1 << 20)));
    assert_eq!(both.circuit_rate, Some(Rate { burst: 3, every: Duration::from_secs(60) }));
    assert_eq!((both.circuit_idle, both.max_reservations), (Some(Duration::from_secs(5)), None));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, line, words) in [
        ("[gate]\ndenny = []", 2, "unknown field `denny`, expected one of `allow`, `deny`, `allow_private`"),
        ("[gates]", 1, "unknown field `gates`"),
        ("\n\n[limits.system]\nconnection = 5", 4, "unknown field `connection`"),
        ("[gate]\ndeny = [\n \"192.0.2.1/24\"]", 3, "is no entry"),
        ("[limits]\nper_ip = -1", 2, "negative"),
        ("[limits]\nper_ip = \"many\"", 2, "a size is"),
        ("[limits]\nrate_per_ip = 5", 2, "expected a rate in quotes"),
        ("[pruner]\ngrace = \"soon\"", 2, "a time is"),
        ("[dial]\nparalel = 5", 2, "unknown field `paralel`, expected one of `parallel`"),
        ("[dial.backoff]\n\njiter = 0.1", 3, "unknown field `jiter`"),
        ("[dial]\nblack_hole = { size = 5 }", 2, "unknown field `size`"),
        ("[auto_connect]\npeer = 5", 2, "unknown field `peer`"),
        ("[auto_connect]\nretries = -1", 2, "invalid value: integer `-1`"),
        ("[health]\nenable = true", 2, "unknown field `enable`"),
        ("[health]\nweights = [1, 1]", 2, "expected an array of length 3"),
        ("[peerstore]\npeers = 5\nttl = \"1h\"", 3, "unknown field `ttl`"),
        ("[peerstore]\nstore = 5", 2, "unknown field `store`"),
        ("strategy = \"worst\"", 1, "\"worst\" is no strategy, those are best, round_robin"),
        ("[relay]\nmax_circuit = 5", 2, "unknown field `max_circuit`"),
        ("[pruner", 1, ""),
    ] {
        let sentence = wrong(text);
        assert!(sentence.starts_with(&format!("line {line}: ")), "{text:?}: {sentence}");
        assert!(sentence.contains(words) && !sentence.contains('\n'), "{text:?}: {sentence}");
    }
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    for (text, problem) in [
        ("[pruner]\nlow_water = 400", "pruner.low_water must not be above pruner.high_water"),
        ("[dial.backoff]\njitter = 2", "dial.backoff.jitter must be a share, from 0 to 1"),
        ("[health]\nmin_score = -0.5", "health.min_score must be a share, from 0 to 1"),
        ("[auto_connect]\ninterval = \"0s\"", "auto_connect.interval must not be zero"),
    ] {
        let error = Settings::parse(text).unwrap().apply(&mut SwarmConfig::default()).unwrap_err();
        let sentence = format!("the configuration makes no sense: {problem}");
        assert_eq!(error, Failure::Usage(sentence), "{text:?}");
    }
}

#[test]
fn what_is_announced_stands_in_the_file_too() {
    let file = "announce = [\"/dns4/example.org/udp/4001/quic-v1\"]\nno_announce = [\"10.0.0.0/8\"]";
    let announced = Settings::parse(file).unwrap().announced();
    assert_eq!(announced.announce, ["/dns4/example.org/udp/4001/quic-v1".parse().unwrap()]);
    assert_eq!(announced.no_announce, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(
        wrong("announce = [\"/ip4/224.0.0.1/udp/1/quic-v1\"]"),
        "line 1: a multicast address names no single host"
    );
}
