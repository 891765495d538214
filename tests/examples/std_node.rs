//! A node in a loop of its own, with nothing but a socket of the standard library: read with a timeout, feed the node,
//! send what it wants sent, and again.

mod shared;

use std::{
    io,
    net::UdpSocket,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use peerless_core::{
    ids::SocketId,
    node::{Datagram, Node, Start},
};
use shared::{Clock, Options, app::App};

fn main() -> io::Result<ExitCode> {
    let (options, clock) = (Options::from_args(), Clock::start());
    let socket = UdpSocket::bind(options.listen[0])?;
    let local = socket.local_addr()?;
    let start = Start { now: clock.now(), unix: Clock::unix(), seed: options.seed };
    let mut node = Node::new(options.node(), start).map_err(io::Error::other)?;
    node.handle_socket(clock.now(), SocketId(0), Some(peerless_udp::bound(local)?));
    let mut app = App::new(&options);
    app.start(&mut node, clock.now());

    // A signal wakes the loop with an empty datagram.
    let (stop, waker, mut wake_at) = (Arc::new(AtomicBool::new(false)), socket.try_clone()?, local);
    if local.ip().is_unspecified() {
        wake_at.set_ip([127, 0, 0, 1].into());
    }
    let stopped = Arc::clone(&stop);
    shared::on_signal(move || {
        stop.store(true, Ordering::Release);
        let _ = waker.send_to(&[], wake_at);
    });

    let (mut input, mut output, mut ends) = (vec![0; 65_536], Vec::new(), None);
    loop {
        loop {
            while let Some(transmit) = node.poll_transmit(clock.now(), 1, &mut output) {
                // What cannot be sent is lost, as any datagram may be.
                let _ = socket.send_to(&output[..transmit.size], transmit.destination);
            }
            let Some(event) = node.poll_event() else { break };
            app.on_event(&mut node, clock.now(), &event);
        }
        let now = clock.now();
        if ends.is_none() && (app.is_over() || stopped.load(Ordering::Acquire)) {
            node.shutdown(now);
            ends = Some(now + Duration::from_secs(1));
            continue;
        }
        if ends.is_some_and(|end| end <= now || node.is_idle()) {
            return Ok(app.exit(&node));
        }
        let next = node.deadline().map(|deadline| deadline.at).into_iter().chain(ends).min();
        let wait = next.map(|at| at.saturating_duration_since(now).max(Duration::from_micros(1)));
        socket.set_read_timeout(wait)?;
        // An error is the end of the wait, or of an earlier send.
        if let Ok((length, remote)) = socket.recv_from(&mut input) {
            let data = input[..length].into();
            let (socket, local_ip, ecn) = (SocketId(0), None, None);
            node.handle_datagram(clock.now(), Datagram { socket, remote, local_ip, ecn, data });
        }
        node.handle_timeout(clock.now());
    }
}
