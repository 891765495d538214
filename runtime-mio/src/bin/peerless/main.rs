//! The `peerless` command.

use std::{io, process::ExitCode};

mod app;
mod cli;
mod discover;
mod echo;
mod http;
mod identity;
mod listen;
mod metrics;
mod perf;
mod ping;
mod register;
mod relay;
mod rendezvous;
mod report;
mod session;
mod settings;
#[cfg(unix)]
mod status;
mod store;

use cli::{Cli, Command, NoCommand};
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
            // Nobody reads it: nothing is lost.
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
        Err(NoCommand::Wrong(sentence)) => return usage(&sentence),
    };
    log_to_stderr(cli.common.verbose);
    let report = Reporter::new(cli.common.json);
    match run(&cli, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(sentence)) => usage(&sentence),
        Err(Failure::Failed(message)) => {
            report.line(&Line::Error { message });
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, report: Reporter) -> Result<(), Failure> {
    match &cli.command {
        Command::Id => {
            report.line(&Line::Id { peer: identity::load(&cli.common)?.peer().to_string() });
            Ok(())
        }
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
    eprintln!("peerless: {sentence}");
    ExitCode::from(2)
}

/// `RUST_LOG` is obeyed where it is set, else the flag decides.
fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::{EnvFilter, fmt};
    let default =
        ["off", "peerless=debug,peerless_mio=debug,peerless_core=debug", "trace"][verbose.min(2) as usize];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    fmt().with_env_filter(filter).with_writer(io::stderr).init();
}
