//! The `peerless` command.

use std::{
    io::{self, Write},
    process::ExitCode,
};

mod allowance;
mod announce;
mod app;
mod cli;
mod clients;
mod discover;
mod echo;
mod http;
mod identity;
mod lines;
mod listen;
mod logs;
mod metrics;
mod notice;
mod perf;
mod ping;
mod register;
mod relay;
mod rendezvous;
mod report;
mod session;
mod settings;
mod signals;
#[cfg(unix)]
mod status;
mod store;
mod told;

use cli::{Cli, Command, NoCommand};
use lines::Room;
use report::{Line, Reporter};

/// Why a command did not do what it was told to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// What was asked for makes no sense here: exit code 2.
    Usage(String),
    /// It did not work: exit code 1.
    Failed(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(NoCommand::Show(text)) => {
            return match text.print() {
                // Whoever has read enough goes.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
                _ => ExitCode::SUCCESS,
            };
        }
        Err(NoCommand::Wrong(sentence)) => return usage(&sentence),
    };
    let report = match Reporter::start(cli.common.json) {
        Ok(report) => report,
        Err(error) => return usage(&format!("stdout and stderr cannot be written: {error}")),
    };
    let outcome = logs::start(report.logs(), cli.common.verbose).and_then(|()| run(&cli, report));
    let is_to_be_read = !cli.command.serves();
    let is_success = outcome.is_ok();
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(sentence)) => {
            report.aside(&format!("peerless: {sentence}"));
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            report.result(&Line::Error { message });
            ExitCode::FAILURE
        }
    };
    report.flush(is_to_be_read);
    // It has said on stderr why.
    if is_success && is_to_be_read && report.room() == Room::Never { ExitCode::FAILURE } else { code }
}

fn run(cli: &Cli, report: Reporter) -> Result<(), Failure> {
    match &cli.command {
        Command::Id => identity::tell(&cli.common, report),
        Command::Relay(args) => relay::run(&cli.common, args, report),
        Command::Rendezvous(args) => rendezvous::run(&cli.common, args, report),
        Command::Register(args) => register::run(&cli.common, args, report),
        Command::Discover(args) => discover::run(&cli.common, args, report),
        Command::Listen(args) => listen::run(&cli.common, args, report),
        Command::Ping(args) => ping::run(&cli.common, args, report),
        Command::Perf(args) => perf::run(&cli.common, args, report),
        #[cfg(unix)]
        Command::Status => status::run(cli.common.control.as_deref(), report),
        Command::Echo(args) => echo::run(&cli.common, args, report),
    }
}

fn usage(sentence: &str) -> ExitCode {
    // The code says it too.
    let _ = writeln!(io::stderr(), "peerless: {sentence}");
    ExitCode::from(2)
}
