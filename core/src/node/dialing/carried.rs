//! Addresses that behaviours dial, as the relay client does circuits, and what they dial themselves on the way.

use multiaddr::Multiaddr;

use super::{Attempt, Dialing, Request, Requester, State};
use crate::{
    errors::DialError,
    ids::{JobId, Token},
    node::Node,
    swarm::dial::rank::{Candidate, Worth},
};

impl Dialing {
    /// Whether a dial waits for what this behaviour does under this token.
    pub(in crate::node) fn has_token(&self, index: usize, token: Token) -> bool {
        self.by_token.get(&token).is_some_and(|(_, dialer)| *dialer == index)
    }

    /// The dial that waited for what this behaviour does under this token.
    pub(in crate::node) fn take_token(&mut self, index: usize, token: Token) -> Option<JobId> {
        if !self.has_token(index, token) {
            return None;
        }
        self.by_token.remove(&token).map(|(job, _)| job)
    }

    /// Whether a behaviour has been given a dial, so that what it dials itself is a step of that.
    pub(super) fn serves(&self, index: usize) -> bool {
        self.by_token.values().any(|(_, dialer)| *dialer == index)
    }
}

impl Node {
    /// A dial in the queue has become a step of one that holds a place, and begins now.
    pub(super) fn exempt(&mut self, id: JobId) {
        let Some(job) = self.dialing.jobs.get_mut(id).filter(|job| job.state == State::Queued) else {
            return;
        };
        job.state = State::Exempt;
        self.dialing.queue.remove(id);
        self.next_attempt(id);
    }

    /// A behaviour is given a dial: what it dials itself must not wait behind that.
    pub(super) fn exempt_all_of(&mut self, index: usize) {
        if self.dialing.queue.waiting() == 0 {
            return;
        }
        let requests = self.dialing.requests.ids().filter_map(|id| self.dialing.requests.get(id));
        let is_its =
            |request: &&Request| matches!(request.requester, Requester::Behaviour(of, _) if of == index);
        for job in requests.filter(is_its).filter_map(|request| request.job).collect::<Vec<_>>() {
            self.exempt(job);
        }
    }

    /// The behaviour that dials an address, if that is not the node's business.
    pub(super) fn dialer_of(&self, address: &Multiaddr) -> Option<usize> {
        self.behaviours.iter().position(|slot| slot.behaviour.dials(address))
    }

    pub(super) fn candidate(&self, address: Multiaddr, worth: Worth, is_named: bool) -> Candidate {
        let is_carried = self.dialer_of(&address).is_some();
        Candidate { address, worth, is_named, is_carried }
    }

    /// The behaviour that was given an address could not make a connection.
    pub(in crate::node) fn carried_attempt_failed(&mut self, index: usize, token: Token, error: DialError) {
        let Some(id) = self.dialing.take_token(index, token) else { return };
        let Some(job) = self.dialing.jobs.get_mut(id) else { return };
        job.running.retain(|(_, attempt)| !matches!(attempt, Attempt::Carried(t) if *t == token));
        job.failed.extend(error.attempts);
        self.after_failure(id);
    }

    /// The addresses of a call, each once.
    pub(super) fn named(&self, addresses: &[Multiaddr]) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = Vec::new();
        for address in addresses {
            if !candidates.iter().any(|candidate| candidate.address == *address) {
                candidates.push(self.candidate(address.clone(), Worth::Vouched, true));
            }
        }
        candidates
    }
}
