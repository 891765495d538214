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
    let settings = Settings::parse("[pruner]\nlow_water = 400").unwrap();
    let error = settings.apply(&mut SwarmConfig::default()).unwrap_err();
    let sentence = "the configuration makes no sense: pruner.low_water must not be above pruner.high_water";
    assert_eq!(error, Failure::Usage(sentence.into()));
}
