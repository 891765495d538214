//! All splices: their timers, and the line before the rate that they share.

use std::collections::BTreeMap;

use super::{Pipes, Splice, Turn};
use crate::{
    errors::SpliceEnd,
    ids::{Arena, SpliceId},
    streams::{pace::Pace, windows::CHECK},
    time::{Deadline, Instant, Timers},
};

/// All splices, their timers, and the line before the rate that they share.
#[derive(Debug, Default)]
pub(crate) struct Splices {
    table: Arena<SpliceId, Splice>,
    cuts: Timers<SpliceId>,
    idles: Timers<SpliceId>,
    resumes: Timers<SpliceId>,
    /// When to look how much they carry.
    looks: Timers<SpliceId>,
    /// Bytes per second of all splices together.
    pace: Option<Pace>,
    line: BTreeMap<u64, SpliceId>,
    next_ticket: u64,
    /// What those that have ended carried.
    ended: (u64, u64),
}

impl Splices {
    /// No splices, which together may move `rate` bytes per second; 0 is no limit.
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        Self { pace: Pace::new(rate, now), ..Self::default() }
    }

    /// The rate from now on. Those that wait in line are let go by it too, if there is none.
    pub(crate) fn set_rate(&mut self, rate: u64, now: Instant) {
        let rate = if rate == 0 && !self.line.is_empty() { u64::MAX } else { rate };
        self.pace = Pace::new(rate, now);
    }

    pub(crate) fn insert(&mut self, splice: Splice) -> SpliceId {
        let idle = Some(splice.limit.idle).filter(|idle| !idle.is_zero());
        let idle_at = idle.map(|idle| splice.moved_at + idle);
        let id = self.table.insert(Splice { idle_at, ..splice });
        if let Some(at) = idle_at {
            self.idles.set(at, id);
        }
        id
    }

    pub(crate) fn get(&self, id: SpliceId) -> Option<&Splice> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: SpliceId) -> Option<&mut Splice> {
        self.table.get_mut(id)
    }

    pub(crate) fn remove(&mut self, id: SpliceId) -> Option<Splice> {
        let splice = self.table.remove(id)?;
        self.ended = sum(self.ended, splice.counts());
        let timers = [
            (splice.cut_at, &mut self.cuts),
            (splice.idle_at, &mut self.idles),
            (splice.resume_at, &mut self.resumes),
            (splice.look_at, &mut self.looks),
        ];
        for (at, timers) in timers {
            if let Some(at) = at {
                timers.clear(at, id);
            }
        }
        if let Some(ticket) = splice.ticket {
            self.line.remove(&ticket);
        }
        Some(splice)
    }

    /// One turn of a splice. Who comes while others wait in line joins them.
    pub(crate) fn turn(&mut self, id: SpliceId, pipes: &mut impl Pipes, now: Instant) -> Turn {
        let allowed = match &mut self.pace {
            Some(_) if !self.line.is_empty() => Some(0),
            Some(pace) => Some(pace.available(now)),
            None => None,
        };
        self.turn_within(id, pipes, now, allowed)
    }

    /// A turn of the splice that [`Splices::pop_line`] gave.
    pub(crate) fn turn_first(&mut self, id: SpliceId, pipes: &mut impl Pipes, now: Instant) -> Turn {
        let allowed = self.pace.as_mut().map(|pace| pace.available(now));
        self.turn_within(id, pipes, now, allowed)
    }

    fn turn_within(
        &mut self,
        id: SpliceId,
        pipes: &mut impl Pipes,
        now: Instant,
        allowed: Option<u64>,
    ) -> Turn {
        let Some(splice) = self.table.get_mut(id) else { return Turn::Idle };
        splice.scheduled = false;
        let mut left = allowed;
        let turn = splice.turn(pipes, now, &mut left);
        if let (Some(pace), Some(allowed), Some(left)) = (&mut self.pace, allowed, left) {
            pace.spend(allowed - left);
        }
        match turn {
            // It waits already.
            Turn::Queued if splice.ticket.is_some() => return Turn::Idle,
            Turn::Paced(at) if splice.resume_at == Some(at) => return Turn::Idle,
            Turn::Queued => {
                splice.ticket = Some(self.next_ticket);
                self.line.insert(self.next_ticket, id);
                self.next_ticket += 1;
            }
            Turn::Paced(at) => {
                if let Some(old) = splice.resume_at.replace(at) {
                    self.resumes.clear(old, id);
                }
                self.resumes.set(at, id);
            }
            _ => {}
        }
        turn
    }

    /// Takes a splice that waited long enough for its own rate.
    pub(crate) fn pop_resumed(&mut self, now: Instant) -> Option<SpliceId> {
        let (_, id) = self.resumes.pop_due(now)?;
        if let Some(splice) = self.table.get_mut(id) {
            splice.resume_at = None;
        }
        Some(id)
    }

    /// Has a splice looked at in a while, unless that is due already.
    pub(crate) fn look_later(&mut self, id: SpliceId, now: Instant) {
        if let Some(splice) = self.table.get_mut(id).filter(|splice| splice.look_at.is_none()) {
            splice.look_at = Some(now + CHECK);
            self.looks.set(now + CHECK, id);
        }
    }

    /// Takes a splice that is to be looked at.
    pub(crate) fn pop_look(&mut self, now: Instant) -> Option<SpliceId> {
        let (_, id) = self.looks.pop_due(now)?;
        if let Some(splice) = self.table.get_mut(id) {
            splice.look_at = None;
        }
        Some(id)
    }

    /// Takes the first in line, if the shared rate lets it pass.
    pub(crate) fn pop_line(&mut self, now: Instant) -> Option<SpliceId> {
        if self.line.is_empty() || !self.pace.as_mut()?.is_ready(now) {
            return None;
        }
        let (_, id) = self.line.pop_first()?;
        if let Some(splice) = self.table.get_mut(id) {
            splice.ticket = None;
        }
        Some(id)
    }

    /// Ends a splice at `at`, once what it accepted has had the time to get through.
    pub(crate) fn cut(&mut self, id: SpliceId, at: Instant) {
        if let Some(splice) = self.table.get_mut(id).filter(|s| s.cut_at.is_none()) {
            splice.cut_at = Some(at);
            self.cuts.set(at, id);
        }
    }

    /// Takes a splice whose time has come, and why.
    pub(crate) fn pop_over(&mut self, now: Instant) -> Option<(SpliceId, SpliceEnd)> {
        if let Some((_, id)) = self.cuts.pop_due(now) {
            if let Some(splice) = self.table.get_mut(id) {
                splice.cut_at = None;
            }
            return Some((id, SpliceEnd::Limit));
        }
        while let Some((_, id)) = self.idles.pop_due(now) {
            let Some(splice) = self.table.get_mut(id) else { continue };
            let at = splice.moved_at + splice.limit.idle;
            splice.idle_at = Some(at).filter(|at| *at > now);
            if splice.idle_at.is_none() {
                return Some((id, SpliceEnd::Idle));
            }
            self.idles.set(at, id);
        }
        None
    }

    /// When the next splice has something to wait for, and what.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let line = self.pace.filter(|_| !self.line.is_empty()).map(|pace| pace.ready_at());
        let timers = [
            (self.cuts.next(), "circuit limit"),
            (self.idles.next(), "circuit idle"),
            (self.resumes.next(), "circuit rate"),
            (self.looks.next(), "circuit window"),
            (line, "relay rate"),
        ];
        timers.into_iter().filter_map(|(at, why)| at.map(|at| Deadline::new(at, why))).min()
    }

    #[cfg(test)]
    pub(super) fn is_nobody_in_line(&self) -> bool {
        self.line.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Timers that are set.
    pub(crate) fn timers(&self) -> usize {
        self.cuts.len() + self.idles.len() + self.resumes.len() + self.looks.len()
    }

    /// Bytes that all splices so far have delivered from `a` to `b` and from `b` to `a`.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.table.iter().fold(self.ended, |so_far, (_, splice)| sum(so_far, splice.counts()))
    }
}

fn sum(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
}
