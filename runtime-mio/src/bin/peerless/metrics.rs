//! `--metrics`: what the node counts as Prometheus reads it, and whether the node is alive.

use std::{
    borrow::Cow,
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use peerless_core::node::{Family, Label, MetricKind, Metrics, Sample, Value};
use peerless_mio::Handle;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter},
    registry::Registry,
};

use crate::{
    http::{self, Limits, Page},
    store::{Figures, Watch},
};

/// How long the node may take to answer before it counts as dead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits { connections: 16, patience: Duration::from_secs(5) };
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/metrics` and `/healthz`, and returns at which address. The node answers within `patience`, or 503 tells that
/// it does not; `/healthz` says what is ill, a line for each. `dropped` says how many lines of output were.
pub(crate) fn serve(
    address: SocketAddr,
    node: Handle,
    patience: Duration,
    store: Option<Watch>,
    dropped: impl Fn() -> u64 + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    http::serve(listener, LIMITS, move |path| page(path, &node, patience, store.as_ref(), &dropped))?;
    Ok(bound)
}

fn page(
    path: &str,
    node: &Handle,
    patience: Duration,
    store: Option<&Watch>,
    dropped: &impl Fn() -> u64,
) -> Option<Page> {
    match path {
        "/metrics" => {
            let metrics = node.call_within(patience, |node, _| node.metrics());
            Some(match metrics {
                Ok(metrics) => {
                    let body = text(metrics, store.map(Watch::figures), dropped());
                    Page { status: 200, content_type: OPEN_METRICS, body }
                }
                Err(error) => Page::text(503, &error.to_string()),
            })
        }
        "/healthz" => {
            let of_node = node.call_within(patience, |_, _| ()).err().map(|error| error.to_string());
            let faults: Vec<_> = of_node.into_iter().chain(store.and_then(Watch::fault)).collect();
            let is_well = faults.is_empty();
            Some(if is_well { Page::text(200, "ok") } else { Page::text(503, &faults.join("\n")) })
        }
        _ => None,
    }
}

/// OpenMetrics text.
fn text(metrics: Metrics, store: Option<Figures>, dropped: u64) -> String {
    let mut registry = Registry::default();
    let help = "Lines of output and of the log that were dropped, as they were not read in time";
    registry.register("peerless_log_lines_dropped", help, ConstCounter::new(dropped));
    registry.register_collector(Box::new(Snapshot(metrics)));
    if let Some(figures) = store {
        registry.register_collector(Box::new(figures));
    }
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

#[derive(Debug)]
struct Snapshot(Metrics);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, samples, .. } in &self.0.families {
            let (name, kind) = match kind {
                // The encoder puts the suffix back.
                MetricKind::Counter => (name.strip_suffix("_total").unwrap_or(name), MetricType::Counter),
                MetricKind::Gauge => (*name, MetricType::Gauge),
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for Sample { labels, value, .. } in samples {
                if labels.is_empty() {
                    encode_value(&mut family, kind, *value)?;
                } else {
                    let labels: Vec<_> =
                        labels.iter().map(|(name, value)| (*name, label_text(value))).collect();
                    encode_value(&mut family.encode_family(&labels)?, kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { up, failures, reopened, stalls, refused } = *self;
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        for (name, help, kind, value) in [
            ("peerless_store_up", "Whether the store works", gauge, u64::from(up)),
            ("peerless_store_failures", "Failures of the store, to open it included", counter, failures),
            ("peerless_store_reopened", "Times that the store was opened again", counter, reopened),
            ("peerless_store_stalls", "Requests that took the store too long", counter, stalls),
            ("peerless_store_refused", "Requests that were not stored or not read", counter, refused),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            encode_value(&mut family, kind, Value::Whole(value))?;
        }
        Ok(())
    }
}

fn label_text(value: &Label) -> Cow<'static, str> {
    match value {
        Label::Word(word) => Cow::Borrowed(word),
        Label::Peer(peer) => Cow::Owned(peer.to_string()),
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: MetricType, value: Value) -> fmt::Result {
    match (kind, value) {
        (MetricType::Counter, Value::Whole(value)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        (MetricType::Counter, Value::Real(value)) => {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        }
        (_, Value::Whole(value)) => metric.encode_gauge(&value),
        (_, Value::Real(value)) => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests;
