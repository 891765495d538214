//! For how long a reservation may be taken to last. A relay says it as a time on its wall clock, which is worth as much as
//! ours agrees with it.
//!
//! Relays grant round times, so if the clocks agree, what is left by ours is a round time as well; then it is believed.
//! If not, the relay is asked for a circuit to ourselves from time to time, which it does not know how to make
//! (NO_RESERVATION) once the reservation has ended: 5 s after the grant, and after twice as long whenever it is still held, until
//! it is time to renew it anyway. So it is renewed in time, whatever the clocks say, from the first time that it was not.

use std::time::Duration;

use super::grant::refresh_after;
use crate::rng::Rng;

/// What relays grant, in seconds: 10 and 30 s; 1, 2, 5, 10, 15, 20, 30 and 40 min; 1, 1.5, 2, 3, 4, 6, 8, 12 and 24 h.
const ROUND: [u64; 19] = [
    10, 30, 60, 120, 300, 600, 900, 1200, 1800, 2400, 3600, 5400, 7200, 10_800, 14_400, 21_600, 28_800,
    43_200, 86_400,
];

/// How much less may be left of a round time, for the way and whole seconds, and how much more, if the clocks agree.
const LESS: Duration = Duration::from_secs(3);
const MORE: Duration = Duration::from_secs(1);

/// A reservation is renewed as if it lasted no longer than this, which is what most relays grant: a clock that is hours slow
/// must not lose it.
const LONGEST: Duration = Duration::from_secs(3600);

/// The longest time that a reservation is taken to last.
const MAX_TERM: Duration = Duration::from_secs(24 * 3600);

/// When a relay is first checked whose clock does not agree with ours.
const FIRST_CHECK: Duration = Duration::from_secs(5);

/// What is known of how long one relay holds a reservation, as long as one is wanted there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// What was left of a grant when the clocks agreed.
    agreed: Option<Duration>,
    /// The longest after which a reservation was seen to be there still.
    held: Duration,
    /// The shortest after which one was seen to be gone.
    gone: Option<Duration>,
    /// That the clocks seemed to agree was chance: a reservation was there after its end by ours.
    by_chance: bool,
}

/// What to do about a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// It is taken to last so long.
    pub(super) term: Duration,
    /// When it is renewed.
    pub(super) renew: Duration,
    /// Whether it is checked before.
    pub(super) check: bool,
}

impl Seen {
    /// A relay granted a reservation of which so much is left by our clock. `None` if it ended it: the clocks agreed before, and
    /// nothing is left.
    pub(super) fn granted(&mut self, left: Duration, rng: &mut Rng) -> Option<Plan> {
        if left.is_zero()
            && let Some(agreed) = self.agreed.take()
        {
            // If it is our clock that was set, the relay goes on to hold what it held.
            (self.held, self.gone) = (agreed / 5 * 4, Some(agreed));
            return None;
        }
        if self.agreed.is_none() && !self.by_chance && is_round(left) {
            self.agreed = Some(left);
        }
        let left = left.min(MAX_TERM);
        // A clock that was set back makes it seem longer than before.
        let longest = self.agreed.unwrap_or(left).min(left).min(LONGEST);
        let usual = refresh_after(longest, rng);
        if self.agreed.is_some() {
            return Some(Plan { term: left, renew: usual, check: false });
        }
        if let Some(gone) = self.gone {
            // What lasted for longer than is left was granted by a slower clock than ours.
            let term = if left <= self.held { gone } else { left.min(gone) };
            let latest = if self.held.is_zero() { gone / 2 } else { self.held };
            return Some(Plan { term, renew: rng.between(latest - latest / 10, latest), check: false });
        }
        let enough = refresh_after(LONGEST, rng);
        let mut next = (self.held * 2).max(FIRST_CHECK);
        let end = left + 2 * MORE;
        if !left.is_zero() && self.held < end {
            // The clocks may agree on a time that is not round.
            next = next.min(end);
        }
        Some(Plan { term: left.max(next * 2), renew: next.min(enough), check: next < enough })
    }

    /// How long after its grant a reservation is checked again that was found to be there `after` it; `None` if it is to be
    /// renewed before. The clocks may agree on a time that is not round, so it is checked just behind what was `stated`.
    pub(super) fn next_check(after: Duration, stated: Duration) -> Option<Duration> {
        let end = stated.saturating_add(2 * MORE);
        let next = if after < end && !stated.is_zero() { (after * 2).min(end) } else { after * 2 };
        Some(next).filter(|next| *next < LONGEST / 2)
    }

    /// A reservation was found to be there so long after it was granted, and well after its end by our clock.
    pub(super) fn outlived(&mut self, after: Duration) {
        (self.agreed, self.by_chance) = (None, true);
        self.checked(after, true);
    }

    /// A reservation was found to be there, or to be gone, so long after it was granted.
    pub(super) fn checked(&mut self, after: Duration, is_held: bool) {
        if is_held {
            self.held = self.held.max(after);
        } else {
            self.gone = Some(self.gone.map_or(after, |gone| gone.min(after)));
        }
    }
}

fn is_round(left: Duration) -> bool {
    ROUND.iter().any(|secs| {
        let round = Duration::from_secs(*secs);
        round.saturating_sub(LESS.min(round / 4)) <= left && left <= round + MORE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn round_times_are_believed_and_renewed_within_an_hour() {
        let mut rng = Rng::new([0; 32]);
        for (left, latest) in [(3600, 2880), (3598, 2880), (600, 480), (10, 5), (7200, 2880), (86400, 2880)] {
            let plan = Seen::default().granted(secs(left), &mut rng).unwrap();
            assert_eq!((plan.term, plan.check), (secs(left), false));
            assert!(plan.renew <= secs(latest) && plan.renew >= secs(latest) / 20 * 18, "{left}: {plan:?}");
        }
    }

    #[test]
    fn other_times_are_checked_until_the_relay_is_known() {
        let mut rng = Rng::new([0; 32]);
        for left in [70, 69, 4500, 0, 1, 2700, 100_000, u64::MAX] {
            let mut seen = Seen::default();
            let mut checks = Vec::new();
            loop {
                let plan = seen.granted(secs(left), &mut rng).unwrap();
                assert!(plan.term >= plan.renew && plan.renew <= secs(2880), "{left}: {plan:?}");
                if !plan.check {
                    break;
                }
                checks.push(plan.renew.as_secs());
                seen.checked(plan.renew, true);
            }
            assert!(checks.len() <= 12 && checks[0] <= 5, "{left}: {checks:?}");
        }
        let mut seen = Seen::default();
        seen.checked(secs(5), true);
        seen.checked(secs(10), false);
        let plan = seen.granted(secs(70), &mut rng).unwrap();
        assert!(plan.term == secs(10) && plan.renew <= secs(5) && !plan.check, "{plan:?}");
    }

    #[test]
    fn what_a_known_relay_ends_is_ended_and_what_grows_is_not_believed_for_renewals() {
        let mut rng = Rng::new([0; 32]);
        let mut seen = Seen::default();
        assert!(seen.granted(secs(600), &mut rng).is_some());
        assert!(seen.granted(secs(1500), &mut rng).unwrap().renew <= secs(480));
        assert_eq!(seen.granted(Duration::ZERO, &mut rng), None);
        let plan = seen.granted(Duration::ZERO, &mut rng).unwrap();
        assert!(plan.renew <= secs(480) && !plan.check, "our clock may have been set");
    }
}
