use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
};

use peerless_core::ids::QueryId;

use super::*;
use crate::{Question, Resolver};

/// More than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A name server that says nothing of names that begin with `dead`, that there is no name that begins with `no`, and that
/// all others are 192.0.2.7. Returns the names that it was asked for as well.
fn server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let work = move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let (name, end) = name_of(question);
            log.lock().unwrap().push(name.clone());
            let is_v4 = question[end - 3] == 1;
            let mut message = question[..2].to_vec();
            let is_there = is_v4 && !name.starts_with("no");
            message.extend(if name.starts_with("no") { [0x81, 0x83] } else { [0x81, 0x80] });
            message.extend([0, 1, 0, u8::from(is_there), 0, 0, 0, 0]);
            message.extend(&question[12..end]);
            if is_there {
                message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            }
            if !name.starts_with("dead") {
                socket.send_to(&message, from).unwrap();
            }
        }
    };
    thread::Builder::new().spawn(work).unwrap();
    (at, asked)
}

/// The name in a question, and where the question ends.
fn name_of(question: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        name += std::str::from_utf8(&question[at + 1..end]).unwrap();
        name.push('.');
        at = end;
    }
    (name, at + 5)
}

fn host(name: &str) -> Question {
    Question::Host(name.into(), Family::Any)
}

fn resolver(servers: Vec<SocketAddr>) -> (Resolver, Receiver<(QueryId, Answer)>) {
    let (answer, answers) = channel();
    (Resolver::new(servers, move |query, found| _ = answer.send((query, found))), answers)
}

#[test]
fn a_hundred_dead_names_delay_none_that_lives() {
    let (at, _) = server();
    let (resolver, answers) = resolver(vec![at]);
    for n in 0..100 {
        resolver.ask(QueryId(n), host(&format!("dead{n}.example"))).unwrap();
    }
    resolver.ask(QueryId(1000), host("live.example")).unwrap();
    let (first, found) = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!((first, found), (QueryId(1000), Answer::Host(Ok(vec!["192.0.2.7".parse().unwrap()]))));
    for _ in 0..100 {
        let (_, found) = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(found, Answer::Host(Err(format!("name server {at}: no answer within 2s"))));
    }
}

#[test]
fn a_name_server_that_is_dead_delays_one_name_and_no_more() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (good, _) = server();
    let names = Names::new(vec![silent.local_addr().unwrap(), good]);
    assert_eq!(names.addresses("a.example", Family::Any), Ok(vec!["192.0.2.7".parse().unwrap()]));
    silent.set_nonblocking(true).unwrap();
    while silent.recv_from(&mut [0; 1500]).is_ok() {}
    assert_eq!(names.addresses("b.example", Family::V4), Ok(vec!["192.0.2.7".parse().unwrap()]));
    assert!(silent.recv_from(&mut [0; 1500]).is_err(), "the dead one was asked again");
}

#[test]
fn only_the_family_that_is_wanted_is_asked_for_and_a_name_that_is_not_there_once() {
    let (at, asked) = server();
    let names = Names::new(vec![at]);
    assert_eq!(names.addresses("a.example", Family::V4), Ok(vec!["192.0.2.7".parse().unwrap()]));
    assert_eq!(names.addresses("b.example", Family::V6), Ok(Vec::new()));
    let missing = names.addresses("no.example", Family::Any);
    assert_eq!(missing, Err("there is no such name".into()));
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["a.example.", "b.example.", "no.example.", "no.example."]);
}

#[test]
fn a_question_that_there_is_no_room_for_is_answered_at_once() {
    let (at, _) = server();
    let (resolver, _answers) = resolver(vec![at]);
    let mut refused = 0;
    for n in 0..1500 {
        refused += u64::from(resolver.ask(QueryId(n), host("dead.example")).is_err());
    }
    assert!((100..500).contains(&refused), "{refused} were refused");
}

#[test]
fn an_address_is_its_own_name_and_the_hosts_file_is_asked_first() {
    let names = Names::new(vec!["127.0.0.1:9".parse().unwrap()]);
    assert_eq!(names.addresses("127.0.0.1", Family::Any), Ok(vec!["127.0.0.1".parse().unwrap()]));
    assert_eq!(names.addresses("::1", Family::Any), Ok(vec!["::1".parse().unwrap()]));
    assert!(names.addresses("no such name", Family::Any).is_err());
    // It is in every hosts file, and no server is there to ask.
    assert_eq!(names.addresses("localhost", Family::V4), Ok(vec!["127.0.0.1".parse().unwrap()]));
    let hosts = "127.0.0.1 localhost\n10.0.0.1\tRelay.Example relay # a.example\nfe80::1 relay\nnonsense b\n";
    let find = |name, family| listed(hosts, name, family);
    assert_eq!(find("relay.example.", Family::Any), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(find("relay", Family::V6), ["fe80::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(find("a.example", Family::Any), [""; 0].map(|_| IpAddr::from([0; 4])));
    assert_eq!(find("b", Family::Any).len(), 0);
}
