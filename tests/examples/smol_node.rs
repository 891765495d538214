//! A node on smol: the same crate and the same program as on async-std, with another executor under them.

mod shared;

use std::{io, process::ExitCode};

use peerless_async_std::{Config, build};
use shared::{Options, aio, finish};

fn main() -> io::Result<ExitCode> {
    let options = Options::from_args();
    let config = Config { listen: options.listen.clone(), seed: Some(options.seed), ..Config::default() };
    smol::block_on(async {
        let (handle, driver) = build(options.node(), config)?;
        smol::spawn(driver).detach();
        let spawn = |task: aio::Task| smol::spawn(task).detach();
        Ok(finish(aio::run(handle, &options, spawn).await))
    })
}
