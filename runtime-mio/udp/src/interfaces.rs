//! The addresses of the network interfaces, their changes, and which of them a datagram leaves from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use if_addrs::Interface;
use peerless_core::node::Bound;

/// How often the interfaces are looked at where the system does not tell of changes.
const POLL: Duration = Duration::from_secs(5);

/// What the node is told of a socket: for a wildcard address also the machine's addresses, as for one that it has not.
///
/// # Errors
/// The system does not tell its addresses.
pub fn bound(local: SocketAddr) -> io::Result<Bound> {
    let mut reachable = addresses()?;
    if reachable.contains(&local.ip()) {
        reachable.clear();
    }
    Ok(Bound { local, reachable })
}

/// Which of our addresses, `locals`, a datagram to `remote` leaves from; the answer to
/// [`Event::Route`](peerless_core::node::Event::Route). `None` if there is no way there, or by none of them.
pub fn source_for(remote: SocketAddr, locals: impl IntoIterator<Item = IpAddr>) -> Option<IpAddr> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Sends nothing: the system looks the route up, and gives the socket its address.
    socket.connect(remote).ok()?;
    let source = socket.local_addr().ok()?.ip();
    let locals: Vec<IpAddr> = locals.into_iter().collect();
    if locals.contains(&source) {
        return Some(source);
    }
    // It may be another address of the same interface that we are bound to.
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let name_of = |ip: IpAddr| interfaces.iter().find(|i| i.ip() == ip).map(|i| &i.name);
    let name = name_of(source)?;
    locals.into_iter().find(|ip| ip.is_ipv4() == source.is_ipv4() && name_of(*ip) == Some(name))
}

/// The addresses of interfaces that work, in a stable order.
fn addresses() -> io::Result<Vec<IpAddr>> {
    Ok(if_addrs::get_if_addrs()?.iter().filter(|i| i.is_oper_up()).map(Interface::ip).collect())
}

/// Watches the machine's addresses.
///
/// On Linux the system tells of changes (rtnetlink): [`notifier`](Self::notifier) is readable then, and nothing wakes up
/// before. Elsewhere they are looked at every few seconds ([`interval`](Self::interval)).
#[derive(Debug)]
pub struct Interfaces {
    #[cfg(target_os = "linux")]
    netlink: Option<std::os::fd::OwnedFd>,
    seen: Vec<IpAddr>,
}

impl Interfaces {
    /// Watches from now on.
    pub fn watch() -> Self {
        // First the watch, then the look, so that no change is missed.
        #[cfg(target_os = "linux")]
        let netlink = netlink::open()
            .inspect_err(|error| tracing::info!(%error, "addresses are looked at every {POLL:?}"))
            .ok();
        Self {
            #[cfg(target_os = "linux")]
            netlink,
            seen: addresses().unwrap_or_default(),
        }
    }

    /// What to wait for, as a descriptor of the caller's own. `None` if the system does not tell.
    #[cfg(target_os = "linux")]
    pub fn notifier(&self) -> Option<std::os::fd::OwnedFd> {
        self.netlink.as_ref()?.try_clone().ok()
    }

    /// How often [`changed`](Self::changed) is to be asked without having been told. `None` if the system tells.
    pub fn interval(&self) -> Option<Duration> {
        #[cfg(target_os = "linux")]
        if self.netlink.is_some() {
            return None;
        }
        Some(POLL)
    }

    /// Whether the addresses are others than when this was asked last.
    pub fn changed(&mut self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(netlink) = &self.netlink {
            netlink::drain(netlink);
        }
        let Ok(now) = addresses() else { return false };
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

/// What the kernel says of links and addresses. It is not read but taken as a reason to look: what was lost because it was
/// too much, or is yet to come, makes no difference then.
#[cfg(target_os = "linux")]
mod netlink {
    use std::{io, os::fd::OwnedFd};

    use rustix::net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
        socket_with,
    };

    /// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h.
    const GROUPS: u32 = 0x1 | 0x10 | 0x100;
    /// Messages dropped in one go; whoever waits for the descriptor is told of the rest.
    const MOST: usize = 1024;

    pub(super) fn open() -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            // The protocol 0 is NETLINK_ROUTE.
            socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(socket)
    }

    pub(super) fn drain(socket: &OwnedFd) {
        let mut message = [0; 64];
        for _ in 0..MOST {
            match recv(socket, &mut message[..], RecvFlags::DONTWAIT) {
                // That messages were lost is the only error that leaves others to come.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_address_that_the_route_has() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        let remote = "127.0.0.1:9".parse().unwrap();
        assert_eq!(source_for(remote, [elsewhere, loopback]), Some(loopback));
        assert_eq!(source_for(remote, [elsewhere]), None);
    }

    #[test]
    fn nothing_changes_by_itself() {
        let mut interfaces = Interfaces::watch();
        assert!(!interfaces.changed());
        #[cfg(target_os = "linux")]
        assert_eq!((interfaces.interval(), interfaces.notifier().is_some()), (None, true));
    }
}
