//! A whole driver for tokio, and a node that runs on it: what a port to another runtime takes.
//!
//! One task owns the node and its sockets. It waits for whatever comes first, a readable or writable socket, the node's
//! deadline, or a command of another task, and then does what every driver does: feed, send, take events, ask for the
//! deadline.

mod shared;

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use peerless_core::{
    ids::{QueryId, SocketId},
    node::{self, Event, Node, Start},
    time::Instant,
};
use peerless_udp::{
    Answer, Interfaces, Pending, Question, ReceiveBuffers, Resolver, Socket, bind_all, source_for,
};
use shared::{Clock, Options, app::App};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant as TokioInstant, sleep_until},
};

/// Size of the kernel's buffers of a socket, as far as the system allows.
const SOCKET_BUFFER: usize = 7 << 20;
/// Batches received in one go before anything else has its turn.
const RECEIVE_BUDGET: usize = 16;
/// How long a shutdown waits for the goodbyes to be sent.
const GRACE: Duration = Duration::from_secs(1);

/// What other tasks may ask for.
type Command = Box<dyn FnOnce(&mut Driver, Instant) + Send>;

/// Waits for word that the addresses of the machine may have changed: from the system, or by the clock where it says
/// nothing.
struct Notifier {
    #[cfg(target_os = "linux")]
    told: Option<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
    interval: Duration,
}

impl Notifier {
    #[cfg_attr(
        target_os = "linux",
        expect(deprecated, reason = "nobody closes an owned descriptor meanwhile")
    )]
    fn new(interfaces: &Interfaces) -> io::Result<Self> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            told: interfaces.notifier().map(tokio::io::unix::AsyncFd::new).transpose()?,
            // A far time for none.
            interval: interfaces.interval().unwrap_or(Duration::from_secs(86_400)),
        })
    }

    async fn wait(&self) {
        #[cfg(target_os = "linux")]
        if let Some(told) = &self.told
            && let Ok(mut ready) = told.readable().await
        {
            return ready.clear_ready();
        }
        tokio::time::sleep(self.interval).await;
    }
}

/// The node and what it is driven with.
struct Driver {
    node: Node,
    clock: Clock,
    sockets: Vec<Socket<UdpSocket>>,
    buffers: ReceiveBuffers,
    bytes: Vec<u8>,
    pending: Option<Pending>,
    resolver: Resolver,
    interfaces: Interfaces,
    notifier: Notifier,
    commands: Receiver<Command>,
    commander: Sender<Command>,
    ends: Option<Instant>,
}

/// Why the driver woke up.
enum Woken {
    Readable(usize),
    Writable,
    Deadline,
    Command(Command),
    Interfaces,
}

impl Driver {
    fn new(mut node: node::Config, listen: &[SocketAddr], seed: [u8; 32]) -> io::Result<Self> {
        (node.resolves_text, node.knows_routes) = (true, true);
        let clock = Clock::start();
        let start = Start { now: clock.now(), unix: Clock::unix(), seed };
        let mut node = Node::new(node, start).map_err(io::Error::other)?;
        // Before the sockets are asked for their addresses, so that no change is missed.
        let interfaces = Interfaces::watch();
        let notifier = Notifier::new(&interfaces)?;
        let bind = |id, at| Socket::bind(id, at, SOCKET_BUFFER, UdpSocket::from_std);
        let sockets = bind_all(listen, bind)?;
        for (n, socket) in sockets.iter().enumerate() {
            node.handle_socket(clock.now(), SocketId(n as u32), Some(socket.bound()));
        }
        let (commander, commands) = channel(256);
        let answers = commander.clone();
        let resolver = Resolver::new(Vec::new(), move |query, answer| {
            let command: Command = Box::new(move |driver, now| driver.answered(now, query, answer));
            // Nobody asks any more if the driver is gone.
            let _ = answers.blocking_send(command);
        });
        let (buffers, bytes) = (ReceiveBuffers::default(), Vec::new());
        let (pending, ends) = (None, None);
        Ok(Self {
            node,
            clock,
            sockets,
            buffers,
            bytes,
            pending,
            resolver,
            interfaces,
            notifier,
            commands,
            commander,
            ends,
        })
    }

    /// Drives the node until it is shut down. `on_event` may command it.
    async fn run(&mut self, mut on_event: impl FnMut(&mut Self, Instant, Event)) {
        loop {
            let now = self.clock.now();
            self.node.set_wall_clock(now, Clock::unix());
            self.flush(now);
            while let Some(event) = self.node.poll_event() {
                match event {
                    Event::Resolve { query, name, family } => {
                        self.resolve(now, query, Question::Host(name, family));
                    }
                    Event::ResolveText { query, name } => self.resolve(now, query, Question::Text(name)),
                    Event::Route { query, remote } => {
                        let locals = self.sockets.iter().map(|socket| socket.local().ip());
                        self.node.handle_routed(now, query, source_for(remote, locals));
                    }
                    event => on_event(self, now, event),
                }
                self.flush(now);
            }
            let is_idle = self.node.is_idle() && self.pending.is_none();
            if self.ends.is_some_and(|end| end <= now || is_idle) {
                return;
            }
            let deadline =
                self.node.deadline().map(|deadline| deadline.at).into_iter().chain(self.ends).min();
            match self.wait(now, deadline).await {
                Woken::Readable(index) => self.receive(index),
                Woken::Writable => {}
                Woken::Deadline => self.node.handle_timeout(self.clock.now()),
                Woken::Command(command) => command(self, self.clock.now()),
                Woken::Interfaces => self.look_at_interfaces(),
            }
        }
    }

    /// Readable, writable if that is waited for, deadline, or command: whatever comes first. Nothing is lost with those
    /// that did not.
    async fn wait(&mut self, now: Instant, deadline: Option<Instant>) -> Woken {
        let wait = deadline.map(|at| at.saturating_duration_since(now));
        // A far deadline for none: the loop just goes round.
        let until = TokioInstant::now() + wait.unwrap_or(Duration::from_secs(86_400));
        let blocked = self.pending.as_ref().map(|pending| pending.transmit.socket.0 as usize);
        let ready = std::future::poll_fn(|cx| {
            let readable = self.sockets.iter().position(|socket| socket.io.poll_recv_ready(cx).is_ready());
            let mut is_writable = |index: usize| self.sockets[index].io.poll_send_ready(cx).is_ready();
            match (readable, blocked) {
                (Some(index), _) => std::task::Poll::Ready(Woken::Readable(index)),
                (None, Some(index)) if is_writable(index) => std::task::Poll::Ready(Woken::Writable),
                _ => std::task::Poll::Pending,
            }
        });
        tokio::select! {
            woken = ready => woken,
            () = sleep_until(until) => Woken::Deadline,
            Some(command) = self.commands.recv() => Woken::Command(command),
            () = self.notifier.wait() => Woken::Interfaces,
        }
    }

    fn receive(&mut self, index: usize) {
        for _ in 0..RECEIVE_BUDGET {
            let socket = &mut self.sockets[index];
            let mut batch = Vec::new();
            let attempt =
                |io: &UdpSocket, receive: &mut dyn FnMut() -> _| io.try_io(Interest::READABLE, receive);
            if socket.receive(&mut self.buffers, attempt, |datagram| batch.push(datagram)) == 0 {
                break;
            }
            self.node.handle_datagrams(self.clock.now(), batch);
        }
        let now = self.clock.now();
        if self.node.deadline().is_some_and(|deadline| deadline.is_due(now)) {
            self.node.handle_timeout(now);
        }
    }

    /// Sends until the node has nothing more to send or a socket is full.
    fn flush(&mut self, now: Instant) {
        let most = self.sockets.iter().map(|socket| socket.max_segments()).max().unwrap_or(1);
        let mut next = |bytes: &mut Vec<u8>| self.node.poll_transmit(now, most, bytes).map(Pending::new);
        while let Some(mut pending) = self.pending.take().or_else(|| next(&mut self.bytes)) {
            let socket = &mut self.sockets[pending.transmit.socket.0 as usize];
            let attempt = |io: &UdpSocket, send: &mut dyn FnMut() -> _| io.try_io(Interest::WRITABLE, send);
            if socket.send(&mut pending, &self.bytes, attempt).blocked {
                self.pending = Some(pending);
                return;
            }
        }
    }

    /// Asks for a name; the answer comes as a command.
    fn resolve(&mut self, now: Instant, query: QueryId, question: Question) {
        if let Err(answer) = self.resolver.ask(query, question) {
            self.answered(now, query, answer);
        }
    }

    fn answered(&mut self, now: Instant, query: QueryId, answer: Answer) {
        match answer {
            Answer::Host(found) => self.node.handle_resolved(now, query, found),
            Answer::Text(found) => self.node.handle_resolved_text(now, query, found),
        }
    }

    /// Tells the node of addresses of the machine that have come or gone.
    fn look_at_interfaces(&mut self) {
        if !self.interfaces.changed() {
            return;
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            self.node.handle_socket(self.clock.now(), SocketId(index as u32), Some(socket.bound()));
        }
    }

    fn shutdown(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.ends = Some(now + GRACE);
            self.node.shutdown(now);
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let options = Options::from_args();
    let mut driver = Driver::new(options.node(), &options.listen, options.seed)?;
    let commander = driver.commander.clone();
    shared::on_signal(move || _ = commander.blocking_send(Box::new(|driver, now| driver.shutdown(now))));
    let mut app = App::new(&options);
    app.start(&mut driver.node, driver.clock.now());
    let on_event = |driver: &mut Driver, now, event| {
        app.on_event(&mut driver.node, now, &event);
        if app.is_over() {
            driver.shutdown(now);
        }
    };
    driver.run(on_event).await;
    Ok(app.exit(&driver.node))
}
