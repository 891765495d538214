//! SIGINT and SIGTERM end a node in order, and SIGHUP does not end one that serves others.

use std::io;

/// Signals that are caught and wait to be [watched](Self::watch).
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Caught(signal_hook::iterator::Signals);

#[cfg(unix)]
impl Caught {
    /// From now on SIGHUP does not end the process if it `serves` others. The others do, until they are watched.
    pub(crate) fn start(serves: bool) -> io::Result<Self> {
        let early = serves.then_some(signal_hook::consts::SIGHUP);
        signal_hook::iterator::Signals::new(early).map(Self)
    }

    /// Calls `end` at each SIGINT or SIGTERM, and `hang_up` at each SIGHUP that is caught, also at one that has come.
    pub(crate) fn watch(
        self,
        end: impl Fn() + Send + 'static,
        hang_up: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let Self(mut signals) = self;
        signals.add_signal(SIGINT)?;
        signals.add_signal(SIGTERM)?;
        let wait = move || {
            for signal in signals.forever() {
                if signal == SIGHUP { hang_up() } else { end() }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(())
    }
}

/// Nothing is caught before it is watched.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct Caught;

#[cfg(not(unix))]
impl Caught {
    pub(crate) fn start(_serves: bool) -> io::Result<Self> {
        Ok(Self)
    }

    /// Calls `end` when the process is to end.
    pub(crate) fn watch(
        self,
        end: impl Fn() + Send + 'static,
        _hang_up: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        ctrlc::set_handler(end).map_err(io::Error::other)
    }
}
