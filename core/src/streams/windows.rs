//! How much the sources of circuits may have under way to us: what fills their paths, and what our sockets can hold.
//!
//! What is under way is on the wire or in the buffer of our socket. The wire of a path holds as much as comes in one of its
//! round trips; the buffer is one for all. So what all busy circuits share is the buffer and the wire,
//! `socket_buffer + rate * rtt`, each has an equal part of that, and no path gets more than the window of a stream. On a
//! short path this is the buffer, and nothing is lost; on a long one it is the wire, and the path is filled.
//!
//! QUIC fixes the window of a stream when the connection begins, but not that of the connection; so this is about
//! connections, with a part for each busy circuit on them. A circuit whose sink takes less than its source sends fills
//! its connection's window with what lies unread. So that its neighbours, pings and requests still get through, the
//! connection is given as much more, step by step, until the window of the stream stops the source; `unread` bounds that
//! for all connections together.

use std::time::Duration;

use crate::{ids::ConnectionId, time::Instant};

/// What windows are cut from, at a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes that wait in the buffers of our sockets at most, with what kernels take beside the payload. 3 MiB: a usual
    /// system allows 4 MiB.
    pub socket_buffer: u64,
    /// Bytes a second that we forward at most. 256 MiB.
    pub rate: u64,
    /// Bytes of credit that connections may have for what lies unread, because a sink takes less than its source sends.
    /// 256 MiB.
    pub unread: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { socket_buffer: 3 << 20, rate: 256 << 20, unread: 256 << 20 }
    }
}

/// How often what a circuit carries is looked at, while it carries anything.
pub(crate) const CHECK: Duration = Duration::from_millis(250);
/// The part of a busy circuit is never smaller, in bytes: about a dozen packets.
const LEAST: u64 = 16 << 10;
/// A circuit is busy if it carries so many bytes between two looks, and until it did not in so many looks in a row: programs
/// send in bursts, and a window that is given anew for each would be worth nothing.
const BUSY: u64 = LEAST;
const QUIET: u8 = 8;
/// A connection without busy circuits has this at least, in bytes.
const IDLE: u64 = 32 << 10;
/// The round trip of a short path, which such a connection need not fill: many may begin at once, and what they have under way
/// would meet at our socket.
const SHORT: Duration = Duration::from_millis(10);
/// By how much the credit for unread bytes grows and shrinks from look to look.
const STEP: u64 = 1 << 20;
/// A longer round trip counts as this.
const MAX_RTT: Duration = Duration::from_secs(1);

/// All windows of a node together.
#[derive(Debug)]
pub(crate) struct Windows {
    config: Config,
    /// The most for a stream and for a connection.
    stream: u64,
    connection: u64,
    /// Connections there are.
    connections: u64,
    /// Directions of circuits that are busy.
    busy: u64,
    /// Credit given for unread bytes.
    unread: u64,
}

/// One connection's.
#[derive(Debug, Default)]
pub(crate) struct Window {
    busy: u64,
    unread: u64,
    /// The shortest seen on this path: a longer one is our own queue, and must not lead to more in it.
    rtt: Option<Duration>,
    size: u64,
}

/// What one direction of a circuit carries.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The connection of its source.
    connection: Option<ConnectionId>,
    /// What it had carried after its last turn.
    carried: u64,
    /// What it had carried when it was looked at.
    mark: u64,
    marked_at: Instant,
    busy: bool,
    /// Looks in a row at which it had carried little.
    quiet: u8,
    unread: u64,
}

impl Windows {
    /// With at most so many bytes for a stream and for a connection.
    pub(crate) fn new(config: Config, stream: u32, connection: u32) -> Self {
        let (stream, connection) = (stream.into(), connection.into());
        Self { config, stream, connection, connections: 0, busy: 0, unread: 0 }
    }

    /// What a connection has before its round trip is known.
    pub(crate) fn first(connection: u32) -> u32 {
        connection.min(IDLE as u32)
    }

    /// Directions of circuits that are busy, and the credit given for unread bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.busy, self.unread)
    }

    /// A connection is there from now on.
    pub(crate) fn opened(&mut self) -> Window {
        self.connections += 1;
        Window::default()
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self) {
        self.connections -= 1;
    }

    /// A direction had its turn: it has carried `total` bytes by now, and reads no more for the moment if `is_held`. Returns
    /// whether to look at it in a while.
    pub(crate) fn moved(
        &mut self,
        now: Instant,
        (meter, total, is_held): (&mut Meter, u64, bool),
        of: &mut Window,
    ) -> bool {
        if !meter.busy && now.saturating_duration_since(meter.marked_at) >= CHECK {
            (meter.mark, meter.marked_at) = (meter.carried, now);
        }
        meter.carried = total;
        if !meter.busy && total - meter.mark >= BUSY {
            (meter.busy, meter.quiet) = (true, 0);
            of.busy += 1;
            self.busy += 1;
        }
        meter.busy || meter.unread > 0 || is_held
    }

    /// Looks at a direction. Returns whether to do so again if it does not move meanwhile.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        (meter, total, is_held): (&mut Meter, u64, bool),
        of: &mut Window,
    ) -> bool {
        meter.quiet = if total - meter.mark >= BUSY { 0 } else { meter.quiet.saturating_add(1) };
        (meter.mark, meter.carried, meter.marked_at) = (total, total, now);
        if meter.busy && meter.quiet >= QUIET {
            meter.busy = false;
            of.busy -= 1;
            self.busy -= 1;
        }
        let before = meter.unread;
        // Nobody gets more than half of what the others leave.
        let room = (self.config.unread - (self.unread - of.unread)) / 2;
        let target = if is_held { (before + STEP).min(self.stream) } else { before.saturating_sub(STEP) };
        let growth = (target.saturating_sub(before)).min(room.saturating_sub(of.unread));
        meter.unread = target.min(before + growth);
        of.unread = of.unread - before + meter.unread;
        self.unread = self.unread - before + meter.unread;
        meter.busy || meter.unread != before
    }

    /// A direction is over; its connection may be too.
    pub(crate) fn ended(&mut self, meter: &Meter, of: Option<&mut Window>) {
        let busy = u64::from(meter.busy);
        self.busy -= busy;
        self.unread -= meter.unread;
        if let Some(window) = of {
            window.busy -= busy;
            window.unread -= meter.unread;
        }
    }

    /// The window that a connection is to have from now on, if that differs enough from what it has. It grows only when it
    /// is looked at: by then all circuits that have begun together are known to be busy.
    pub(crate) fn resize(&self, window: &mut Window, rtt: Duration, may_grow: bool) -> Option<u64> {
        window.rtt = Some(window.rtt.map_or(rtt, |least| least.min(rtt)));
        let size = self.size(window);
        if size.abs_diff(window.size) <= window.size / 8 || (size > window.size && !may_grow) {
            return None;
        }
        window.size = size;
        Some(size)
    }

    fn size(&self, window: &Window) -> u64 {
        let rtt = window.rtt.unwrap_or_default().min(MAX_RTT);
        let share = |of: u64, among: u64| of / among.max(1);
        let size = if window.busy == 0 {
            let buffer = share(self.config.socket_buffer, self.connections).max(IDLE);
            (buffer + self.wire(rtt.saturating_sub(SHORT))).min(self.stream)
        } else {
            let each = share(self.config.socket_buffer + self.wire(rtt), self.busy);
            window.busy * each.clamp(LEAST, self.stream.max(LEAST))
        };
        (size + window.unread).min(self.connection)
    }

    /// What we forward in a round trip.
    fn wire(&self, rtt: Duration) -> u64 {
        (u128::from(self.config.rate) * rtt.as_nanos() / 1_000_000_000) as u64
    }
}

impl Meter {
    /// Of a source on this connection.
    pub(crate) fn new(connection: ConnectionId) -> Self {
        Self { connection: Some(connection), ..Self::default() }
    }

    /// The connection of its source.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }
}

impl Window {
    /// Its packets take another path.
    pub(crate) fn path_changed(&mut self) {
        self.rtt = None;
    }
}

#[cfg(test)]
mod tests;
