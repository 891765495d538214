//! What names stand for: from the hosts file, the name servers, and the system's own resolver.

use std::{
    fs, io,
    io::{Read as _, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use peerless_core::names::Family;
use peerless_proto::dns::{self, AddressQuery, DnsError, TextQuery};

/// Where the system says whom to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where it says what some names stand for.
const HOSTS: &str = "/etc/hosts";
/// How long one server has for an answer, in the first round and in the second.
const TIMEOUTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How long the answer for one family of addresses waits for that for the other, once it is there (RFC 8305 section 3 has
/// 50 ms, after which addresses may still be added; here they may not).
const OTHER_FAMILY: Duration = Duration::from_millis(300);

/// What a question is answered with: what was found, or why nothing was, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses of the families that were asked for, and maybe others.
    Host(Result<Vec<IpAddr>, String>),
    /// Texts, in the order in which the server has them.
    Text(Result<Vec<String>, String>),
}

/// Why one server did not answer the question.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error("no answer in time")]
    Silent,
}

impl Failure {
    /// Whether other servers would say the same.
    fn is_final(&self) -> bool {
        matches!(self, Self::Dns(DnsError::NoSuchName))
    }
}

/// Reads an answer.
type Read<'a, T> = dyn Fn(&[u8]) -> Result<Vec<T>, DnsError> + 'a;

/// One message to a server, and how its answer is read.
struct Ask<'a, T> {
    message: Vec<u8>,
    read: Box<Read<'a, T>>,
}

/// Whom to ask.
#[derive(Debug)]
pub(crate) struct Names {
    /// Asked alone, if there are any.
    given: Vec<SocketAddr>,
    /// Which server answered last: it is asked first, so that one that is dead delays one name and no more.
    preferred: AtomicUsize,
}

impl Names {
    pub(crate) fn new(given: Vec<SocketAddr>) -> Self {
        Self { given, preferred: AtomicUsize::new(0) }
    }

    /// The TXT records of a name.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        TextQuery::new(0, name).map_err(|error| error.to_string())?;
        self.each(&self.servers()?, |server, timeout| {
            let query = TextQuery::new(random_id()?, name)?;
            let ask = Ask { message: query.encode()?, read: Box::new(|bytes| query.read_answer(bytes)) };
            exchange(server, &[ask], timeout)
        })
        .map_err(|(error, _)| error)
    }

    /// The addresses of a host, from whoever knows first: the hosts file, the name servers, the system.
    ///
    /// The system's own resolver knows more than they do (search domains, mDNS, whatever else nsswitch.conf names), but may
    /// hang for half a minute. So it is asked for what is not in the DNS: names of one part, `.local`, and names of which a
    /// server has just said that they do not exist. It is not asked if the embedder has named servers.
    pub(crate) fn addresses(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, String> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let hosts = fs::read_to_string(HOSTS).unwrap_or_default();
        let listed = listed(&hosts, name, family);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let may_ask_system = self.given.is_empty();
        let trimmed = name.trim_end_matches('.');
        let is_local = !trimmed.contains('.') || trimmed.to_ascii_lowercase().ends_with(".local");
        let servers = match self.servers() {
            Ok(servers) if !(is_local && may_ask_system) => servers,
            Err(error) if !may_ask_system => return Err(error),
            _ => return system(name),
        };
        let families: &[bool] = match family {
            Family::V4 => &[false],
            Family::V6 => &[true],
            Family::Any => &[true, false],
        };
        let found = self.each(&servers, |server, timeout| {
            let query = |v6: &bool| Ok::<_, Failure>(AddressQuery::new(random_id()?, name, *v6)?);
            let queries = families.iter().map(query).collect::<Result<Vec<_>, _>>()?;
            let ask = |query| {
                Ok::<_, Failure>(Ask {
                    message: AddressQuery::encode(query)?,
                    read: Box::new(|bytes| query.read_answer(bytes)),
                })
            };
            exchange(server, &queries.iter().map(ask).collect::<Result<Vec<_>, _>>()?, timeout)
        });
        match found {
            Err((_, true)) if may_ask_system => system(name),
            found => found.map_err(|(error, _)| error),
        }
    }

    fn servers(&self) -> Result<Vec<SocketAddr>, String> {
        if !self.given.is_empty() {
            return Ok(self.given.clone());
        }
        let text = fs::read_to_string(RESOLV_CONF)
            .map_err(|error| format!("no name server is known: cannot read {RESOLV_CONF}: {error}"))?;
        Ok(dns::name_servers(&text))
    }

    /// Asks the servers in turn, twice, until one answers. Else why none did, in words, and whether there is no such name.
    fn each<T>(
        &self,
        servers: &[SocketAddr],
        mut ask: impl FnMut(SocketAddr, Duration) -> Result<T, Failure>,
    ) -> Result<T, (String, bool)> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut why = Vec::new();
        for timeout in TIMEOUTS {
            for turn in 0..servers.len() {
                let at = (first + turn) % servers.len();
                let outcome = ask(servers[at], timeout);
                if outcome.as_ref().err().is_none_or(Failure::is_final) {
                    self.preferred.store(at, Ordering::Relaxed);
                }
                match outcome {
                    Ok(found) => return Ok(found),
                    Err(failure) if failure.is_final() => return Err((failure.to_string(), true)),
                    Err(Failure::Silent) => {
                        why.push(format!("name server {}: no answer within {timeout:?}", servers[at]));
                    }
                    Err(failure) => why.push(format!("name server {}: {failure}", servers[at])),
                }
            }
        }
        // Those of the second round, which had more time.
        why.drain(..why.len() - servers.len().min(why.len()));
        Err((why.join("; "), false))
    }
}

/// What the system says, however long that takes.
fn system(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

/// What a hosts file has for a name.
fn listed(hosts: &str, name: &str, family: Family) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip = words.next()?.parse::<IpAddr>().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    };
    hosts.lines().filter_map(entry).filter(|ip| family.takes(ip)).collect()
}

fn random_id() -> Result<u16, Failure> {
    Ok(getrandom::u32().map_err(io::Error::other)? as u16)
}

/// Asks one server over UDP, and over TCP what is too long for that. Finds what any answer has; if none has anything, it is
/// the first that failed that says why.
fn exchange<T>(server: SocketAddr, asks: &[Ask<'_, T>], timeout: Duration) -> Result<Vec<T>, Failure> {
    let (mut found, mut failed) = (Vec::new(), None);
    for (ask, result) in asks.iter().zip(over_udp(server, asks, timeout)?) {
        let result = match result {
            Err(Failure::Dns(DnsError::Truncated)) => over_tcp(server, ask, timeout),
            result => result,
        };
        match result {
            Ok(mut records) => found.append(&mut records),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

fn over_udp<T>(
    server: SocketAddr,
    asks: &[Ask<'_, T>],
    timeout: Duration,
) -> Result<Vec<Result<Vec<T>, Failure>>, Failure> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    for ask in asks {
        socket.send(&ask.message)?;
    }
    let mut patience = Patience::of(timeout);
    let mut buffer = [0; dns::MAX_DATAGRAM];
    let mut results: Vec<Option<Result<Vec<T>, Failure>>> = asks.iter().map(|_| None).collect();
    let mut refused = None;
    while results.iter().any(Option::is_none) {
        let received = patience.left().and_then(|left| {
            socket.set_read_timeout(Some(left))?;
            Ok(socket.recv(&mut buffer)?)
        });
        let length = match received {
            Ok(length) => length,
            Err(Failure::Silent) => break,
            Err(error) => return Err(error),
        };
        // Anybody can send what is not ours; the server's own answer may yet come.
        for (ask, result) in asks.iter().zip(&mut results).filter(|(_, result)| result.is_none()) {
            match (ask.read)(&buffer[..length]) {
                Err(error @ (DnsError::Malformed | DnsError::NotOurs)) => refused = Some(error),
                read => {
                    if read.as_ref().is_ok_and(|records| !records.is_empty()) {
                        patience.shorten(OTHER_FAMILY);
                    }
                    *result = Some(read.map_err(Failure::Dns));
                }
            }
        }
    }
    // What was wrong with the answers that came says more than that none was right.
    let silent = |refused: &Option<DnsError>| refused.clone().map_or(Failure::Silent, Failure::Dns);
    let is_answered = results.iter().any(Option::is_some);
    let refused = refused.filter(|_| !is_answered);
    Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(silent(&refused)))).collect())
}

fn over_tcp<T>(server: SocketAddr, ask: &Ask<'_, T>, timeout: Duration) -> Result<Vec<T>, Failure> {
    let patience = Patience::of(timeout);
    let mut message = (ask.message.len() as u16).to_be_bytes().to_vec();
    message.extend(&ask.message);
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
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
    Ok((ask.read)(&read(usize::from(u16::from_be_bytes([length[0], length[1]])))?)?)
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

/// How long is still waited.
struct Patience(Instant);

#[expect(clippy::disallowed_methods, reason = "what waits for a name server needs a clock")]
impl Patience {
    fn of(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    fn shorten(&mut self, time: Duration) {
        self.0 = self.0.min(Instant::now() + time);
    }

    fn left(&self) -> Result<Duration, Failure> {
        let left = self.0.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Failure::Silent) } else { Ok(left) }
    }
}

#[cfg(test)]
mod tests;
