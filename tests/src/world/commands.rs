//! What a test has the hosts do. Most helpers wait, in virtual time, and panic if it does not come about.

use std::time::Duration;

use peerless_core::{
    Multiaddr, PeerId,
    errors::DialError,
    ids::{ConnectionId, DialId, StreamId},
    node::{Event, Node},
    protocols::{
        relay::{client::Client, hop::Hop},
        rendezvous::client as rendezvous,
    },
    swarm::dial::DialOptions,
    time::{Deadline, Instant},
};

use super::{PATIENCE, World};
use crate::{
    app::{App, Transfer},
    host::{Host, HostId},
};

impl World {
    /// The node of a host. Panics if the host has none.
    pub fn node(&self, host: HostId) -> &Node {
        self[host].node.as_ref().expect("a bare host has no node")
    }

    /// Gives the node of a host any command, and carries out what follows.
    pub fn command<R>(&mut self, host: HostId, command: impl FnOnce(&mut Node, Instant) -> R) -> R {
        let now = self.now;
        let node = self.hosts[host.0].node.as_mut().expect("a bare host has no node");
        let result = command(node, now);
        self.drain(host);
        result
    }

    /// Stops the node of a host without a word to anybody. Its log and app go with it.
    pub fn kill(&mut self, host: HostId) {
        let Host { node, app, log, .. } = &mut self.hosts[host.0];
        *node = None;
        *app = App::default();
        log.clear();
        self.rearm(host);
    }

    /// Takes what the node of a host has told so far, so that long worlds need not keep it.
    pub fn take_log(&mut self, host: HostId) -> Vec<(Instant, Event)> {
        std::mem::take(&mut self.hosts[host.0].log)
    }

    /// Replaces the node of a host by a new one: same key and configuration, new seed, no memory.
    pub fn restart(&mut self, host: HostId) {
        self.kill(host);
        self.boot(host);
    }

    /// The circuit address of `target` through `relay`.
    pub fn circuit(&self, relay: HostId, target: HostId) -> Multiaddr {
        format!("{}/p2p-circuit/p2p/{}", self[relay].address(), self[target].peer())
            .parse()
            .expect("a well-formed multiaddr")
    }

    /// Has `host` reserve on `relay`; what becomes of it shows in events.
    pub fn reserve(&mut self, host: HostId, relay: HostId) {
        let address = self[relay].address();
        self.command(host, |node, now| node.reserve(now, address)).expect("the address names the relay");
    }

    /// Begins to dial, without waiting.
    pub fn start_dial(&mut self, host: HostId, peer: Option<PeerId>, addresses: &[Multiaddr]) -> DialId {
        self.command(host, |node, now| node.dial(now, peer, addresses))
    }

    /// Dials and waits for the outcome.
    pub fn try_dial(
        &mut self,
        host: HostId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
    ) -> Result<ConnectionId, DialError> {
        let from = self[host].log.len();
        let id = self.start_dial(host, peer, addresses);
        self.wait_from(host, from, "the outcome of a dial", |event| match event {
            Event::Dialed { connection, dial, .. } if *dial == id => Some(Ok(*connection)),
            Event::DialFailed { dial, error, .. } if *dial == id => Some(Err(error.clone())),
            _ => None,
        })
    }

    /// Starts a dial that is not joined with others of the same peer.
    pub fn start_own_dial(&mut self, host: HostId, address: &Multiaddr) -> DialId {
        let options = DialOptions { force_new: true, ..DialOptions::default() };
        self.command(host, |node, now| node.dial_with(now, None, std::slice::from_ref(address), &options))
    }

    /// Dials `to` directly and waits. Panics if that fails.
    pub fn dial(&mut self, from: HostId, to: HostId) -> ConnectionId {
        let address = self[to].address();
        self.try_dial(from, None, &[address]).unwrap_or_else(|error| panic!("dial failed: {error}"))
    }

    /// Dials `to` through `relay` and waits. Panics if that fails.
    pub fn dial_via(&mut self, from: HostId, relay: HostId, to: HostId) -> ConnectionId {
        let address = self.circuit(relay, to);
        self.try_dial(from, None, &[address]).unwrap_or_else(|error| panic!("dial failed: {error}"))
    }

    /// The connections of one host to another, oldest first.
    pub fn connections(&self, from: HostId, to: HostId) -> Vec<ConnectionId> {
        self.node(from).connections().of(&self[to].peer()).to_vec()
    }

    /// Pings and waits for the round-trip time. Panics if the ping fails.
    pub fn ping(&mut self, host: HostId, connection: ConnectionId) -> Duration {
        let from = self[host].log.len();
        self.command(host, |node, now| node.ping(now, connection)).expect("the connection is there");
        self.wait_from(host, from, "a ping", |event| match event {
            Event::Ping(ping) if ping.connection == connection => Some(ping.result.clone()),
            _ => None,
        })
        .unwrap_or_else(|error| panic!("ping failed: {error}"))
    }

    /// Opens a stream that sends `bytes` and expects them back, without waiting.
    pub fn start_echo(&mut self, host: HostId, connection: ConnectionId, bytes: u64) -> StreamId {
        self.try_start_echo(host, connection, bytes).expect("the connection grants a stream")
    }

    /// The same, unless the connection is gone or grants no stream.
    pub fn try_start_echo(&mut self, host: HostId, connection: ConnectionId, bytes: u64) -> Option<StreamId> {
        let Host { node, app, .. } = &mut self.hosts[host.0];
        let node = node.as_mut().expect("a bare host has no node");
        let stream = app.echo(self.now, node, connection, bytes).ok();
        self.drain(host);
        stream
    }

    /// Opens a stream that sends `upload` bytes and asks for `download`, without waiting.
    pub fn start_perf(
        &mut self,
        host: HostId,
        connection: ConnectionId,
        upload: u64,
        download: u64,
    ) -> StreamId {
        let Host { node, app, .. } = &mut self.hosts[host.0];
        let node = node.as_mut().expect("a bare host has no node");
        let stream =
            app.perf(self.now, node, connection, upload, download).expect("the connection grants a stream");
        self.drain(host);
        stream
    }

    /// How far a stream of [`World::start_echo`] or [`World::start_perf`] has come.
    pub fn transfer(&self, host: HostId, stream: StreamId) -> Transfer {
        self[host].app.transfer(stream).expect("a client stream of this host").clone()
    }

    /// Waits until such a stream is over. Panics if that takes more than `patience`.
    pub fn finish_transfer(&mut self, host: HostId, stream: StreamId, patience: Duration) -> Transfer {
        self.run_until(patience, |world| Some(world.transfer(host, stream)).filter(Transfer::is_over))
            .unwrap_or_else(|| panic!("transfer not over: {:?}", self.transfer(host, stream)))
    }

    /// Echoes `bytes` over a connection and verifies them. Panics if any is missing or wrong.
    pub fn echo(&mut self, host: HostId, connection: ConnectionId, bytes: u64) {
        let stream = self.start_echo(host, connection, bytes);
        let transfer = self.finish_transfer(host, stream, PATIENCE);
        let intact = !transfer.garbled && transfer.fault.is_none() && transfer.received == bytes;
        assert!(intact, "echo of {bytes} bytes failed: {transfer:?}");
    }

    /// Makes the app of a host read nothing from now on.
    pub fn stop_reading(&mut self, host: HostId) {
        self.hosts[host.0].app.reading = false;
    }

    /// Closes a connection.
    pub fn close(&mut self, host: HostId, connection: ConnectionId) {
        self.command(host, |node, now| node.close(now, connection));
    }

    /// Has every node give up its reservations and close everything, and lets the last datagrams arrive.
    pub fn shutdown(&mut self) {
        let now = self.now;
        for id in (0..self.hosts.len()).map(HostId) {
            self.input(id, |node| {
                let relays: Vec<_> =
                    node.behaviour::<Client>().into_iter().flat_map(Client::relays).collect();
                for relay in relays {
                    node.cancel_reservation(now, relay);
                }
                node.shutdown(now);
            });
        }
        self.run_for(PATIENCE);
    }

    /// Panics unless nothing is left of anything: no connection, stream, reservation, circuit, dial or timer on any
    /// node, and no datagram under way.
    pub fn assert_empty(&mut self) {
        assert_eq!(self.in_flight, 0, "datagrams are under way");
        for host in &mut self.hosts {
            let Some(node) = &mut host.node else { continue };
            let stats = node.stats();
            let left = [
                ("connections", stats.connections),
                ("streams", stats.streams),
                ("splices", stats.splices),
                ("circuits", stats.circuits),
                ("reservations or circuits served", node.behaviour::<Hop>().map_or(0, Hop::len)),
                ("reservations or circuits used", node.behaviour::<Client>().map_or(0, Client::len)),
                ("points used", node.behaviour::<rendezvous::Client>().map_or(0, rendezvous::Client::len)),
                ("dials", stats.dials),
                ("timers", stats.timers),
                ("served streams", host.app.serving()),
            ];
            for (what, count) in left {
                assert_eq!(count, 0, "{} still has {what}: {stats:?}", host.name);
            }
            let deadline: Option<Deadline> = node.deadline();
            assert_eq!(deadline, None, "{} still waits for something", host.name);
        }
    }
}
