//! Of the rendezvous point.

use super::{Family, Node, Tally, counter, gauge, one, renewed};
use crate::protocols::rendezvous::{
    Status,
    server::{Event, Server},
};

/// What clients were told.
#[derive(Debug)]
pub(super) struct PointTotals {
    refused: Tally<2>,
}

impl Default for PointTotals {
    fn default() -> Self {
        let known = REQUESTS
            .iter()
            .flat_map(|(request, statuses)| statuses.iter().map(|refusal| [*request, status(*refusal)]));
        Self { refused: Tally::zero(known) }
    }
}

impl PointTotals {
    /// Counts what an event says.
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Refused { request, status: code, .. } = event {
            self.refused.add([request, status(*code)], 1);
        }
    }
}

impl Node {
    pub(super) fn point_metrics(&self) -> Vec<Family> {
        let point = self.behaviour::<Server>();
        let held = |count: fn(&Server) -> usize| one(point.map_or(0, count));
        let count = |name| self.counters.get(name);
        let registered = [
            ([renewed(false)], count("rendezvous.registered")),
            ([renewed(true)], count("rendezvous.refreshed")),
        ];
        let ended = [
            (["expired"], count("rendezvous.expired")),
            (["unregistered"], count("rendezvous.unregistered")),
        ];
        let answers = [([], count("rendezvous.discovered"))];
        let sent = [([], count("rendezvous.registrations_sent"))];
        vec![
            gauge(
                "peerless_rendezvous_registrations",
                "Registrations that peers hold here",
                held(Server::registrations),
            ),
            gauge(
                "peerless_rendezvous_registrants",
                "Peers that are registered here",
                held(Server::registrants),
            ),
            gauge(
                "peerless_rendezvous_namespaces",
                "Namespaces in which peers are registered here",
                held(Server::namespaces),
            ),
            counter(
                "peerless_rendezvous_registered_total",
                "Registrations acknowledged, for the first time and again",
                Tally(registered.into()).samples(["renewed"]),
            ),
            counter(
                "peerless_rendezvous_ended_total",
                "Registrations that are over, by why",
                Tally(ended.into()).samples(["reason"]),
            ),
            counter(
                "peerless_rendezvous_discoveries_total",
                "Discoveries answered",
                Tally(answers.into()).samples([]),
            ),
            counter(
                "peerless_rendezvous_sent_total",
                "Registrations in those answers",
                Tally(sent.into()).samples([]),
            ),
            counter(
                "peerless_rendezvous_refused_total",
                "Requests refused, by the status in the answer",
                self.totals.point.refused.samples(["request", "status"]),
            ),
        ]
    }
}

/// What a point answers to each request when it says no.
const REQUESTS: [(&str, &[Status]); 2] = [
    (
        "register",
        &[
            Status::InvalidNamespace,
            Status::InvalidSignedPeerRecord,
            Status::InvalidTtl,
            Status::NotAuthorized,
            Status::Unavailable,
        ],
    ),
    ("discover", &[Status::InvalidNamespace, Status::InvalidCookie, Status::Unavailable]),
];

fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::InvalidNamespace => "E_INVALID_NAMESPACE",
        Status::InvalidSignedPeerRecord => "E_INVALID_SIGNED_PEER_RECORD",
        Status::InvalidTtl => "E_INVALID_TTL",
        Status::InvalidCookie => "E_INVALID_COOKIE",
        Status::NotAuthorized => "E_NOT_AUTHORIZED",
        Status::InternalError => "E_INTERNAL_ERROR",
        Status::Unavailable => "E_UNAVAILABLE",
        Status::Other(_) => "OTHER",
    }
}
