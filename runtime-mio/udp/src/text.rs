//! TXT records, from the name servers themselves: the standard library does not ask for them.

use std::{
    fs, io,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use peerless_proto::dns::{self, DnsError, TextQuery};

/// Where the system says whom to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one server has for one answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ROUNDS: usize = 2;

/// Why one server did not answer the question.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error("no answer within {TIMEOUT:?}")]
    Silent,
}

/// Asks the servers in turn, or those of the system if there are none, until one answers.
///
/// # Errors
/// Why not, in words.
pub fn look_up(name: &str, name_servers: &[SocketAddr]) -> Result<Vec<String>, String> {
    TextQuery::new(0, name).map_err(|error| error.to_string())?;
    let servers = match name_servers {
        [] => system_servers()?,
        given => given.to_vec(),
    };
    let mut why = Vec::new();
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match ask(*server, name) {
            Ok(texts) => return Ok(texts),
            Err(Failure::Dns(DnsError::NoSuchName)) => return Err(DnsError::NoSuchName.to_string()),
            Err(failure) => why.push(format!("name server {server}: {failure}")),
        }
    }
    why.truncate(servers.len());
    Err(why.join("; "))
}

fn system_servers() -> Result<Vec<SocketAddr>, String> {
    let text = fs::read_to_string(RESOLV_CONF)
        .map_err(|error| format!("no name server is known: cannot read {RESOLV_CONF}: {error}"))?;
    Ok(dns::name_servers(&text))
}

/// Over UDP, and over TCP if the answer is too long for that.
fn ask(server: SocketAddr, name: &str) -> Result<Vec<String>, Failure> {
    let id = getrandom::u32().map_err(io::Error::other)? as u16;
    let query = TextQuery::new(id, name)?;
    match over_udp(server, &query) {
        Err(Failure::Dns(DnsError::Truncated)) => over_tcp(server, &query),
        result => result,
    }
}

fn over_udp(server: SocketAddr, query: &TextQuery) -> Result<Vec<String>, Failure> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(&query.encode()?)?;
    let patience = Patience::start();
    let (mut buffer, mut refused) = ([0; dns::MAX_DATAGRAM], None);
    loop {
        let received = patience.left().and_then(|left| {
            socket.set_read_timeout(Some(left))?;
            Ok(socket.recv(&mut buffer)?)
        });
        let length = match received {
            // What was wrong with the answers that came says more than that none was right.
            Err(Failure::Silent) => return Err(refused.map_or(Failure::Silent, Failure::Dns)),
            received => received?,
        };
        match query.read_answer(&buffer[..length]) {
            // Anybody can send such; the server's own may yet come.
            Err(error @ (DnsError::Malformed | DnsError::NotOurs)) => refused = Some(error),
            result => return Ok(result?),
        }
    }
}

fn over_tcp(server: SocketAddr, query: &TextQuery) -> Result<Vec<String>, Failure> {
    let patience = Patience::start();
    let question = query.encode()?;
    let mut message = (question.len() as u16).to_be_bytes().to_vec();
    message.extend(question);
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.write_all(&message)?;
    let mut read = |length: usize| {
        let (mut bytes, mut filled) = (vec![0; length], 0);
        while filled < length {
            stream.set_read_timeout(Some(patience.left()?))?;
            match stream.read(&mut bytes[filled..])? {
                0 => return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
                count => filled += count,
            }
        }
        Ok(bytes)
    };
    let length = read(2)?;
    Ok(query.read_answer(&read(usize::from(u16::from_be_bytes([length[0], length[1]])))?)?)
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What systems call a timeout of a socket.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

/// What is left of [`TIMEOUT`].
struct Patience(Instant);

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "what waits for a name server needs a clock")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn left(&self) -> Result<Duration, Failure> {
        TIMEOUT.checked_sub(self.0.elapsed()).filter(|left| !left.is_zero()).ok_or(Failure::Silent)
    }
}
