//! A node whose machines answer each other for ever: it says who does, and goes on with everything else.

use std::time::Duration;

use peerless_core::{
    behaviour::{Behaviour, Context, Input, Reply},
    errors::DialError,
    identity::Identity,
    ids::{ConnectionId, Id as _},
    names::{ProtocolName, ProtocolSpec},
    node::{Config, Event, Node, Start},
    rng::Rng,
    time::{Deadline, Instant, UnixTime},
};

/// Asks for what it cannot have, again and again, as long as it may.
#[derive(Debug)]
struct Nagging {
    left: u64,
}

impl Nagging {
    fn nag(&mut self, cx: &mut Context<'_>) {
        cx.open(ConnectionId::from_parts(7, 7), ProtocolName::from_static("/none"));
    }
}

impl Behaviour for Nagging {
    fn name(&self) -> &'static str {
        "nagging"
    }

    fn protocols(&self) -> &[ProtocolSpec] {
        &[]
    }

    fn handle(&mut self, cx: &mut Context<'_>, input: Input) {
        if let Input::Reply(_, Reply::Stream(Err(_))) = input
            && self.left > 0
        {
            self.left -= 1;
            self.nag(cx);
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        None
    }
}

fn events(node: &mut Node) -> Vec<Event> {
    std::iter::from_fn(|| node.poll_event()).collect()
}

#[test]
fn a_turn_that_would_not_end_is_cut_off_names_the_culprit_and_goes_on() {
    let mut config = Config::new(Identity::generate(&mut Rng::new([1; 32])));
    config.behaviours.push(Box::new(Nagging { left: 1_000_000 }));
    let start = Start { now: Instant::ZERO, unix: UnixTime::from_secs(1_700_000_000), seed: [2; 32] };
    let mut node = Node::new(config, start).expect("a configuration that is valid");
    let mut now = Instant::ZERO + Duration::from_secs(1);
    node.with::<Nagging, _>(now, Nagging::nag).expect("the behaviour is there");
    let told = events(&mut node);
    let [Event::TurnCutOff { steps, at }] = &told[..] else { panic!("{told:?}") };
    assert!(at.starts_with("nagging: Reply") && *steps >= 100_000, "{steps}: {at}");
    let deadline = node.deadline().expect("there is work left");
    assert_eq!((deadline.at, deadline.why), (now, "work left over"));

    // Others are served all the same, and it is not told again as long as it lasts.
    let dial = node.dial(now, None, &["/ip4/192.0.2.1/udp/4001/quic-v1".parse().expect("an address")]);
    let mut turns = 1;
    let mut outcomes: Vec<Result<ConnectionId, DialError>> = Vec::new();
    while node.deadline().is_some_and(|deadline| deadline.why == "work left over") {
        now = now + Duration::from_millis(1);
        node.handle_timeout(now);
        turns += 1;
        let news = events(&mut node);
        assert!(!news.iter().any(|event| matches!(event, Event::TurnCutOff { .. })), "{news:?}");
        outcomes.extend(news.iter().filter_map(|event| event.dial_outcome(dial)));
        assert!(turns < 100, "it has stopped nagging by now");
    }
    assert_eq!(outcomes.len(), 1, "no socket: the dial has failed");
    assert!(node.counters().get("node.turns_cut_off") >= 5);
    assert!(node.deadline().is_none());
}
