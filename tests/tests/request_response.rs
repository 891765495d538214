//! Request and response: one stream a request, time limits, bounds, and how each request ended.

use std::time::Duration;

use bytes::Bytes;
use peerless_core::{
    PeerId,
    behaviour::{Action, Context},
    errors::{CloseReason, DialError, OpenError, StreamFault},
    names::ProtocolName,
    protocols::request_response::{
        Answer, Asked, Config, Outcome, Protocol, RequestError, RequestId, RequestResponse,
    },
};
use peerless_tests::{
    laws::Laws,
    solo::Solo,
    world::{World, ms, secs},
};

const HELLO: ProtocolName = ProtocolName::from_static("/hello/1.0.0");

/// Greets by name; whoever says "later" waits for it, and "no" is not answered.
#[derive(Debug, Default)]
struct Hello {
    waiting: Vec<Asked>,
}

impl Protocol for Hello {
    type Request = String;
    type Response = String;

    fn name(&self) -> &'static str {
        "hello"
    }

    fn protocol(&self) -> ProtocolName {
        HELLO
    }

    fn encode_request(&self, request: &String) -> Bytes {
        request.clone().into()
    }

    fn decode_request(&self, frame: Bytes) -> Result<String, String> {
        String::from_utf8(frame.into()).map_err(|_| "no text".into())
    }

    fn encode_response(&self, response: &String) -> Bytes {
        response.clone().into()
    }

    fn decode_response(&self, frame: Bytes) -> Result<String, String> {
        String::from_utf8(frame.into()).map_err(|_| "no text".into())
    }

    fn answer(&mut self, _: &mut Context<'_>, asked: Asked, request: String) -> Answer<String> {
        match &*request {
            "later" => {
                self.waiting.push(asked);
                Answer::Later
            }
            "no" => Answer::Refuse,
            "long" => Answer::Now("x".repeat(2000)),
            name => Answer::Now(format!("hello, {name}")),
        }
    }
}

type Hellos = RequestResponse<Hello>;

fn make() -> Hellos {
    RequestResponse::new(Hello::default(), Config { max_message: 1000, max_requests: 3, ..Config::default() })
}

fn solo() -> Solo<Hellos> {
    Solo::new("A", make())
}

fn ask(solo: &mut Solo<Hellos>, peer: PeerId, name: &str) -> RequestId {
    solo.with(|hello, cx| hello.request(cx, peer, &name.into())).expect("there is room")
}

/// How the requests of a solo ended, since the last call.
fn outcomes(solo: &mut Solo<Hellos>) -> Vec<Result<String, RequestError>> {
    let events = solo.events();
    let outcomes = events.iter().map(|event| event.notice::<Outcome<Hello>>().expect("only outcomes"));
    outcomes.map(|outcome| outcome.result.clone()).collect()
}

#[test]
fn a_request_takes_one_stream_and_one_response() {
    let mut solo = solo();
    solo.connect("B");
    let b = solo.peer("B");
    ask(&mut solo, b, "Ada");
    let stream = solo.open();
    assert_eq!(solo.sent(stream), ["Ada"]);
    assert!(solo.is_finished(stream), "nothing more is asked on this stream");
    solo.receive(stream, "hello, Ada");
    assert_eq!(outcomes(&mut solo), [Ok("hello, Ada".to_owned())]);
    assert!(solo.is_open(stream), "until the remote ends it");
    solo.finish(stream);
    assert!(solo.behaviour.is_empty() && !solo.is_open(stream));
    insta::assert_snapshot!(solo.story(), @r#"
     0.000  A  >  B  hello 3 bytes
     0.000  B  >  A  hello 10 bytes
     0.000  A  *  hello: B answered: "hello, Ada"
    "#);
}

#[test]
fn who_is_not_connected_is_dialled() {
    let mut solo = solo();
    let b = solo.peer("B");
    ask(&mut solo, b, "Ada");
    assert_eq!(solo.dialling(), [vec![]], "wherever the peer is known to be");
    let token = solo.pending.iter().find_map(|action| match action {
        Action::Dial { token, .. } => Some(*token),
        _ => None,
    });
    let connection = solo.connect("B");
    solo.pending.clear();
    let reply = peerless_core::behaviour::Reply::Dial(Ok(connection));
    solo.input(peerless_core::behaviour::Input::Reply(token.expect("a dial"), reply));
    let stream = solo.open();
    solo.receive(stream, "hello, Ada");
    assert_eq!(outcomes(&mut solo), [Ok("hello, Ada".to_owned())]);

    let c = solo.peer("C");
    ask(&mut solo, c, "Ada");
    let nowhere = DialError { attempts: vec![] };
    solo.dial_fails(nowhere.clone());
    assert_eq!(outcomes(&mut solo), [Err(RequestError::Dial(nowhere))]);
}

#[test]
fn each_way_to_fail_has_its_error() {
    let mut solo = solo();
    let connection = solo.connect("B");
    let b = solo.peer("B");
    let mut fails = |error: RequestError, end: &dyn Fn(&mut Solo<Hellos>)| {
        ask(&mut solo, b, "Ada");
        end(&mut solo);
        assert_eq!(outcomes(&mut solo), [Err(error)]);
        assert!(solo.behaviour.is_empty(), "{:?}", solo.behaviour);
    };
    fails(RequestError::Open(OpenError::StreamLimit), &|solo| solo.refuse_open(OpenError::StreamLimit));
    fails(RequestError::Unsupported, &|solo| {
        let stream = solo.open();
        solo.reset(stream, StreamFault::Unsupported);
    });
    fails(RequestError::Stream(StreamFault::Remote(7)), &|solo| {
        let stream = solo.open();
        solo.reset(stream, StreamFault::Remote(7));
    });
    fails(RequestError::NoResponse, &|solo| {
        let stream = solo.open();
        solo.finish(stream);
    });
    fails(RequestError::Malformed("no text".into()), &|solo| {
        let stream = solo.open();
        solo.receive(stream, vec![0xff]);
        solo.finish(stream);
    });
    fails(RequestError::TimedOut, &|solo| {
        let stream = solo.open();
        solo.advance(secs(10));
        assert!(!solo.is_open(stream));
    });
    fails(RequestError::Stream(StreamFault::ConnectionLost), &|solo| {
        solo.open();
        solo.disconnect_because(connection, CloseReason::TimedOut);
    });
}

#[test]
fn what_is_too_much_or_too_long_is_refused() {
    let mut solo = solo();
    solo.connect("B");
    let b = solo.peer("B");
    let long = "x".repeat(1001);
    let refused = solo.with(|hello, cx| hello.request(cx, b, &long));
    assert_eq!(refused, Err(RequestError::TooLong(1001)));
    let first = ask(&mut solo, b, "1");
    ask(&mut solo, b, "2");
    ask(&mut solo, b, "3");
    let refused = solo.with(|hello, cx| hello.request(cx, b, &"4".into()));
    assert_eq!(refused, Err(RequestError::TooMany));
    assert!(solo.with(|hello, cx| hello.cancel(cx, first)), "which makes room");
    assert!(!solo.with(|hello, cx| hello.cancel(cx, first)));
    ask(&mut solo, b, "4");
    // The stream of the request that was given up is not wanted any more.
    let unwanted = solo.open();
    assert!(!solo.is_open(unwanted));
    assert_eq!(outcomes(&mut solo), []);
}

#[test]
fn a_request_is_answered_at_once_or_later_or_never() {
    let mut solo = solo();
    let connection = solo.connect("B");
    let mut asked = |name: &str| {
        let stream = solo.accept(connection, &HELLO);
        solo.receive(stream, name.to_owned());
        solo.finish(stream);
        (stream, solo.sent(stream), solo.is_open(stream))
    };
    let (_, said, _) = asked("Ada");
    assert_eq!(said, [] as [&str; 0], "the stream has ended on both sides");
    assert!(!asked("no").2 && !asked("long").2, "reset");
    let (stream, said, open) = asked("later");
    assert_eq!((said.len(), open), (0, true));
    let waiting = solo.behaviour.protocol_mut().waiting.remove(0);
    assert!(solo.with(|hello, cx| hello.respond(cx, waiting, &"hello at last".into())));
    assert!(!solo.with(|hello, cx| hello.respond(cx, waiting, &"again".into())));
    assert!(!solo.is_open(stream) && solo.behaviour.is_empty(), "{:?}", solo.behaviour);

    let slow = solo.accept(connection, &HELLO);
    solo.receive(slow, "later");
    solo.advance(secs(10));
    assert!(!solo.is_open(slow), "whoever forgets to answer does not keep the stream");
    let silent = solo.accept(connection, &HELLO);
    solo.advance(secs(10));
    assert!(!solo.is_open(silent), "nor does whoever forgets to ask");
    assert_eq!(solo.counters.get("request_response.timed_out"), 2);
    assert!(solo.behaviour.is_empty());
}

#[test]
fn laws() {
    let laws = Laws {
        make,
        command: |solo, dice| {
            let peers = ["A", "B", "C"].map(|name| solo.peer(name));
            let _ = solo.with(|hello, cx| hello.request(cx, peers[(dice % 3) as usize], &"Ada".into()));
        },
        settle: |solo| solo.advance(secs(20)),
        entries: Hellos::len,
        frames: vec![(HELLO, "Ada".into()), (HELLO, "later".into()), (HELLO, "no".into())],
        most_actions: 60,
        reaches: &["request_response.failed", "request_response.refused.too_many"],
    };
    laws.check(30);
}

#[test]
fn nodes_ask_each_other() {
    let mut w = World::new(1);
    let with_hello = |config: &mut peerless_core::node::Config| {
        config.behaviours.push(Box::new(RequestResponse::new(Hello::default(), Config::default())));
    };
    let _b = w.host("B").configure(with_hello).start();
    let a = w.host("A").configure(with_hello).start();
    let c = w.host("C").start();
    let (b_peer, b_address) = (w.hosts()[0].peer(), w.hosts()[0].address());
    w.command(a, |node, now| node.add_peer_addresses(now, b_peer, &[b_address], None));
    let request = |w: &mut World, to: PeerId, name: String| {
        let asked = w.command(a, |node, now| {
            node.with(now, |hello: &mut Hellos, cx| hello.request(cx, to, &name)).expect("is there")
        });
        asked.expect("there is room");
        w.wait_for(a, "the outcome", |event| {
            event.notice::<Outcome<Hello>>().map(|outcome| outcome.result.clone())
        })
    };
    // One round trip for the handshake, one for the request: it leaves with the proposal of the protocol.
    let before = w.now();
    assert_eq!(request(&mut w, b_peer, "Ada".into()), Ok("hello, Ada".into()));
    assert!(w.now().saturating_duration_since(before) <= ms(140), "{}", w.now());
    let before = w.now();
    assert_eq!(request(&mut w, b_peer, String::new()), Ok("hello, ".into()), "no bytes are a request too");
    assert_eq!(w.now().saturating_duration_since(before), Duration::from_millis(40));
    let long = "x".repeat(100 << 10);
    assert_eq!(request(&mut w, b_peer, long.clone()), Ok(format!("hello, {long}")));
    assert!(matches!(request(&mut w, b_peer, "no".into()), Err(RequestError::Stream(_))));
    let connection = w.dial(a, c);
    let c_peer = w.node(a).connections().get(connection).expect("connected").peer;
    assert_eq!(request(&mut w, c_peer, "Ada".into()), Err(RequestError::Unsupported));
    w.shutdown();
    w.assert_empty();
}
