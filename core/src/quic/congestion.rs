//! Congestion control that lets a closing connection say so.
//!
//! quinn-proto holds a CONNECTION_CLOSE back while unsent data waits for the congestion window. A closed connection takes
//! no more acknowledgements, so the window never opens again: nothing is sent, and the remote waits for its idle timeout.
//! A connection that closes therefore gets a window without end; all that it still sends are goodbyes.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use quinn_proto::{
    Connection, RttEstimator,
    congestion::{Controller, ControllerFactory, CubicConfig},
};

use super::clock::StdInstant;

/// Builds controllers that are quinn-proto's default until the connection closes.
#[derive(Debug, Default)]
pub(super) struct Factory(Arc<CubicConfig>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: StdInstant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Closable { inner, shared: Arc::default() })
    }
}

/// The connection closes: what it sends from now on is not held back.
pub(super) fn open_window(connection: &Connection) {
    if let Some(shared) = shared(connection) {
        shared.is_closing.store(true, Ordering::Relaxed);
    }
}

/// Bytes sent and neither acknowledged nor taken to be lost, as of the latest acknowledgement: what is sent between two is
/// told in batches that count twice.
pub(super) fn in_flight(connection: &Connection) -> u64 {
    shared(connection).map_or(0, |shared| shared.in_flight.load(Ordering::Relaxed))
}

/// quinn-proto hands out clones alone, which share this.
fn shared(connection: &Connection) -> Option<Arc<Shared>> {
    let controller = connection.congestion_state().clone_box().into_any();
    controller.downcast::<Closable>().ok().map(|closable| closable.shared)
}

#[derive(Default)]
struct Shared {
    is_closing: AtomicBool,
    in_flight: AtomicU64,
}

struct Closable {
    inner: Box<dyn Controller>,
    shared: Arc<Shared>,
}

impl Controller for Closable {
    fn on_sent(&mut self, now: StdInstant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: StdInstant,
        sent: StdInstant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: StdInstant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.shared.in_flight.store(in_flight, Ordering::Relaxed);
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: StdInstant,
        sent: StdInstant,
        is_persistent: bool,
        lost_bytes: u64,
    ) {
        let left = self.shared.in_flight.load(Ordering::Relaxed).saturating_sub(lost_bytes);
        self.shared.in_flight.store(left, Ordering::Relaxed);
        self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.shared.is_closing.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), shared: Arc::clone(&self.shared) })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
