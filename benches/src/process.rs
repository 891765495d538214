//! Other programs as child processes: their NDJSON, and the processor time that they and everybody else use.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// `/proc` counts in hundredths of a second (`USER_HZ`) on every architecture that Linux is much used on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that prints events, one JSON object a line. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{name}: {error}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| format!("{name}: no output"))?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.to_owned(), child, lines })
    }

    /// The next event of that kind; others are passed over.
    ///
    /// # Errors
    /// If it reports an error, ends or says nothing of the kind in time.
    pub fn wait_for(&self, event: &str, patience: Duration) -> Result<Value, String> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    format!("{}: no `{event}` within {} s", self.name, patience.as_secs())
                }
                RecvTimeoutError::Disconnected => format!("{}: ended before `{event}`", self.name),
            })?;
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            match value["event"].as_str() {
                Some(found) if found == event => return Ok(value),
                Some("error") => return Err(format!("{}: {}", self.name, value["message"])),
                _ => {}
            }
        }
    }

    /// Waits for its end, so that its processor time is counted among that of our children.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn join(mut self) -> Result<(), String> {
        self.child.wait().map(drop).map_err(|error| format!("{}: {error}", self.name))
    }

    /// User and system time it has used so far, all threads together, in seconds.
    ///
    /// # Errors
    /// If it is gone, or there is no `/proc`.
    pub fn cpu_seconds(&self) -> Result<f64, String> {
        let [user, system, ..] = cpu_fields(&self.child.id().to_string())?;
        Ok((user + system) / TICKS_PER_SECOND)
    }

    /// Memory of it that is in use now.
    ///
    /// # Errors
    /// If it is gone, or there is no `/proc`.
    pub fn rss_bytes(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        parse_rss(&read(&path)?).ok_or_else(|| format!("{path} is not as expected"))
    }

    /// How often its threads have gone to sleep, all together, and so have been woken up.
    ///
    /// # Errors
    /// If it is gone, or there is no `/proc`.
    pub fn wakeups(&self) -> Result<u64, String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut count = 0;
        for task in fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))? {
            let path = task.map_err(|error| format!("{tasks}: {error}"))?.path().join("status");
            let status = read(&path.to_string_lossy())?;
            let value = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let value = value.and_then(|value| value.trim().parse::<u64>().ok());
            count += value.ok_or_else(|| format!("{} is not as expected", path.display()))?;
        }
        Ok(count)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor seconds used so far by the whole machine, and by this process and those of its children that have ended.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    at: Instant,
    machine: f64,
    ours: f64,
}

impl Usage {
    /// As of now.
    ///
    /// # Errors
    /// If there is no `/proc`.
    pub fn now() -> Result<Self, String> {
        let stat = read("/proc/stat")?;
        let total = stat.lines().next().unwrap_or_default();
        let fields: Vec<f64> = total.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal.
        let [user, nice, system, _, _, irq, softirq, steal, ..] = fields[..] else {
            return Err("/proc/stat is not as expected".into());
        };
        let machine = (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND;
        let ours = cpu_fields("self")?.iter().sum::<f64>() / TICKS_PER_SECOND;
        Ok(Self { at: Instant::now(), machine, ours })
    }

    /// Seconds used since `earlier` by us and by those of our children that ended meanwhile, all their time included.
    pub fn ours_since(&self, earlier: &Self) -> f64 {
        self.ours - earlier.ours
    }

    /// How much of a core was used since `earlier` by whoever is not us, nor our children, of which those that are
    /// still there used `running` seconds.
    pub fn others_since(&self, earlier: &Self, running: f64) -> f64 {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        let others = (self.machine - earlier.machine) - (self.ours - earlier.ours) - running;
        others.max(0.0) / seconds.max(1e-3)
    }
}

/// utime, stime, cutime and cstime of a process, in ticks (proc(5)).
fn cpu_fields(pid: &str) -> Result<[f64; 4], String> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    parse_cpu(&stat).ok_or_else(|| format!("/proc/{pid}/stat is not as expected"))
}

fn parse_cpu(stat: &str) -> Option<[f64; 4]> {
    // The name stands in parentheses and may hold anything, also parentheses and spaces.
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> =
        after_name.split_whitespace().skip(11).take(4).filter_map(|f| f.parse().ok()).collect();
    ticks.try_into().ok()
}

/// Of `/proc/PID/status`, in bytes.
fn parse_rss(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_whatever_the_name() {
        let stat = "17 (a) b (c) S 1 2 3 4 -1 64 101 0 0 0 250 50 7 3 20 0 1 0 306332 3133440";
        assert_eq!(parse_cpu(stat), Some([250.0, 50.0, 7.0, 3.0]));
        assert_eq!(parse_cpu("17 (a) S 1"), None);
    }

    #[test]
    fn memory_is_in_kilobytes() {
        assert_eq!(parse_rss("VmSize:\t  9 kB\nVmRSS:\t  2048 kB\nThreads:\t1\n"), Some(2_097_152.0));
        assert_eq!(parse_rss("Threads:\t1\n"), None);
    }

    #[test]
    fn what_is_neither_ours_nor_our_childrens_is_others() {
        let at = Instant::now();
        let before = Usage { at, machine: 100.0, ours: 10.0 };
        let after = Usage { at: at + Duration::from_secs(4), machine: 107.0, ours: 12.0 };
        assert_eq!(after.others_since(&before, 3.0), 0.5);
        assert_eq!(after.others_since(&before, 6.0), 0.0);
    }

    #[test]
    fn events_are_picked_from_the_output() {
        let script = r#"echo noise; echo '{"event":"other"}'; echo '{"event":"wanted","n":3}'; echo '{"event":"error","message":"no"}'"#;
        let process = Process::start("script", Command::new("sh").args(["-c", script])).unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(process.wait_for("wanted", patience).unwrap()["n"], 3);
        assert_eq!(process.wait_for("wanted", patience), Err("script: \"no\"".into()));
        assert_eq!(process.wait_for("wanted", patience), Err("script: ended before `wanted`".into()));
        assert_eq!(process.cpu_seconds().is_ok(), cfg!(target_os = "linux"));
        process.join().unwrap();
    }
}
