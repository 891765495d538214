//! Questions for addresses, and what is answered to them.

use super::*;

const HOST: &str = "relay.example.org";

fn v4() -> AddressQuery {
    AddressQuery::new(7, HOST, false).unwrap()
}

fn v6() -> AddressQuery {
    AddressQuery::new(7, HOST, true).unwrap()
}

fn a(ip: &str) -> RData<'static> {
    RData::A(A { address: ip.parse::<Ipv4Addr>().unwrap().into() })
}

fn aaaa(ip: &str) -> RData<'static> {
    RData::AAAA(AAAA { address: ip.parse::<Ipv6Addr>().unwrap().into() })
}

fn alias(name: &'static str) -> RData<'static> {
    RData::CNAME(CNAME(Name::new_unchecked(name)))
}

/// What `query` makes of these records.
fn read(query: &AddressQuery, records: Vec<(&'static str, RData<'static>)>) -> Result<Vec<IpAddr>, DnsError> {
    query.read_answer(&answer_to(&query.encode().unwrap(), records, |_| {}))
}

fn ips(all: &[&str]) -> Result<Vec<IpAddr>, DnsError> {
    Ok(all.iter().map(|ip| ip.parse().unwrap()).collect())
}

/// The head of an answer to [`v4`]: with so many records, and the question at byte 12.
fn head(records: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 0x81, 0x80, 0, 1];
    message.extend(records.to_be_bytes());
    message.extend([0; 4]);
    message.extend(b"\x05relay\x07example\x03org\x00\x00\x01\x00\x01");
    message
}

/// A record of the name at byte 12, of this type.
fn record(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8];
    record.extend(data);
    record
}

#[test]
fn the_question_names_the_family_that_is_asked_for() {
    for (query, kind) in [(v4(), 1), (v6(), 28)] {
        let mut expected = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        expected.extend(b"\x05relay\x07example\x03org\x00");
        expected.extend([0, kind, 0, 1]);
        expected.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(query.encode(), Ok(expected));
    }
}

#[test]
fn addresses_are_those_of_the_name_and_of_the_family() {
    let records = || {
        vec![
            (HOST, a("192.0.2.1")),
            (HOST, aaaa("2001:db8::1")),
            ("RELAY.example.ORG", a("192.0.2.2")),
            ("evil.example.org", a("192.0.2.66")),
            ("evil.example.org", aaaa("2001:db8::66")),
            (HOST, text(&["192.0.2.3"])),
        ]
    };
    assert_eq!(read(&v4(), records()), ips(&["192.0.2.1", "192.0.2.2"]));
    assert_eq!(read(&v6(), records()), ips(&["2001:db8::1"]));
    assert_eq!(read(&v4(), Vec::new()), ips(&[]));
}

#[test]
fn a_chain_of_aliases_is_followed_and_one_that_bites_its_tail_ends() {
    let chain = vec![
        (HOST, alias("a.example.net")),
        ("a.example.net", alias("b.example.net")),
        ("b.example.net", alias("c.example.net")),
        (HOST, a("192.0.2.66")),
        ("c.example.net", a("192.0.2.1")),
        ("a.example.net", a("192.0.2.66")),
    ];
    assert_eq!(read(&v4(), chain), ips(&["192.0.2.1"]));
    let circle = vec![
        (HOST, alias("a.example.net")),
        ("a.example.net", alias(HOST)),
        (HOST, alias(HOST)),
        (HOST, a("192.0.2.1")),
    ];
    assert_eq!(read(&v4(), circle), ips(&["192.0.2.1"]));
    // A long chain, and then as many records as fit.
    let mut long = head(5000);
    for _ in 0..2500 {
        long.extend(record(5, &[0xc0, 12]));
    }
    for _ in 0..2500 {
        long.extend(record(1, &[192, 0, 2, 1]));
    }
    assert_eq!(v4().read_answer(&long).map(|all| all.len()), Ok(2500));
}

#[test]
fn an_answer_that_is_not_to_this_question_is_refused() {
    let question = v4().encode().unwrap();
    let change = |change: fn(&mut Packet<'_>)| {
        v4().read_answer(&answer_to(&question, vec![(HOST, a("192.0.2.1"))], change))
    };
    assert_eq!(change(|_| {}), ips(&["192.0.2.1"]));
    assert_eq!(change(|packet| packet.set_id(8)), Err(DnsError::NotOurs));
    assert_eq!(change(|packet| packet.remove_flags(PacketFlag::RESPONSE)), Err(DnsError::NotOurs));
    assert_eq!(change(|packet| packet.questions[0].qtype = QTYPE::TYPE(TYPE::AAAA)), Err(DnsError::NotOurs));
    assert_eq!(
        change(|packet| packet.questions[0].qclass = QCLASS::CLASS(CLASS::CH)),
        Err(DnsError::NotOurs)
    );
    let other = Name::new_unchecked("evil.example.org");
    assert_eq!(change(|packet| packet.questions.clear()), Err(DnsError::NotOurs));
    assert_eq!(
        v4().read_answer(&answer_to(&question, Vec::new(), |packet| packet.questions[0].qname = other)),
        Err(DnsError::NotOurs)
    );
    assert_eq!(change(|packet| packet.set_flags(PacketFlag::TRUNCATION)), Err(DnsError::Truncated));
    assert_eq!(change(|packet| *packet.rcode_mut() = RCODE::NameError), Err(DnsError::NoSuchName));
    assert_eq!(
        change(|packet| *packet.rcode_mut() = RCODE::Refused),
        Err(DnsError::Failed("Refused".into()))
    );
    // The record of a class other than the Internet's is nobody's address.
    assert_eq!(change(|packet| packet.answers[0].class = CLASS::CH), ips(&[]));
}

#[test]
fn names_that_are_compressed_in_circles_are_malformed() {
    let at = head(1).len() as u8;
    // A pointer to itself, to the one after it and back, ahead of itself, and past the end.
    for name in [
        vec![0xc0, at],
        vec![0xc0, at + 2, 0xc0, at],
        vec![1, b'a', 0xc0, at],
        vec![0xc0, at + 12],
        vec![0xff, 0xff],
        vec![0x80, 0],
        vec![63, b'a'],
    ] {
        let mut message = head(1);
        message.extend(&name);
        message.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        let found = v4().read_answer(&message);
        assert!(found.as_ref().is_err_and(|error| *error == DnsError::Malformed), "{name:?}: {found:?}");
    }
    // The same in the data of an alias.
    let mut message = head(1);
    let at = message.len() as u8 + 12;
    message.extend(record(5, &[0xc0, at]));
    assert_eq!(v4().read_answer(&message), Err(DnsError::Malformed));
}

#[test]
fn an_answer_that_is_cut_short_is_malformed_and_data_of_another_size_are_no_address() {
    let mut whole = head(2);
    whole.extend(record(1, &[192, 0, 2, 1]));
    whole.extend(record(1, &[192, 0, 2, 2]));
    assert_eq!(v4().read_answer(&whole), ips(&["192.0.2.1", "192.0.2.2"]));
    for len in 0..whole.len() {
        assert_eq!(v4().read_answer(&whole[..len]), Err(DnsError::Malformed), "cut to {len} bytes");
    }
    for data in [&[192, 0, 2][..], &[192], &[]] {
        let mut message = head(1);
        message.extend(record(1, data));
        let found = v4().read_answer(&message);
        assert!(found.as_ref().map_or(true, Vec::is_empty), "{data:?}: {found:?}");
    }
}

/// Work and room are bounded by what came, whatever the header says.
#[test]
fn ten_thousand_records_are_read_if_they_are_there_and_refused_if_they_are_not() {
    let mut promised = head(10_000);
    promised.extend(record(1, &[192, 0, 2, 1]));
    assert_eq!(check_counts(&promised), Err(DnsError::Malformed), "before room is made for them");
    assert_eq!(v4().read_answer(&promised), Err(DnsError::Malformed));
    let mut there = head(10_000);
    for _ in 0..10_000 {
        there.extend(record(1, &[192, 0, 2, 1]));
    }
    // More than a message of 64 KiB can have.
    assert_eq!(v4().read_answer(&there).map(|all| all.len()), Ok(10_000));
    let mut questions = head(0);
    questions[4..6].copy_from_slice(&10_000u16.to_be_bytes());
    for _ in 1..10_000 {
        questions.extend([0xc0, 12, 0, 1, 0, 1]);
    }
    assert_eq!(v4().read_answer(&questions), Err(DnsError::Malformed), "one question was asked");
}

proptest! {
    #[test]
    fn damaged_answers_of_addresses_never_panic(at in 0usize..100, byte: u8, cut in 0usize..100) {
        let mut message = head(2);
        message.extend(record(5, &[0xc0, 12]));
        message.extend(record(1, &[192, 0, 2, 1]));
        let length = message.len();
        message[at % length] = byte;
        for query in [v4(), v6()] {
            let _ = query.read_answer(&message);
            let _ = query.read_answer(&message[..cut.min(length)]);
        }
    }
}
