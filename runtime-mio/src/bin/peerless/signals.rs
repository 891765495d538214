//! SIGINT and SIGTERM end a node in order, and SIGHUP does not end one that serves others.

use std::io;

/// Calls `end` at each SIGINT or SIGTERM, and `hang_up` at each SIGHUP; without `hang_up` that one does what it does to
/// any program.
#[cfg(unix)]
pub(crate) fn watch(
    end: impl Fn() + Send + 'static,
    hang_up: Option<impl Fn() + Send + 'static>,
) -> io::Result<()> {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        iterator::Signals,
    };
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if hang_up.is_some() {
        signals.add_signal(SIGHUP)?;
    }
    let wait = move || {
        for signal in signals.forever() {
            match (signal, &hang_up) {
                (SIGHUP, Some(hang_up)) => hang_up(),
                _ => end(),
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

/// Calls `end` when the process is to end.
#[cfg(not(unix))]
pub(crate) fn watch(
    end: impl Fn() + Send + 'static,
    _hang_up: Option<impl Fn() + Send + 'static>,
) -> io::Result<()> {
    ctrlc::set_handler(end).map_err(io::Error::other)
}
