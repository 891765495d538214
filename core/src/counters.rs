//! Named counters: every refusal, drop and limit adds to one.

use std::collections::BTreeMap;

/// Counters by dotted name, such as `relay.hop.refused.no_reservation`. Absent means zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    values: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Adds `n`, saturating.
    pub fn add(&mut self, name: &'static str, n: u64) {
        let value = self.values.entry(name).or_default();
        *value = value.saturating_add(n);
    }

    /// The current value.
    pub fn get(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or(0)
    }

    /// All counters that ever counted, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.values.iter().map(|(name, value)| (*name, *value))
    }
}
