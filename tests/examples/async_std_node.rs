//! A node on async-std.

mod shared;

use std::{io, process::ExitCode};

use peerless_async_std::{Config, spawn};
use shared::{Options, aio, finish};

fn main() -> io::Result<ExitCode> {
    let options = Options::from_args();
    let config = Config { listen: options.listen.clone(), seed: Some(options.seed), ..Config::default() };
    async_std::task::block_on(async {
        let handle = spawn(options.node(), config)?;
        let spawn = |task| _ = async_std::task::spawn::<aio::Task, ()>(task);
        Ok(finish(aio::run(handle, &options, spawn).await))
    })
}
