//! Congestion control that lets a closing connection say so.
//!
//! quinn-proto holds a CONNECTION_CLOSE back while unsent data waits for the congestion window. A closed connection takes
//! no more acknowledgements, so the window never opens again: nothing is sent, and the remote waits for its idle timeout.
//! A connection that closes therefore gets a window without end; all that it still sends are goodbyes.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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
        Box::new(Closable { inner, is_closing: Arc::default() })
    }
}

/// The connection closes: what it sends from now on is not held back.
pub(super) fn open_window(connection: &Connection) {
    // The clone shares the mark.
    if let Ok(closable) = connection.congestion_state().clone_box().into_any().downcast::<Closable>() {
        closable.is_closing.store(true, Ordering::Relaxed);
    }
}

struct Closable {
    inner: Box<dyn Controller>,
    is_closing: Arc<AtomicBool>,
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
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(
        &mut self,
        now: StdInstant,
        sent: StdInstant,
        is_persistent: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.is_closing.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), is_closing: Arc::clone(&self.is_closing) })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
