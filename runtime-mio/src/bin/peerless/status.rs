//! `peerless status`, and the local socket through which a running node answers it.

use std::{
    fmt, fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use peerless_core::{
    names::Direction,
    node::Node,
    swarm::{resources::Usage, table::ConnectionInfo},
    time::Instant,
};
use peerless_mio::Handle;
use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    clients::{self, Client, Deadline},
    report::{Line, Reporter, Span},
};

/// How long the node may take to answer, and then either side until all of it is through.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who is answered at a time.
const CLIENTS: usize = 8;
/// Most bytes of an answer that are read: more than the rows of a hundred thousand connections.
const MAX_ANSWER: usize = 64 << 20;

/// Whom a node is connected to, and what it holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    peer: String,
    connections: Vec<Row>,
    inbound_streams: usize,
    outbound_streams: usize,
    memory: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    peer: String,
    direction: String,
    transport: String,
    address: String,
    /// The latest round-trip time, in microseconds.
    rtt_us: Option<u64>,
    streams: usize,
    /// Seconds since it was established.
    age: u64,
    /// The sum of the peer's tags, and each of them.
    value: i64,
    tags: Vec<(String, i64)>,
    /// Why it is spared from pruning, if it is.
    protected: Vec<String>,
}

/// Asks the node behind the socket, and prints what it answers.
pub(crate) fn run(control: Option<&Path>, report: Reporter) -> Result<(), Failure> {
    let Some(path) = control else {
        return Err(Failure::Usage("status needs the --control PATH that the running node was given".into()));
    };
    let failed =
        |error: &dyn fmt::Display| Failure::Failed(format!("no node answers at {}: {error}", path.display()));
    let stream = UnixStream::connect(path).map_err(|error| failed(&error))?;
    let answer = read(&stream, Deadline::after(2 * PATIENCE)).map_err(|error| failed(&error))?;
    let status = serde_json::from_slice(&answer).map_err(|error| failed(&error))?;
    report.result(&Line::Status(status));
    Ok(())
}

/// The socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
}

impl Control {
    /// Answers at `path` until the process ends.
    pub(crate) fn serve(path: &Path, node: Handle) -> Result<Self, Failure> {
        let listener = bind(path)?;
        let control = Self { path: path.to_owned() };
        let accept = move || listener.accept().map(|(stream, _)| stream);
        clients::serve("control", CLIENTS, accept, move |stream| answer(stream, &node))?;
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // If somebody else has removed it, so much the better.
        let _ = fs::remove_file(&self.path);
    }
}

/// Only the user may connect. The socket of a node that is gone is replaced; any other file is not.
fn bind(path: &Path) -> Result<UnixListener, Failure> {
    let name = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Failure::Usage(format!(
                "{name} is there already and no socket; --control needs a new path"
            )));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(Failure::Usage(format!(
                "another node answers at {name}; --control needs a path of its own"
            )));
        }
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    let cannot = |error: io::Error| Failure::Usage(format!("cannot make the socket {name}: {error}"));
    let listener = UnixListener::bind(path).map_err(cannot)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    Ok(listener)
}

fn answer(stream: &UnixStream, node: &Handle) -> io::Result<()> {
    let status = node.call_within(PATIENCE, status).map_err(io::Error::other)?;
    clients::answer(stream, &serde_json::to_vec(&status)?, Deadline::after(PATIENCE))
}

fn read(stream: &UnixStream, deadline: Deadline) -> io::Result<Vec<u8>> {
    let (mut answer, mut buffer) = (Vec::new(), [0; 64 << 10]);
    while answer.len() < MAX_ANSWER {
        match stream.read_within(&mut buffer, deadline.left()?)? {
            0 => break,
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(answer)
}

fn status(node: &mut Node, now: Instant) -> Status {
    let Usage { inbound_streams, outbound_streams, memory, .. } = node.swarm().resources().system();
    let mut connections: Vec<_> = node.connections().iter().map(|info| row(node, now, info)).collect();
    connections.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.peer.cmp(&b.peer)));
    Status { peer: node.local_peer().to_string(), connections, inbound_streams, outbound_streams, memory }
}

fn row(node: &Node, now: Instant, info: &ConnectionInfo) -> Row {
    let tags = node.swarm().tags().info(now, &info.peer);
    Row {
        peer: info.peer.to_string(),
        direction: match info.direction {
            Direction::Inbound => "inbound".into(),
            Direction::Outbound => "outbound".into(),
        },
        transport: if info.relayed.is_some() { "relay".into() } else { "quic".into() },
        address: info.remote.to_string(),
        rtt_us: node.round_trip(info.id).map(|rtt| rtt.as_micros() as u64),
        streams: node.streams_on(info.id),
        age: now.saturating_duration_since(info.established).as_secs(),
        value: tags.as_ref().map_or(0, |tags| tags.value),
        tags: tags.iter().flat_map(|it| &it.tags).map(|(tag, value)| (tag.to_string(), *value)).collect(),
        protected: tags.iter().flat_map(|it| &it.protections).map(ToString::to_string).collect(),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, connections, inbound_streams, outbound_streams, memory } = self;
        let streams = inbound_streams + outbound_streams;
        write!(
            f,
            "{peer}: connections {}, streams {streams}, memory {} KiB",
            connections.len(),
            memory >> 10
        )?;
        if connections.is_empty() {
            return Ok(());
        }
        let header = ["DIRECTION", "TRANSPORT", "RTT", "STREAMS", "AGE", "TAGS", "PEER", "ADDRESS"];
        let mut table = vec![header.map(str::to_owned)];
        table.extend(connections.iter().map(Row::cells));
        let width = |n: usize| table.iter().map(|cells| cells[n].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..header.len()).map(width).collect();
        for cells in &table {
            let line: Vec<_> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            write!(f, "\n{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self) -> [String; 8] {
        let tags = self.tags.iter().map(|(tag, value)| format!("{tag}={value}"));
        let protected = self.protected.iter().map(|why| format!("!{why}"));
        let tags: Vec<_> = tags.chain(protected).collect();
        [
            self.direction.clone(),
            self.transport.clone(),
            self.rtt_us.map_or("-".into(), |us| format!("{}.{} ms", us / 1000, us % 1000 / 100)),
            self.streams.to_string(),
            Span(Duration::from_secs(self.age)).to_string(),
            if tags.is_empty() { "-".into() } else { tags.join(",") },
            self.peer.clone(),
            self.address.clone(),
        ]
    }
}
