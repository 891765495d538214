//! Windows that follow what circuits need, carried out; see [`crate::streams::windows`].

use super::{
    Node,
    transport::{Link, Via},
};
use crate::{
    ids::{ConnectionId, SpliceId},
    node::Event,
    streams::splice::Splice,
};

impl Node {
    /// Takes note of what a turn of a splice has moved.
    pub(super) fn meter_splice(&mut self, id: SpliceId) {
        self.measure_splice(id, false);
    }

    /// Looks how much a splice carries.
    pub(super) fn look_at_splice(&mut self, id: SpliceId) {
        self.measure_splice(id, true);
    }

    fn measure_splice(&mut self, id: SpliceId, is_look: bool) {
        let (now, mut again) = (self.now, false);
        let mut connections = [None; 2];
        let (Some(windows), Some(splice)) = (&mut self.windows, self.splices.get_mut(id)) else { return };
        for (n, (meter, total, is_held)) in splice.meters(now).into_iter().enumerate() {
            let link = meter.connection().and_then(|connection| self.transport.links.get_mut(&connection));
            let Some(Link { window: Some(window), .. }) = link else { continue };
            connections[n] = meter.connection();
            let measured = (meter, total, is_held);
            again |= if is_look {
                windows.look(now, measured, window)
            } else {
                windows.moved(now, measured, window)
            };
        }
        if again {
            self.splices.look_later(id, now);
        }
        connections.into_iter().flatten().for_each(|connection| self.resize_window(connection, is_look));
    }

    /// A splice is over: what its connections had for it goes to others.
    pub(super) fn forget_meters(&mut self, splice: &mut Splice) {
        for (meter, ..) in splice.meters(self.now) {
            let (Some(windows), Some(connection)) = (&mut self.windows, meter.connection()) else { continue };
            let window = self.transport.links.get_mut(&connection).and_then(|link| link.window.as_mut());
            windows.ended(meter, window);
            self.resize_window(connection, false);
        }
    }

    /// Gives a connection the window that it is to have.
    pub(super) fn resize_window(&mut self, connection: ConnectionId, may_grow: bool) {
        let (Some(windows), Some(link)) = (&self.windows, self.transport.links.get_mut(&connection)) else {
            return;
        };
        let (Some(window), Via::Quic(id)) = (&mut link.window, link.via) else { return };
        let Some(rtt) = self.transport.quic.rtt(id) else { return };
        if let Some(size) = windows.resize(window, rtt, may_grow) {
            self.transport.quic.set_connection_window(self.now, id, size);
        }
    }

    /// A connection's packets take another path.
    /// Tells the embedder where a remote is now.
    pub(super) fn tell_path_changed(&mut self, connection: ConnectionId) {
        let Some(info) = self.connections.get(connection) else { return };
        let (peer, address) = (info.peer, info.remote.clone());
        self.emit(Event::PathChanged { connection, peer, address });
    }

    pub(super) fn path_changed(&mut self, connection: ConnectionId) {
        if let Some(Link { window: Some(window), .. }) = self.transport.links.get_mut(&connection) {
            window.path_changed();
        }
    }
}
