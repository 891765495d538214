//! The end of a node: first the goodbyes, then the connections that carry them; who comes late is refused.

use std::time::Duration;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::Node;
use crate::{
    errors::{AttemptError, CloseReason, DialError, Refusal},
    ids::ConnectionId,
    protocols::{relay::client::Client, rendezvous::client as rendezvous},
    time::{Deadline, Instant},
    trace::Glyph,
};

/// So long after [`Node::shutdown`] a node is idle at the latest.
pub const SHUTDOWN: Duration = Duration::from_secs(1);

/// So long goodbyes may take before the connections that carry them are closed all the same.
const GOODBYES: Duration = Duration::from_millis(500);

/// So long handshakes may take to be complete, and to be turned away.
const HANDSHAKES: Duration = Duration::from_millis(250);

/// Why a dial that comes too late fails.
pub(super) fn too_late(peer: Option<PeerId>, addresses: &[Multiaddr]) -> DialError {
    let whole = Multiaddr::from_iter(peer.map(Protocol::P2p));
    let all = addresses.iter().cloned().chain(addresses.is_empty().then_some(whole));
    DialError { attempts: all.map(|address| (address, AttemptError::ShuttingDown)).collect() }
}

/// How far a node is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Exit: [`Life::Leaving`], with a shutdown.
    Running,
    /// Goodbyes are on their way; direct connections are closed when there is nothing else to transmit and rendezvous
    /// points have heard, and then at the latest. Exit: [`Life::Closing`].
    Leaving { until: Instant },
    /// All connections are closed, but handshakes that were under way may go on until then, so that who is there can be told
    /// why it must go. Exit: [`Life::Left`].
    Closing { until: Instant },
    /// Everything is closed; late packets are answered until then.
    Left { until: Instant },
}

impl Node {
    /// Gives up all reservations, registrations and dials and closes all connections: circuits now, and direct ones when
    /// [`Node::poll_transmit`] has handed out everything else, so that the goodbyes leave before what carries them ends, and
    /// rendezvous points have heard that we leave, for which they have 0.3 s. From now on whoever dials us is refused,
    /// nothing that a peer asks for is granted, and what we are to dial fails. [`SHUTDOWN`] later the node is idle.
    pub fn shutdown(&mut self, now: Instant) {
        self.advance(now);
        if self.life != Life::Running {
            self.store_all();
            return self.pump();
        }
        self.trace.line(self.now, Glyph::Command, None, || "shut down".into());
        self.life = Life::Leaving { until: self.now + GOODBYES };
        self.swarm.is_closed = true;
        self.with::<rendezvous::Client, _>(now, |client, cx| client.stop(cx));
        self.with::<Client, _>(now, |client, cx| client.stop(cx));
        let relayed = self.connections.iter().filter(|info| info.relayed.is_some());
        for connection in relayed.map(|info| info.id).collect::<Vec<_>>() {
            self.close_as_ending(connection);
        }
        self.auto_connect.stop();
        self.give_up_dials();
        self.store_all();
        self.pump();
    }

    fn store_all(&mut self) {
        if let Some(archive) = &mut self.archive {
            archive.hurry(self.now);
            self.archive_peers();
        }
    }

    /// Whether no connection is left, not even one that is only saying goodbye.
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty() && self.transport.quic.is_empty()
    }

    /// Whether the end has begun.
    pub(super) fn is_ending(&self) -> bool {
        self.life != Life::Running
    }

    /// A connection that comes about too late.
    pub(super) fn refuse_as_ending(&mut self) -> Refusal {
        self.counters.add("swarm.refused.shutting_down", 1);
        Refusal::ShuttingDown
    }

    pub(super) fn next_step_of_leaving(&self) -> Option<Deadline> {
        let until = match self.life {
            Life::Running => None,
            Life::Leaving { until } => Some(until),
            Life::Closing { until } | Life::Left { until } => {
                (!self.transport.quic.is_empty()).then_some(until)
            }
        };
        until.map(|at| Deadline::new(at, "shutdown"))
    }

    /// There is nothing to transmit: what circuits had to say has left. The connections go, if points have heard that we do.
    pub(super) fn leave_if_said(&mut self) -> bool {
        let is_saying = self.behaviour::<rendezvous::Client>().is_some_and(rendezvous::Client::is_leaving);
        let leaves = matches!(self.life, Life::Leaving { .. }) && !is_saying;
        if leaves {
            self.leave();
        }
        leaves
    }

    fn leave(&mut self) {
        self.life = Life::Closing { until: self.now + HANDSHAKES };
        for connection in self.connections.iter().map(|info| info.id).collect::<Vec<_>>() {
            self.close_as_ending(connection);
        }
        self.pump();
    }

    fn close_as_ending(&mut self, connection: ConnectionId) {
        self.close_transport(connection, Refusal::ShuttingDown.code());
        self.disconnected(connection, CloseReason::Local);
    }

    /// Takes the next step if its time has come.
    pub(super) fn expire_leaving(&mut self) {
        match self.life {
            Life::Leaving { until } if until <= self.now => self.leave(),
            Life::Closing { until } if until <= self.now => {
                self.life = Life::Left { until: self.now + (SHUTDOWN - GOODBYES - HANDSHAKES) };
                self.transport.quic.close_all(self.now, Refusal::ShuttingDown.code());
            }
            Life::Left { until } if until <= self.now => self.transport.quic.forget_all(),
            _ => {}
        }
    }
}
