//! Registrations in the order of numbers that only grow, packed into chunks: what follows each other in the order lies
//! together in memory. O(log n) to find a place, O(1) amortized beyond that but for moving the list of chunks.

use smallvec::SmallVec;

/// Most entries of a chunk.
const CHUNK: usize = 128;
/// How far from where it would be, if numbers were spread evenly, an entry is looked for first.
const NEAR: usize = 8;
/// The owner of an entry that has been removed, until its chunk is packed again.
const GONE: u32 = u32::MAX;

/// Registrations by number.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// None of them is without a living entry.
    chunks: SmallVec<[Chunk; 1]>,
    len: usize,
    /// No entry has a larger number.
    latest: u64,
}

/// A place in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) slot: u32,
    /// Whose registration it is.
    pub(super) owner: u32,
}

#[derive(Debug)]
struct Chunk {
    /// The key of the first entry, be it alive or gone.
    first: (u64, u32),
    /// The number of the last.
    last: u64,
    /// Entries that are not gone.
    living: usize,
    entries: Vec<Entry>,
}

impl Order {
    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry that is not there: quickly if its number is the largest, as it is but for what is loaded from a
    /// store.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        let is_last = entry.number > self.latest;
        self.latest = self.latest.max(entry.number);
        match self.chunks.last_mut() {
            None => self.chunks.push(Chunk::of(vec![entry])),
            Some(last) if is_last && last.entries.len() < CHUNK => {
                last.last = entry.number;
                last.entries.push(entry);
                last.living += 1;
            }
            Some(_) if is_last => self.chunks.push(Chunk::of(vec![entry])),
            Some(_) => self.insert_between(entry),
        }
    }

    fn insert_between(&mut self, entry: Entry) {
        let at = self.chunk_of(entry.key());
        let chunk = &mut self.chunks[at];
        match chunk.search(entry.key()) {
            Ok(gone) => chunk.entries[gone] = entry,
            Err(place) => chunk.entries.insert(place, entry),
        }
        chunk.first = chunk.first.min(entry.key());
        chunk.last = chunk.last.max(entry.number);
        chunk.living += 1;
        if chunk.entries.len() > CHUNK {
            chunk.pack();
        }
        if chunk.entries.len() > CHUNK {
            let rest = chunk.entries.split_off(CHUNK / 2);
            *chunk = Chunk::of(std::mem::take(&mut chunk.entries));
            self.chunks.insert(at + 1, Chunk::of(rest));
        }
    }

    /// Takes an entry out, if it is there.
    pub(super) fn remove(&mut self, number: u64, slot: u32) {
        let key = (number, slot);
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let Ok(place) = chunk.search(key) else { return };
        let entry = &mut chunk.entries[place];
        if entry.owner == GONE {
            return;
        }
        entry.owner = GONE;
        chunk.living -= 1;
        self.len -= 1;
        if chunk.living == 0 {
            self.chunks.remove(at);
        } else if chunk.living * 2 <= chunk.entries.len() {
            chunk.pack();
            self.join(at);
        }
    }

    /// Moves the entries of a chunk into the one before it, if they have room there.
    fn join(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else { return };
        if self.chunks[before].entries.len() + self.chunks[at].entries.len() <= CHUNK {
            let chunk = self.chunks.remove(at);
            let before = &mut self.chunks[before];
            before.last = chunk.last;
            before.living += chunk.living;
            before.entries.extend(chunk.entries);
        }
    }

    /// The entries with larger numbers than `after`, in order.
    pub(super) fn after(&self, after: u64) -> impl Iterator<Item = Entry> {
        let end = (after, u32::MAX);
        let from = if after < self.latest { self.chunk_of(end) } else { self.chunks.len() };
        let skipped =
            self.chunks.get(from).map_or(0, |chunk| chunk.search(end).unwrap_or_else(|place| place));
        let entries = self.chunks[from..].iter().flat_map(|chunk| &chunk.entries).skip(skipped);
        entries.filter(|entry| entry.owner != GONE).copied()
    }

    /// The chunk in which a key is, or would be.
    fn chunk_of(&self, key: (u64, u32)) -> usize {
        self.chunks.partition_point(|chunk| chunk.first <= key).saturating_sub(1)
    }
}

impl Entry {
    fn key(&self) -> (u64, u32) {
        (self.number, self.slot)
    }
}

impl Chunk {
    /// Of some entries that are alive.
    fn of(entries: Vec<Entry>) -> Self {
        let (first, last) = (entries[0].key(), entries[entries.len() - 1].number);
        Self { first, last, living: entries.len(), entries }
    }

    /// Where the entry with this key is, or else where it would be. The place is guessed, because each other place that is
    /// looked at is one that no cache has.
    fn search(&self, key: (u64, u32)) -> Result<usize, usize> {
        let (entries, end) = (&self.entries, self.entries.len());
        let passed = u128::from(key.0.saturating_sub(self.first.0));
        let span = u128::from((self.last - self.first.0).max(1));
        let guess = (passed * end as u128 / span).min(end as u128) as usize;
        let (low, high) = (guess.saturating_sub(NEAR), (guess + NEAR).min(end));
        match entries[low..high].binary_search_by_key(&key, Entry::key) {
            Ok(at) => Ok(low + at),
            Err(at) if (at > 0 || low == 0) && (low + at < high || high == end) => Err(low + at),
            Err(_) => entries.binary_search_by_key(&key, Entry::key),
        }
    }

    /// Drops what is gone, and room that is not needed soon.
    fn pack(&mut self) {
        self.entries.retain(|entry| entry.owner != GONE);
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) {
            (self.first, self.last) = (first.key(), last.number);
        }
        if self.entries.capacity() >= 4 * self.entries.len() {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rng::Rng;

    fn entry(number: u64) -> Entry {
        Entry { number, slot: (number % 1000) as u32, owner: 7 }
    }

    fn check(order: &Order, model: &BTreeSet<u64>, seed: u64) {
        assert_eq!(order.len(), model.len(), "seed {seed}");
        let held: usize = order.chunks.iter().map(|chunk| chunk.entries.len()).sum();
        let room: usize = order.chunks.iter().map(|chunk| chunk.entries.capacity()).sum();
        assert!(held <= 2 * model.len(), "seed {seed}: {held} entries held for {}", model.len());
        assert!(room <= 8 * model.len(), "seed {seed}: room for {room} entries, {} there", model.len());
        for chunk in &order.chunks {
            assert!(chunk.living > 0 && chunk.entries.len() <= CHUNK, "seed {seed}");
            let ends = (chunk.entries[0].key(), chunk.entries[chunk.entries.len() - 1].number);
            assert_eq!((chunk.first, chunk.last), ends, "seed {seed}");
        }
    }

    #[test]
    fn reads_as_a_sorted_set_does() {
        for seed in 0..20 {
            let mut rng = Rng::new([seed as u8; 32]);
            let (mut order, mut model, mut latest) = (Order::default(), BTreeSet::new(), 0);
            let most = [3, 200, 2000][seed as usize % 3];
            for step in 0..5000 {
                let any = model.range(rng.below(latest + 1)..).next().copied();
                match rng.below(5) {
                    0 if seed % 2 == 0 => {
                        let number = rng.below(latest + 100) + 1;
                        if model.insert(number) {
                            order.insert(entry(number));
                        }
                        latest = latest.max(number);
                    }
                    0..3 if model.len() < most => {
                        // Mostly close together, and sometimes far apart.
                        latest += if rng.below(100) == 0 { 1 << 40 } else { 1 + rng.below(3) };
                        model.insert(latest);
                        order.insert(entry(latest));
                    }
                    _ => {
                        let number = any.unwrap_or(0);
                        model.remove(&number);
                        order.remove(number, entry(number).slot);
                        order.remove(number, entry(number).slot);
                    }
                }
                if step % 10 == 0 {
                    let after = rng.below(latest + 2);
                    let read: Vec<_> = order.after(after).take(300).collect();
                    let expected: Vec<_> =
                        model.range(after + 1..).take(300).map(|number| entry(*number)).collect();
                    assert_eq!(read, expected, "seed {seed}, step {step}");
                    check(&order, &model, seed);
                }
            }
            for number in model {
                order.remove(number, entry(number).slot);
            }
            assert!(order.chunks.is_empty() && order.len() == 0, "seed {seed}");
        }
    }

    #[test]
    fn two_with_one_number_are_told_apart() {
        let mut order = Order::default();
        let twins = [Entry { number: 5, slot: 1, owner: 1 }, Entry { number: 5, slot: 2, owner: 2 }];
        for twin in twins {
            order.insert(twin);
        }
        assert_eq!(order.after(4).collect::<Vec<_>>(), twins);
        order.remove(5, 1);
        assert_eq!(order.after(0).collect::<Vec<_>>(), [twins[1]]);
        assert_eq!(order.after(5).count(), 0);
    }
}
