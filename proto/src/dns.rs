//! The TXT records of a name, which is where `/dnsaddr` addresses are published: one question to a name server and what
//! comes back; see [RFC 1035](https://www.rfc-editor.org/rfc/rfc1035).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
        // The parser passes over empty parts, which would be another name.
        let has_gap = name.is_empty() || name.starts_with('.') || name.contains("..");
        if has_gap || Name::new(name).is_err() {
            return Err(DnsError::BadName(name.to_owned()));
        }
        Ok(Self { id, name: name.to_owned() })
    }

    /// The message for the server. Over TCP its length stands before it, as a `u16` in network order.
    ///
    /// # Errors
    /// [`DnsError::BadName`].
    pub fn encode(&self) -> Result<Vec<u8>, DnsError> {
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(
            self.parsed_name()?,
            QTYPE::TYPE(TYPE::TXT),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        *packet.opt_mut() =
            Some(OPT { opt_codes: Vec::new(), udp_packet_size: MAX_DATAGRAM as u16, version: 0 });
        packet.build_bytes_vec().map_err(|_| self.bad_name())
    }

    /// The texts in the server's answer: those of the name, or of the name that it is an alias of. The strings of a record
    /// are joined; a record that is not UTF-8 is passed over.
    ///
    /// # Errors
    /// The message is none, answers something else, or says why there are no texts.
    pub fn read_answer(&self, message: &[u8]) -> Result<Vec<String>, DnsError> {
        check_counts(message)?;
        let packet = Packet::parse(message).map_err(|_| DnsError::Malformed)?;
        let name = self.parsed_name()?;
        let asked = packet.questions.iter().any(|question| {
            question.qname == name
                && question.qtype == QTYPE::TYPE(TYPE::TXT)
                && question.qclass == QCLASS::CLASS(CLASS::IN)
        });
        if packet.id() != self.id || !packet.has_flags(PacketFlag::RESPONSE) || !asked {
            return Err(DnsError::NotOurs);
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Err(DnsError::Truncated);
        }
        match packet.rcode() {
            RCODE::NoError => Ok(texts_of(name, packet)),
            RCODE::NameError => Err(DnsError::NoSuchName),
            other => Err(DnsError::Failed(format!("{other:?}"))),
        }
    }

    fn parsed_name(&self) -> Result<Name<'_>, DnsError> {
        Name::new(&self.name).map_err(|_| self.bad_name())
    }

    fn bad_name(&self) -> DnsError {
        DnsError::BadName(self.name.clone())
    }
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

fn texts_of<'a>(mut owner: Name<'a>, packet: Packet<'a>) -> Vec<String> {
    let mut texts = Vec::new();
    for record in packet.answers.into_iter().filter(|record| record.class == CLASS::IN) {
        match record.rdata {
            _ if record.name != owner => {}
            RData::CNAME(alias) => owner = alias.0,
            RData::TXT(text) => texts.extend(String::try_from(text)),
            _ => {}
        }
    }
    texts
}

#[cfg(test)]
mod tests;
