//! Asking points: the connection, the stream, the answer, and the time that may take.

use std::collections::VecDeque;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use peerless_proto::pb::{self, rendezvous::Message};

use super::{Client, Dialect, Error, Event, Timer, events::NO_ANSWER};
use crate::{
    behaviour::{Context, StreamEvent},
    errors::{CloseReason, DialError, OpenError},
    ids::{ConnectionId, StreamId, Token},
    info::Info,
    protocols::rendezvous::RENDEZVOUS,
    time::Instant,
};

/// Requests to one point that are under way at a time; further ones wait for their turn.
const MAX_PARALLEL: usize = 4;
/// Addresses kept of a point.
const MAX_PLACES: usize = 8;

/// What is known of a point as long as something is wanted of it.
#[derive(Debug, Default)]
pub(super) struct Point {
    /// Where it is, the latest word first.
    pub(super) addresses: Vec<Multiaddr>,
    /// How many wish something of it.
    users: usize,
    dial: Option<Token>,
    /// Requests that wait for a connection or for their turn.
    waiting: VecDeque<Job>,
    /// Requests under way.
    active: usize,
    /// In which it took a record of ours.
    pub(super) dialect: Option<Dialect>,
    /// In which it may, by what it calls itself.
    pub(super) hint: Option<Dialect>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// REGISTER, for one of the registrations.
    Register(Token),
    /// UNREGISTER, for one of those that leave.
    Leave(Token),
    /// DISCOVER, for a watch or a discovery.
    Search(Token),
}

/// A request to a point.
#[derive(Debug)]
pub(super) struct Request {
    point: PeerId,
    until: Instant,
    stage: Stage,
}

/// Besides what is listed, [`Client::drop_request`] and the timeout end each.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Until there is a connection and the request has its turn.
    Waiting,
    /// A stream was asked for; until it is there, is refused, or its connection ends.
    Opening(Token),
    /// It was sent; until an answer, a fault, the end, or the end of the connection.
    Asked(StreamId),
}

/// What a stream is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Asked(Job),
    /// All is said; until the remote's end or the timeout.
    Closing {
        until: Instant,
    },
}

impl Request {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Asked(_))
    }
}

impl Client {
    /// Somebody wants something of the point at that address.
    pub(super) fn use_point(&mut self, point: PeerId, address: &Multiaddr) {
        let known = self.points.entry(point).or_default();
        known.users += 1;
        known.learn(address);
    }

    /// The same place or a better one.
    pub(super) fn move_point(&mut self, point: PeerId, address: &Multiaddr) {
        if let Some(known) = self.points.get_mut(&point) {
            known.learn(address);
        }
    }

    /// Nobody else has to want anything of it any more.
    pub(super) fn release_point(&mut self, point: PeerId) {
        let Some(known) = self.points.get_mut(&point) else { return };
        known.users -= 1;
        if known.users == 0 {
            self.points.remove(&point);
        }
    }

    /// Sends a request as soon as possible. The answer comes to whom the job belongs, or the reason for which there is
    /// none.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, point: PeerId, job: Job) {
        let Some(known) = self.points.get_mut(&point) else { return };
        known.waiting.push_back(job);
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, Timer::Request(job));
        self.requests.insert(job, Request { point, until, stage: Stage::Waiting });
        self.proceed(cx, point);
    }

    /// Does what can be done for the requests that wait.
    pub(super) fn proceed(&mut self, cx: &mut Context<'_>, point: PeerId) {
        let Some(known) = self.points.get_mut(&point).filter(|known| !known.waiting.is_empty()) else {
            return;
        };
        let Some(connection) = cx.view().connections.best(&point) else {
            if known.dial.is_none() {
                cx.emit(Event::Connecting { point });
                known.dial = Some(cx.dial(Some(point), known.addresses.clone()));
            }
            return;
        };
        while known.active < MAX_PARALLEL
            && let Some(job) = known.waiting.pop_front()
        {
            let Some(request) = self.requests.get_mut(&job) else { continue };
            let token = cx.open(connection, RENDEZVOUS);
            request.stage = Stage::Opening(token);
            self.opening.insert(token, connection, job);
            known.active += 1;
        }
    }

    pub(super) fn on_dialed(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: Result<ConnectionId, DialError>,
    ) {
        let Some((point, known)) = self.points.iter_mut().find(|(_, known)| known.dial == Some(token)) else {
            return;
        };
        let point = *point;
        known.dial = None;
        if result.is_ok() && cx.view().connections.best(&point).is_some() {
            return self.proceed(cx, point);
        }
        let error = result.err().unwrap_or(DialError { attempts: Vec::new() });
        let waiting: Vec<_> = known.waiting.iter().copied().collect();
        for job in waiting {
            self.fail(cx, job, Error::Unreachable(error.clone()));
        }
    }

    pub(super) fn on_opened(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        result: Result<StreamId, OpenError>,
    ) {
        let stream = match (self.opening.remove(token), result) {
            (None, Ok(stream)) => return cx.reset(stream),
            (None, Err(_)) => return,
            (Some((_, job)), Err(error)) => return self.fail(cx, job, Error::Open(error)),
            (Some((connection, job)), Ok(stream)) => {
                let Some(request) = self.requests.get_mut(&job) else { return cx.reset(stream) };
                request.stage = Stage::Asked(stream);
                self.streams.insert(stream, connection, Purpose::Asked(job));
                (stream, connection, job)
            }
        };
        let (stream, connection, job) = stream;
        match job {
            Job::Register(id) => self.send_register(cx, id, stream),
            Job::Search(id) => self.send_discover(cx, id, stream),
            Job::Leave(id) => {
                self.send_leave(cx, id, stream);
                self.close(cx, stream, connection);
                self.drop_job(cx, job);
            }
        }
    }

    pub(super) fn on_stream(&mut self, cx: &mut Context<'_>, stream: StreamId, event: StreamEvent) {
        let Some(purpose) = self.streams.get(stream).copied() else { return };
        match (purpose, event) {
            (Purpose::Asked(job), StreamEvent::Frame(frame)) => self.on_answer(cx, stream, job, &frame),
            (Purpose::Asked(job), StreamEvent::Finished) => {
                self.fail(cx, job, Error::Malformed(NO_ANSWER));
            }
            (Purpose::Asked(job), StreamEvent::Reset(fault)) => {
                self.streams.remove(stream);
                self.fail(cx, job, Error::Stream(fault));
            }
            (Purpose::Closing { until }, StreamEvent::Finished | StreamEvent::Reset(_)) => {
                self.timers.clear(until, Timer::Stream(stream));
                self.streams.remove(stream);
            }
            _ => {}
        }
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, stream: StreamId, job: Job, frame: &[u8]) {
        // A stream waits for one answer only. It is ended now and not with the question, as some points take our end
        // for a reason to break off.
        if let Some((connection, _)) = self.streams.remove(stream) {
            self.close(cx, stream, connection);
        }
        let Ok(message) = pb::decode::<Message>(frame) else {
            return self.fail(cx, job, Error::Malformed("not a rendezvous message"));
        };
        match (job, message) {
            (Job::Register(id), Message { register_response: Some(answer), .. }) => {
                self.end_request(cx, job);
                self.registered(cx, id, &answer);
            }
            (Job::Search(id), Message { discover_response: Some(answer), .. }) => {
                self.end_request(cx, job);
                self.found(cx, id, answer);
            }
            _ => self.fail(cx, job, Error::Malformed("not an answer")),
        }
    }

    pub(super) fn on_disconnected(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        reason: &CloseReason,
    ) {
        let mut jobs: Vec<_> =
            self.opening.remove_connection(connection).into_iter().map(|(_, job)| job).collect();
        for (stream, purpose) in self.streams.remove_connection(connection) {
            match purpose {
                Purpose::Asked(job) => jobs.push(job),
                Purpose::Closing { until } => self.timers.clear(until, Timer::Stream(stream)),
            }
        }
        for job in jobs {
            self.fail(cx, job, Error::Disconnected(reason.clone()));
        }
    }

    pub(super) fn on_identified(&mut self, peer: PeerId, info: &Info) {
        if let Some(point) = self.points.get_mut(&peer) {
            point.hint = Dialect::of_agent(&info.agent);
        }
    }

    /// A request comes to nothing: whoever wanted it decides.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, job: Job, error: Error) {
        if !self.requests.contains_key(&job) {
            return;
        }
        self.drop_request(cx, job);
        match job {
            Job::Register(id) => self.register_failed(cx, id, error),
            Job::Search(id) => self.search_failed(cx, id, error),
            Job::Leave(_) => {
                cx.count("rendezvous.client.leave_failed");
                self.drop_job(cx, job);
            }
        }
    }

    /// Gives a request up, and its stream with it.
    pub(super) fn drop_request(&mut self, cx: &mut Context<'_>, job: Job) {
        match self.requests.get(&job).map(|request| request.stage) {
            Some(Stage::Opening(token)) => drop(self.opening.remove(token)),
            Some(Stage::Asked(stream)) => {
                // A lost stream is not in the table any more, and an answered one has another purpose.
                if let Some(Purpose::Asked(_)) = self.streams.get(stream) {
                    self.streams.remove(stream);
                    cx.reset(stream);
                }
            }
            Some(Stage::Waiting) | None => {}
        }
        self.end_request(cx, job);
    }

    /// A request has ended, one way or the other: the next one may go.
    fn end_request(&mut self, cx: &mut Context<'_>, job: Job) {
        let Some(Request { point, until, stage }) = self.requests.remove(&job) else { return };
        self.timers.clear(until, Timer::Request(job));
        if let Some(known) = self.points.get_mut(&point) {
            match stage {
                Stage::Waiting => known.waiting.retain(|other| *other != job),
                Stage::Opening(_) | Stage::Asked(_) => known.active -= 1,
            }
        }
        self.proceed(cx, point);
    }

    /// Ends what belongs to no registration and no search.
    pub(super) fn drop_job(&mut self, cx: &mut Context<'_>, job: Job) {
        self.drop_request(cx, job);
        if let Job::Leave(id) = job
            && let Some((point, _)) = self.leaving.remove(&id)
        {
            self.release_point(point);
        }
    }

    /// Says no more on a stream, and waits for the remote's end.
    fn close(&mut self, cx: &mut Context<'_>, stream: StreamId, connection: ConnectionId) {
        cx.finish(stream);
        let until = cx.now() + self.config.timeout;
        self.timers.set(until, Timer::Stream(stream));
        self.streams.insert(stream, connection, Purpose::Closing { until });
    }
}

impl Point {
    fn learn(&mut self, address: &Multiaddr) {
        // A bare `/p2p` says nothing of where.
        if address.iter().nth(1).is_some() {
            self.addresses.retain(|other| other != address);
            self.addresses.insert(0, address.clone());
            self.addresses.truncate(MAX_PLACES);
        }
    }
}
