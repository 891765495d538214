//! A node on the mio runtime.

mod shared;

use std::{io, process::ExitCode};

use peerless_mio::{Runtime, RuntimeConfig};
use shared::{Options, app::App};

fn main() -> io::Result<ExitCode> {
    let options = Options::from_args();
    let config = RuntimeConfig {
        listen: options.listen.clone(),
        seed: Some(options.seed),
        ..RuntimeConfig::default()
    };
    let mut runtime = Runtime::new(options.node(), config)?;
    let handle = runtime.handle();
    shared::on_signal(move || handle.shutdown());
    let mut app = App::new(&options);
    let (node, now) = runtime.node_mut();
    app.start(node, now);
    runtime.run(|runtime, event| {
        let (node, now) = runtime.node_mut();
        app.on_event(node, now, &event);
        if app.is_over() {
            runtime.shutdown();
        }
    })?;
    Ok(app.exit(runtime.node()))
}
