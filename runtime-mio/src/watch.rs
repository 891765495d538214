//! Learning that the addresses of the machine have changed.

use std::{io, time::Duration};

use mio::Registry;
use peerless_core::time::Instant;
use peerless_udp::Interfaces;

/// The interfaces, and when to look at them.
#[derive(Debug)]
pub(crate) struct Watch {
    interfaces: Interfaces,
    /// Kept open for as long as the event queue watches it.
    #[cfg(target_os = "linux")]
    _notifier: Option<std::os::fd::OwnedFd>,
    interval: Option<Duration>,
    /// When to look, where nobody tells.
    pub(crate) next: Option<Instant>,
}

impl Watch {
    pub(crate) fn start(registry: &Registry) -> io::Result<Self> {
        let interfaces = Interfaces::watch();
        let interval = interfaces.interval();
        Ok(Self {
            #[cfg(target_os = "linux")]
            _notifier: register(&interfaces, registry)?,
            interval,
            next: interval.map(|interval| Instant::ZERO + interval),
            interfaces,
        })
    }

    /// Whether the addresses have changed, if it is time to look or `told` to.
    pub(crate) fn changed(&mut self, told: bool, now: Instant) -> bool {
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due {
            self.next = self.interval.map(|interval| now + interval);
        }
        (told || is_due) && self.interfaces.changed()
    }
}

#[cfg(target_os = "linux")]
fn register(interfaces: &Interfaces, registry: &Registry) -> io::Result<Option<std::os::fd::OwnedFd>> {
    use std::os::fd::AsRawFd;

    use mio::{Interest, unix::SourceFd};

    let notifier = interfaces.notifier();
    if let Some(fd) = &notifier {
        registry.register(&mut SourceFd(&fd.as_raw_fd()), crate::INTERFACES, Interest::READABLE)?;
    }
    Ok(notifier)
}
