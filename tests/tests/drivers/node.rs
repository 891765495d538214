//! The examples as processes.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

pub(crate) const DRIVERS: [&str; 5] = ["mio_node", "async_std_node", "smol_node", "tokio_node", "std_node"];
pub(crate) const ANY_PORT: &str = "--listen /ip4/127.0.0.1/udp/0/quic-v1";
/// More than anything here takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running example, killed when dropped.
pub(crate) struct Node {
    name: String,
    child: Child,
    lines: Receiver<Value>,
    /// Every line that was taken.
    seen: RefCell<Vec<Value>>,
}

impl Node {
    pub(crate) fn start(driver: &str, args: &str) -> Self {
        Self::start_with(driver, args, &[])
    }

    /// With variables in its environment.
    pub(crate) fn start_with(driver: &str, args: &str, env: &[(&str, &Path)]) -> Self {
        Self::spawn(Command::new(example(driver)), driver, args, env)
    }

    /// In the network of another process.
    pub(crate) fn start_at(process: u32, driver: &str, args: &str) -> Self {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &process.to_string()]).arg(example(driver));
        Self::spawn(command, driver, args, &[])
    }

    fn spawn(mut command: Command, driver: &str, args: &str, env: &[(&str, &Path)]) -> Self {
        command.args(args.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.envs(env.iter().copied());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{driver}: {error}"));
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let read = move || {
            for line in output {
                let line = line.unwrap();
                assert!(line.starts_with(r#"{"event":""#), "{line}");
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().spawn(read).unwrap();
        Self { name: format!("{driver} {args}"), child, lines, seen: RefCell::default() }
    }

    /// The next line of an event of that name; others are passed over.
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line =
                line.unwrap_or_else(|error| panic!("{}: no {name} ({error}): {:?}", self.name, self.seen));
            self.seen.borrow_mut().push(line.clone());
            if line["event"] == name {
                return line;
            }
        }
    }

    /// The events of that name among those that were taken.
    pub(crate) fn taken(&self, name: &str) -> Vec<Value> {
        self.seen.borrow().iter().filter(|line| line["event"] == name).cloned().collect()
    }

    pub(crate) fn address(&self) -> String {
        self.event("listening")["address"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a process that ends by itself: its exit code and all its lines.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<Value>) {
        // The lines end with the process.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.get_mut().push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{}: {error} after {:?}", self.name, self.seen),
            }
        }
        let (code, mut lines) = (self.child.wait().unwrap().code(), self.seen.take());
        // Whatever it did, and whatever was interrupted, it has let go of all of it.
        let left = lines.iter().position(|line| line["event"] == "left").map(|at| lines.remove(at));
        let left = left.unwrap_or_else(|| panic!("{}: ended with {code:?} after {lines:?}", self.name));
        let held = left.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
        assert_eq!(held, 0, "{}: {left}", self.name);
        (code, lines)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// What it has used of the processor so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name of the command, in parentheses, may be anything; then come the fields from the third on.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // A hundred a second, on every Linux.
        Duration::from_millis(10 * ticks)
    }

    pub(crate) fn terminate(self) -> (Option<i32>, Vec<Value>) {
        self.signal("TERM");
        self.end()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
    }
}

/// Cargo builds the examples of this package beside its tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples").join(name)
}

pub(crate) fn listen(driver: &str) -> (Node, String) {
    let node = Node::start(driver, &format!("listen {ANY_PORT}"));
    let address = node.address();
    (node, address)
}

/// Runs an echo that must succeed; returns how many bytes came back.
pub(crate) fn echo(driver: &str, address: &str, bytes: u64, streams: u64) -> u64 {
    let node = Node::start(driver, &format!("echo {address} --bytes {bytes} --streams {streams}"));
    let name = node.name.clone();
    let (code, lines) = node.end();
    let verdict = lines.iter().find(|line| line["event"] == "echo");
    let verdict = verdict.unwrap_or_else(|| panic!("{name}: no verdict in {lines:?}"));
    assert_eq!((code, &verdict["ok"]), (Some(0), &Value::Bool(true)), "{name}: {lines:?}");
    verdict["bytes"].as_u64().unwrap()
}

pub(crate) fn named(lines: &[Value], name: &str) -> usize {
    lines.iter().filter(|line| line["event"] == name).count()
}
