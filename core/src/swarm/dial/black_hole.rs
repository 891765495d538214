//! Networks that swallow what is sent: after many attempts in vain, most are not made (go-libp2p, black hole detector).

/// When a kind of address is taken to lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlackHoleConfig {
    /// How many of the latest attempts are looked at, and which share of them is made all the same: one in so many.
    pub window: usize,
    /// Fewer answers than this among them mean a black hole.
    pub answers: usize,
}

impl Default for BlackHoleConfig {
    fn default() -> Self {
        Self { window: 100, answers: 5 }
    }
}

/// What is known of a kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not enough attempts to tell. Exits: [`State::Open`] and [`State::Blocked`] by the attempt that fills the window.
    Probing,
    /// Answers come. Exit: [`State::Blocked`] when they become too few.
    Open,
    /// Hardly any answer came. Exit: [`State::Probing`] by an answer to one of the few attempts that are made.
    Blocked,
}

/// Counts answers to attempts at one kind of address, such as all of IPv6.
#[derive(Clone, Debug)]
pub struct BlackHole {
    config: BlackHoleConfig,
    /// The latest attempts, the oldest at `next` once the window is full.
    results: Vec<bool>,
    next: usize,
    answers: usize,
    asked: usize,
}

impl BlackHole {
    /// Knows nothing yet. A window of 0 never blocks.
    pub fn new(config: BlackHoleConfig) -> Self {
        Self { config, results: Vec::new(), next: 0, answers: 0, asked: 0 }
    }

    /// What the attempts so far say.
    pub fn state(&self) -> State {
        if self.config.window == 0 || self.results.len() < self.config.window {
            State::Probing
        } else if self.answers >= self.config.answers {
            State::Open
        } else {
            State::Blocked
        }
    }

    /// Whether to make an attempt; of a blocked kind one in a window's length is made.
    pub fn admits(&mut self) -> bool {
        if self.state() != State::Blocked {
            return true;
        }
        self.asked += 1;
        self.asked.is_multiple_of(self.config.window)
    }

    /// How an attempt went. Whatever came back is an answer; to be given up because another address was faster is none.
    pub fn record(&mut self, answered: bool) {
        if self.config.window == 0 {
            return;
        }
        if self.state() == State::Blocked && answered {
            *self = Self::new(self.config);
            return;
        }
        self.answers += usize::from(answered);
        if self.results.len() < self.config.window {
            self.results.push(answered);
            return;
        }
        let oldest = std::mem::replace(&mut self.results[self.next], answered);
        self.answers -= usize::from(oldest);
        self.next = (self.next + 1) % self.config.window;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(results: impl IntoIterator<Item = bool>) -> BlackHole {
        let mut counter = BlackHole::new(BlackHoleConfig::default());
        results.into_iter().for_each(|answered| counter.record(answered));
        counter
    }

    #[test]
    fn five_answers_in_a_hundred_are_enough_and_four_are_not() {
        let with = |answers: usize| counter((0..100).map(|n| n < answers)).state();
        assert_eq!((with(5), with(4)), (State::Open, State::Blocked));
        assert_eq!(counter((0..99).map(|_| false)).state(), State::Probing);
    }

    #[test]
    fn old_answers_fall_out_of_the_window() {
        let mut counter = counter((0..100).map(|n| n < 5));
        counter.record(false);
        assert_eq!(counter.state(), State::Blocked, "the oldest of five was an answer");
    }

    #[test]
    fn a_blocked_kind_is_probed_once_in_a_hundred_and_one_answer_opens_it() {
        let mut counter = counter((0..100).map(|_| false));
        assert_eq!((0..300).filter(|_| counter.admits()).count(), 3);
        counter.record(true);
        assert_eq!(counter.state(), State::Probing);
        assert!((0..300).all(|_| counter.admits()));
    }

    #[test]
    fn a_window_of_nothing_never_blocks() {
        let mut counter = BlackHole::new(BlackHoleConfig { window: 0, answers: 5 });
        counter.record(false);
        assert!(counter.admits());
    }
}
