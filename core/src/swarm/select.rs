//! Which of several connections to a peer carries a new stream.

use std::time::Duration;

use crate::ids::ConnectionId;

/// By what it is chosen. Whatever it is, a direct connection comes before a relayed one, and one that is about to be
/// closed comes last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The fewest streams, then the shortest round trip. py-libp2p's `best` takes the most streams, which piles
    /// everything on one connection; as all of them share the peer's resources, spreading costs nothing.
    #[default]
    Best,
    /// The one that was chosen longest ago.
    RoundRobin,
    /// The fewest streams.
    LeastLoaded,
    /// The healthiest; see [`health`](super::health).
    HealthBased,
    /// The shortest round trip.
    LatencyBased,
}

/// What is known of a connection that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The connection.
    pub connection: ConnectionId,
    /// Whether it runs through a relay.
    pub is_relayed: bool,
    /// Whether it is to be closed when it is not used any more.
    pub is_superseded: bool,
    /// Streams on it.
    pub streams: usize,
    /// How healthy it is, from 0 to 1.
    pub health: f64,
    /// Its round-trip time, if it was measured.
    pub rtt: Option<Duration>,
    /// A number that grows with each choice of the node: that of when it was last chosen.
    pub last_chosen: u64,
}

/// All choices, the best first; ties are won by the earlier one.
pub fn order(strategy: Strategy, choices: &mut [Choice]) {
    let rtt = |choice: &Choice| choice.rtt.unwrap_or(Duration::MAX);
    choices.sort_by(|a, b| {
        let by_kind = (a.is_superseded, a.is_relayed).cmp(&(b.is_superseded, b.is_relayed));
        by_kind.then_with(|| match strategy {
            Strategy::Best => (a.streams, rtt(a)).cmp(&(b.streams, rtt(b))),
            Strategy::RoundRobin => a.last_chosen.cmp(&b.last_chosen),
            Strategy::LeastLoaded => a.streams.cmp(&b.streams),
            Strategy::HealthBased => b.health.total_cmp(&a.health),
            Strategy::LatencyBased => rtt(a).cmp(&rtt(b)),
        })
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Id;

    fn choices() -> Vec<Choice> {
        let ms = Duration::from_millis;
        let choice = |n, is_relayed, streams, health, rtt, last_chosen| Choice {
            connection: ConnectionId::from_parts(n, 0),
            is_relayed,
            is_superseded: false,
            streams,
            health,
            rtt,
            last_chosen,
        };
        vec![
            choice(0, true, 0, 1.0, Some(ms(1)), 0),
            choice(1, false, 3, 0.9, Some(ms(50)), 7),
            choice(2, false, 1, 0.2, None, 9),
            choice(3, false, 1, 0.8, Some(ms(90)), 2),
        ]
    }

    fn chosen(strategy: Strategy, choices: &mut [Choice]) -> u32 {
        order(strategy, choices);
        choices[0].connection.index()
    }

    #[test]
    fn each_strategy_has_its_favourite_and_none_takes_a_relay_before_a_direct_connection() {
        for (strategy, expected) in [
            (Strategy::Best, 3),
            (Strategy::RoundRobin, 3),
            (Strategy::LeastLoaded, 2),
            (Strategy::HealthBased, 1),
            (Strategy::LatencyBased, 1),
        ] {
            assert_eq!(chosen(strategy, &mut choices()), expected, "{strategy:?}");
        }
    }

    #[test]
    fn what_is_about_to_be_closed_comes_last() {
        let mut all = choices();
        all.iter_mut().filter(|c| !c.is_relayed).for_each(|c| c.is_superseded = true);
        assert_eq!(chosen(Strategy::Best, &mut all), 0);
    }

    #[test]
    fn turns_are_taken() {
        let mut all = choices().split_off(1);
        let mut order = Vec::new();
        for turn in 10..16 {
            let next = chosen(Strategy::RoundRobin, &mut all);
            order.push(next);
            all[0].last_chosen = turn;
        }
        assert_eq!(order, [3, 1, 2, 3, 1, 2]);
    }
}
