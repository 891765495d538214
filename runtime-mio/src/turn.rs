//! The event loop's body.

use std::{io, sync::atomic::Ordering, time::Duration};

use mio::Token;
use peerless_core::{
    ids::{QueryId, SocketId},
    node::Event,
};
use peerless_udp::{Answer, Pending, Question, Sent, source_for};

use crate::{INTERFACES, Runtime, socket::Socket};

/// Datagrams received in one turn, empty ones included, before timers and sending have theirs.
const RECEIVE_BUDGET: usize = 1024;
/// Commands run in one turn.
const COMMAND_BUDGET: usize = 64;

impl Runtime {
    /// Sends what the node wants sent; waits until something comes, a deadline of the node is there or `max_wait` is
    /// over (`None`: as long as it takes); feeds what came to the node; and sends again. Returns at once if events
    /// wait to be taken. May return with nothing done.
    ///
    /// # Errors
    /// The system's event queue failed. Errors of single datagrams are counted in
    /// [`IoStats`](crate::IoStats) instead.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        self.flush()?;
        let wait = self.wait(max_wait);
        match self.poll.poll(&mut self.ready, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ready.clear(),
            result => result?,
        }
        self.note_readiness()?;
        self.look_at_interfaces();
        let now = self.clock.now();
        if let Some(unix) = self.clock.jumped(now) {
            self.node.set_wall_clock(now, unix);
        }
        if self.handle.stop.load(Ordering::Acquire) {
            self.shutdown();
        }
        self.run_commands();
        while let Ok((query, answer)) = self.answers.try_recv() {
            self.answered(query, answer);
        }
        self.receive();
        let now = self.clock.now();
        if self.node.deadline().is_some_and(|deadline| deadline.is_due(now)) {
            self.node.handle_timeout(now);
        }
        self.flush()?;
        self.stopped |=
            self.stopping.is_some_and(|end| end <= now || (self.node.is_idle() && self.pending.is_none()));
        Ok(())
    }

    /// The node's next event that is not the runtime's own business.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        loop {
            match self.node.poll_event()? {
                Event::Resolve { query, name, family } => self.ask(query, Question::Host(name, family)),
                Event::ResolveText { query, name } => self.ask(query, Question::Text(name)),
                Event::Route { query, remote } => {
                    let source = source_for(remote, self.sockets.iter().map(|socket| socket.local().ip()));
                    self.node.handle_routed(self.clock.now(), query, source);
                }
                event => return Some(event),
            }
        }
    }

    fn ask(&mut self, query: QueryId, question: Question) {
        if let Err(answer) = self.resolver.ask(query, question) {
            self.answered(query, answer);
        }
    }

    fn answered(&mut self, query: QueryId, answer: Answer) {
        let now = self.clock.now();
        match answer {
            Answer::Host(found) => self.node.handle_resolved(now, query, found),
            Answer::Text(found) => self.node.handle_resolved_text(now, query, found),
        }
    }

    /// How long a loop of your own may wait for the runtime's file descriptor before the next turn, and not longer than
    /// `max_wait`. `None` is until the descriptor is readable.
    pub fn wait(&mut self, max_wait: Option<Duration>) -> Option<Duration> {
        if self.event.is_none() {
            self.event = self.next_event();
        }
        if self.event.is_some() || self.more_commands || self.sockets.iter().any(Socket::is_readable) {
            return Some(Duration::ZERO);
        }
        let next = self.node.deadline().map(|deadline| deadline.at).into_iter().chain(self.stopping);
        let next = next.chain(self.interfaces.next).min();
        let until = next.map(|at| at.saturating_duration_since(self.clock.now()));
        until.into_iter().chain(max_wait).min()
    }

    fn note_readiness(&mut self) -> io::Result<()> {
        for event in &self.ready {
            let Token(index) = event.token();
            // The waker has no socket.
            let Some(socket) = self.sockets.get_mut(index) else { continue };
            if event.is_readable() || event.is_error() {
                socket.set_readable();
            }
            if event.is_writable() && self.blocked_on == Some(index) {
                self.blocked_on = None;
                socket.watch_writable(self.poll.registry(), event.token(), false)?;
            }
        }
        Ok(())
    }

    /// Tells the node of addresses that have come or gone.
    fn look_at_interfaces(&mut self) {
        let told = self.ready.iter().any(|event| event.token() == INTERFACES);
        let now = self.clock.now();
        if !self.interfaces.changed(told, now) {
            return;
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            self.node.handle_socket(now, SocketId(index as u32), Some(socket.bound()));
        }
    }

    fn run_commands(&mut self) {
        let mut left = COMMAND_BUDGET;
        while left > 0
            && let Ok(command) = self.commands.try_recv()
        {
            command(&mut self.node, self.clock.now());
            left -= 1;
        }
        self.more_commands = left == 0;
    }

    /// One batch after another, the sockets in turn, until all are empty or the budget is used up.
    fn receive(&mut self) {
        let mut left = RECEIVE_BUDGET;
        while left > 0 && self.sockets.iter().any(Socket::is_readable) {
            for socket in self.sockets.iter_mut().filter(|socket| socket.is_readable()) {
                let now = self.clock.now();
                let count =
                    socket.receive(&mut self.receive_buffers, |datagram| self.received.push(datagram));
                self.node.handle_datagrams(now, self.received.drain(..));
                self.stats.received += count as u64;
                left = left.saturating_sub(count);
            }
        }
    }

    /// Sends until the node has nothing more to send or a socket is full.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let most = self.sockets.iter().map(Socket::max_segments).max().unwrap_or(1);
        let mut next = |bytes: &mut _| self.node.poll_transmit(now, most, bytes).map(Pending::new);
        while self.blocked_on.is_none()
            && let Some(mut pending) = self.pending.take().or_else(|| next(&mut self.transmit))
        {
            let index = pending.transmit.socket.0 as usize;
            let Some(socket) = self.sockets.get_mut(index) else {
                self.stats.send_dropped += 1;
                continue;
            };
            let Sent { sent, dropped, blocked } = socket.send(&mut pending, &self.transmit);
            self.stats.sent += sent;
            self.stats.send_dropped += dropped;
            if blocked {
                self.stats.send_blocked += 1;
                self.pending = Some(pending);
                self.blocked_on = Some(index);
                socket.watch_writable(self.poll.registry(), Token(index), true)?;
            }
        }
        Ok(())
    }
}
