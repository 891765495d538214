//! Learning that the addresses of the machine have changed.

use std::{future::Future, io, pin::Pin, task::Context};

use async_io::Timer;
use peerless_udp::Interfaces;

/// The interfaces, and when to look at them.
#[derive(Debug)]
pub(crate) struct Watch {
    interfaces: Interfaces,
    #[cfg(target_os = "linux")]
    notifier: Option<async_io::Async<std::os::fd::OwnedFd>>,
    /// Rings where nobody tells.
    timer: Timer,
}

impl Watch {
    pub(crate) fn new(interfaces: Interfaces) -> io::Result<Self> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            notifier: interfaces.notifier().map(async_io::Async::new_nonblocking).transpose()?,
            timer: interfaces.interval().map_or(Timer::never(), Timer::interval),
            interfaces,
        })
    }

    /// Whether the addresses have changed; if not, the task is woken when they may have.
    pub(crate) fn changed(&mut self, cx: &mut Context<'_>) -> bool {
        let mut changed = false;
        #[cfg(target_os = "linux")]
        if let Some(notifier) = &self.notifier {
            while notifier.poll_readable(cx).is_ready() {
                changed |= self.interfaces.changed();
            }
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            changed |= self.interfaces.changed();
        }
        changed
    }
}
