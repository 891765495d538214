//! The command as a process.

#![allow(dead_code, reason = "no test uses all of it")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

/// More than anything here takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `peerless --json`, killed when dropped.
pub(crate) struct Peerless {
    pub(crate) child: Child,
    pub(crate) events: Receiver<Value>,
}

impl Peerless {
    pub(crate) fn start(args: &str) -> Self {
        let mut child = command(&format!("--json {args}")).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, events) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::Builder::new()
            .spawn(move || {
                for line in lines {
                    let line = line.unwrap();
                    assert!(line.starts_with(r#"{"event":""#), "{line}");
                    if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                        return;
                    }
                }
            })
            .unwrap();
        Self { child, events }
    }

    /// The next event of that name; others are passed over.
    pub(crate) fn event(&self, name: &str) -> Value {
        let mut seen = Vec::new();
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(event) if event["event"] == name => return event,
                Ok(event) => seen.push(event),
                Err(error) => panic!("no {name} ({error}) after {seen:?}"),
            }
        }
    }

    pub(crate) fn address(&self) -> String {
        text(&self.event("listening"), "address").to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Peerless {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerless"));
    command.args(args.split_whitespace()).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

pub(crate) fn run(args: &str) -> Output {
    command(args).output().unwrap()
}

/// The events of a command that ends by itself, and its exit code.
pub(crate) fn run_json(args: &str) -> (Vec<Value>, i32) {
    let output = run(&format!("--json --ephemeral {args}"));
    let events = String::from_utf8(output.stdout).unwrap();
    (events.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code().unwrap())
}

pub(crate) fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

pub(crate) fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_else(|| panic!("no {field} in {event}"))
}

pub(crate) fn peer_of(address: &str) -> &str {
    address.rsplit('/').next().unwrap()
}

pub(crate) const ANY_PORT: &str = "--listen /ip4/127.0.0.1/udp/0/quic-v1";

pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

/// What a GET brings: status line, header and body.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a sample, by its name and labels as they are written.
pub(crate) fn sample(metrics: &str, series: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}
