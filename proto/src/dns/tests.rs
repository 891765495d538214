use proptest::{collection::vec, prelude::*};
use simple_dns::{
    ResourceRecord,
    rdata::{A, AAAA, CNAME, TXT},
};

use super::*;

const NAME: &str = "_dnsaddr.example.org";

fn query() -> TextQuery {
    TextQuery::new(7, NAME).unwrap()
}

fn answer(records: Vec<(&'static str, RData<'static>)>, change: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
    answer_to(&query().encode().unwrap(), records, change)
}

/// What a server makes of a question.
fn answer_to(
    question: &[u8],
    records: Vec<(&'static str, RData<'static>)>,
    change: impl FnOnce(&mut Packet<'_>),
) -> Vec<u8> {
    let mut packet = Packet::parse(question).unwrap().into_reply();
    let record = |(name, data)| ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 60, data);
    packet.answers = records.into_iter().map(record).collect();
    change(&mut packet);
    packet.build_bytes_vec_compressed().unwrap()
}

fn text(strings: &[&'static str]) -> RData<'static> {
    RData::TXT(strings.iter().fold(TXT::new(), |text, string| text.with_string(string).unwrap()))
}

#[test]
fn the_question_is_what_the_rfc_says() {
    let mut expected = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    expected.extend(b"\x08_dnsaddr\x07example\x03org\x00\x00\x10\x00\x01");
    expected.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(query().encode(), Ok(expected));
}

#[test]
fn the_strings_of_a_record_are_one_text() {
    let records = vec![(NAME, text(&["dnsaddr=/ip4/1.2", ".3.4"])), ("_DNSADDR.example.ORG", text(&["b"]))];
    let message = answer(records, |_| {});
    assert_eq!(query().read_answer(&message), Ok(vec!["dnsaddr=/ip4/1.2.3.4".to_owned(), "b".to_owned()]));
}

#[test]
fn aliases_are_followed_and_what_belongs_to_others_is_left() {
    let alias = RData::CNAME(CNAME(Name::new_unchecked("t.example.net")));
    let records = vec![
        ("evil.example.org", text(&["evil"])),
        (NAME, alias),
        ("t.example.net", RData::A(A { address: 1 })),
        ("t.example.net", text(&["good"])),
    ];
    assert_eq!(query().read_answer(&answer(records, |_| {})), Ok(vec!["good".to_owned()]));
}

#[test]
fn each_kind_of_answer_without_texts_says_so() {
    let read = |change: fn(&mut Packet<'_>)| query().read_answer(&answer(vec![(NAME, text(&["a"]))], change));
    assert_eq!(read(|packet| packet.set_id(8)), Err(DnsError::NotOurs));
    assert_eq!(read(|packet| packet.remove_flags(PacketFlag::RESPONSE)), Err(DnsError::NotOurs));
    assert_eq!(read(|packet| packet.questions.clear()), Err(DnsError::NotOurs));
    assert_eq!(
        read(|packet| packet.questions[0].qname = Name::new_unchecked("example.org")),
        Err(DnsError::NotOurs)
    );
    assert_eq!(read(|packet| packet.questions[0].qtype = QTYPE::TYPE(TYPE::A)), Err(DnsError::NotOurs));
    assert_eq!(read(|packet| packet.set_flags(PacketFlag::TRUNCATION)), Err(DnsError::Truncated));
    assert_eq!(read(|packet| *packet.rcode_mut() = RCODE::NameError), Err(DnsError::NoSuchName));
    assert_eq!(
        read(|packet| *packet.rcode_mut() = RCODE::ServerFailure),
        Err(DnsError::Failed("ServerFailure".into()))
    );
    assert_eq!(query().read_answer(&answer(Vec::new(), |_| {})), Ok(Vec::new()));
}

#[test]
fn a_header_that_promises_more_than_the_message_holds_is_refused() {
    let mut message = answer(Vec::new(), |_| {});
    message[6..8].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(check_counts(&message), Err(DnsError::Malformed), "before room is made for them");
    assert_eq!(query().read_answer(&message), Err(DnsError::Malformed));
    assert_eq!(query().read_answer(&message[..11]), Err(DnsError::Malformed));
}

#[test]
fn names_that_cannot_be_asked_for() {
    for name in ["", ".", "a..b", &"a".repeat(64), &"abc.".repeat(64), "a\\"] {
        assert_eq!(TextQuery::new(1, name), Err(DnsError::BadName(name.into())), "{name}");
        assert_eq!(AddressQuery::new(1, name, true), Err(DnsError::BadName(name.into())), "{name}");
    }
}

mod addresses;

#[test]
fn resolv_conf() {
    let text = "# nameserver 1.1.1.1\nsearch local\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # us\n\
                nameserver fe80::1%eth0\nnameserver\nnameserver x\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"];
    assert_eq!(name_servers(text), expected.map(|server| server.parse().unwrap()));
    assert_eq!(name_servers(""), ["127.0.0.1:53".parse().unwrap()]);
}

proptest! {
    #[test]
    fn random_messages_never_panic(tail in vec(any::<u8>(), 0..600), counts in vec(0u8..4, 4)) {
        let mut message = vec![0, 7, 0x81, 0x80];
        message.extend(counts.into_iter().flat_map(|count| [0, count]));
        message.extend(tail);
        let _ = query().read_answer(&message);
        let _ = AddressQuery::new(7, NAME, true).unwrap().read_answer(&message);
    }

    #[test]
    fn damaged_answers_never_panic(at in 0usize..120, byte: u8, cut in 0usize..120) {
        let alias = RData::CNAME(CNAME(Name::new_unchecked("t.example.net")));
        let mut message = answer(vec![(NAME, alias), ("t.example.net", text(&["some text", "more"]))], |_| {});
        let length = message.len();
        message[at % length] = byte;
        let _ = query().read_answer(&message);
        let _ = query().read_answer(&message[..cut.min(length)]);
    }
}
