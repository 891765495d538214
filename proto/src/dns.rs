//! The addresses of a host, and the TXT records of a name, which is where `/dnsaddr` addresses are published: one question to
//! a name server and what comes back; see [RFC 1035](https://www.rfc-editor.org/rfc/rfc1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE,
    rdata::{OPT, RData},
};

/// The largest answer, in bytes, that a name server may send as a datagram.
pub const MAX_DATAGRAM: usize = 1232;

/// The port of name servers.
const PORT: u16 = 53;
/// Name servers that are asked.
const MAX_SERVERS: usize = 3;
/// Bytes of a header.
const HEADER: usize = 12;
const RECORD: usize = 11;

/// Why there are no texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The name has a part that is empty or too long, or is too long itself.
    #[error("`{0}` is no host name")]
    BadName(String),
    /// The bytes are no DNS message.
    #[error("the answer is no DNS message")]
    Malformed,
    /// The message answers another question, or none.
    #[error("the answer is to another question")]
    NotOurs,
    /// The answer is longer than a datagram: ask again over TCP.
    #[error("the answer is cut off")]
    Truncated,
    /// The name does not exist.
    #[error("there is no such name")]
    NoSuchName,
    /// The server will not or cannot answer, for this reason.
    #[error("the server failed: {0}")]
    Failed(String),
}

/// A question for the TXT records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextQuery {
    id: u16,
    name: String,
}

impl TextQuery {
    /// Asks for the texts of `name`, which is absolute. The `id` has to be random: it is what a stranger who wants to answer
    /// in the server's place has to guess.
    ///
    /// # Errors
    /// [`DnsError::BadName`].
    pub fn new(id: u16, name: &str) -> Result<Self, DnsError> {
        check_name(name)?;
        Ok(Self { id, name: name.to_owned() })
    }

    /// The message for the server. Over TCP its length stands before it, as a `u16` in network order.
    ///
    /// # Errors
    /// [`DnsError::BadName`].
    pub fn encode(&self) -> Result<Vec<u8>, DnsError> {
        encode(self.id, &self.name, TYPE::TXT)
    }

    /// The texts in the server's answer: those of the name, or of the name that it is an alias of. The strings of a record
    /// are joined; a record that is not UTF-8 is passed over.
    ///
    /// # Errors
    /// The message is none, answers something else, or says why there are no texts.
    pub fn read_answer(&self, message: &[u8]) -> Result<Vec<String>, DnsError> {
        read_answer(self.id, &self.name, TYPE::TXT, message, |data| match data {
            RData::TXT(text) => String::try_from(text).ok(),
            _ => None,
        })
    }
}

/// A question for the addresses of a host, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressQuery {
    id: u16,
    name: String,
    v6: bool,
}

impl AddressQuery {
    /// Asks for the IPv6 addresses of `name`, or for its IPv4 addresses. Otherwise as [`TextQuery::new`].
    ///
    /// # Errors
    /// [`DnsError::BadName`].
    pub fn new(id: u16, name: &str, v6: bool) -> Result<Self, DnsError> {
        check_name(name)?;
        Ok(Self { id, name: name.to_owned(), v6 })
    }

    /// As [`TextQuery::encode`].
    ///
    /// # Errors
    /// [`DnsError::BadName`].
    pub fn encode(&self) -> Result<Vec<u8>, DnsError> {
        encode(self.id, &self.name, self.kind())
    }

    /// The addresses in the server's answer: those of the name, or of the name that it is an alias of.
    ///
    /// # Errors
    /// As [`TextQuery::read_answer`].
    pub fn read_answer(&self, message: &[u8]) -> Result<Vec<IpAddr>, DnsError> {
        read_answer(self.id, &self.name, self.kind(), message, |data| match data {
            RData::A(a) if !self.v6 => Some(Ipv4Addr::from(a.address).into()),
            RData::AAAA(aaaa) if self.v6 => Some(Ipv6Addr::from(aaaa.address).into()),
            _ => None,
        })
    }

    fn kind(&self) -> TYPE {
        if self.v6 { TYPE::AAAA } else { TYPE::A }
    }
}

fn bad_name(name: &str) -> DnsError {
    DnsError::BadName(name.to_owned())
}

fn check_name(name: &str) -> Result<(), DnsError> {
    // The parser passes over empty parts, which would be another name.
    let has_gap = name.is_empty() || name.starts_with('.') || name.contains("..");
    if has_gap || Name::new(name).is_err() { Err(bad_name(name)) } else { Ok(()) }
}

fn encode(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, DnsError> {
    let parsed = Name::new(name).map_err(|_| bad_name(name))?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(parsed, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: MAX_DATAGRAM as u16, version: 0 });
    packet.build_bytes_vec().map_err(|_| bad_name(name))
}

/// What `pick` takes of the records in the answer to a question.
fn read_answer<T>(
    id: u16,
    name: &str,
    kind: TYPE,
    message: &[u8],
    pick: impl Fn(RData<'_>) -> Option<T>,
) -> Result<Vec<T>, DnsError> {
    check_counts(message)?;
    let packet = Packet::parse(message).map_err(|_| DnsError::Malformed)?;
    let mut owner = Name::new(name).map_err(|_| bad_name(name))?;
    let asked = packet.questions.iter().any(|question| {
        question.qname == owner
            && question.qtype == QTYPE::TYPE(kind)
            && question.qclass == QCLASS::CLASS(CLASS::IN)
    });
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
        return Err(DnsError::NotOurs);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Err(DnsError::Truncated);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(DnsError::NoSuchName),
        other => return Err(DnsError::Failed(format!("{other:?}"))),
    }
    let mut found = Vec::new();
    for record in packet.answers.into_iter().filter(|record| record.class == CLASS::IN) {
        match record.rdata {
            _ if record.name != owner => {}
            RData::CNAME(alias) => owner = alias.0,
            data => found.extend(pick(data)),
        }
    }
    Ok(found)
}

/// The name servers in the text of a `resolv.conf`, at most three; that of the machine itself if there are none.
pub fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.parse::<IpAddr>().ok()
    };
    let servers = resolv_conf.lines().filter_map(address).take(MAX_SERVERS);
    let servers: Vec<_> = servers.map(|ip| SocketAddr::new(ip, PORT)).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { servers }
}

/// The parser makes room for as many records as the header says, so that has to be possible.
fn check_counts(message: &[u8]) -> Result<(), DnsError> {
    let header = message.get(..HEADER).ok_or(DnsError::Malformed)?;
    let counts =
        header[4..].chunks_exact(2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    match counts.collect::<Vec<_>>()[..] {
        [0..=1, ref records @ ..] if records.iter().sum::<usize>() <= message.len() / RECORD => Ok(()),
        _ => Err(DnsError::Malformed),
    }
}

#[cfg(test)]
mod tests;
