//! Generational ids: a stale id is an error, never another object.

use std::{fmt, marker::PhantomData};

/// An id handed out by an [`Arena`].
pub trait Id: Copy + Eq {
    /// Builds the id from its slot and the generation of that slot.
    fn from_parts(index: u32, generation: u32) -> Self;
    /// The slot.
    fn index(self) -> u32;
    /// How often the slot had been reused when this id was made.
    fn generation(self) -> u32;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl Id for $name {
            fn from_parts(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }

            fn index(self) -> u32 {
                self.index
            }

            fn generation(self) -> u32 {
                self.generation
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}.{}", $letter, self.index, self.generation)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A connection to a peer, direct or through a relay.
    ConnectionId,
    'c'
);
id!(
    /// A stream of a connection.
    StreamId,
    's'
);
id!(
    /// A connection of the QUIC pipe, before and after it has a peer.
    QuicId,
    'q'
);
id!(
    /// A dial under way: one target, one or more addresses.
    DialId,
    'd'
);

id!(
    /// What a connection takes of the limited resources.
    ConnectionShare,
    'k'
);
id!(
    /// What a stream takes of the limited resources.
    StreamShare,
    't'
);
id!(
    /// What serves all dials for one connection.
    JobId,
    'j'
);

id!(
    /// Two streams joined.
    SpliceId,
    'p'
);
id!(
    /// A circuit that ends here, before and after it is a connection.
    CircuitId,
    'r'
);

/// A UDP socket of the embedder, by a number of the embedder's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// A request of a behaviour, unique within its node; the reply carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A question to the embedder's resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// A slab with generational ids. Iteration is in slot order, so it is the same in every run.
#[derive(Debug)]
pub struct Arena<I, T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
    id: PhantomData<I>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<I, T> Default for Arena<I, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0, id: PhantomData }
    }
}

impl<I: Id, T> Arena<I, T> {
    /// Stores `value` under a new id.
    pub fn insert(&mut self, value: T) -> I {
        self.insert_with(|_| value)
    }

    /// Stores what `make` returns for the new id.
    pub fn insert_with(&mut self, make: impl FnOnce(I) -> T) -> I {
        self.len += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let id = I::from_parts(index, slot.generation);
        slot.value = Some(make(id));
        id
    }

    /// Takes out the value of `id`; `None` if the id is stale.
    pub fn remove(&mut self, id: I) -> Option<T> {
        let slot = self.slots.get_mut(id.index() as usize).filter(|s| s.generation == id.generation())?;
        let value = slot.value.take()?;
        self.len -= 1;
        // A slot whose generations are used up is retired, so that no id ever comes back.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(id.index());
        }
        Some(value)
    }

    /// The value of `id`; `None` if the id is stale.
    pub fn get(&self, id: I) -> Option<&T> {
        self.slots
            .get(id.index() as usize)
            .filter(|s| s.generation == id.generation())
            .and_then(|s| s.value.as_ref())
    }

    /// The value of `id`; `None` if the id is stale.
    pub fn get_mut(&mut self, id: I) -> Option<&mut T> {
        self.slots
            .get_mut(id.index() as usize)
            .filter(|s| s.generation == id.generation())
            .and_then(|s| s.value.as_mut())
    }

    /// All ids and values in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.value.as_ref().map(|value| (I::from_parts(index as u32, slot.generation), value))
        })
    }

    /// All ids in slot order.
    pub fn ids(&self) -> impl Iterator<Item = I> + '_ {
        self.iter().map(|(id, _)| id)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing_though_its_slot_is_taken_again() {
        let mut arena = Arena::<StreamId, _>::default();
        let old = arena.insert("old");
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new");
        assert_eq!(new.index(), old.index());
        assert_eq!((arena.get(old), arena.get(new)), (None, Some(&"new")));
        assert_eq!((arena.remove(old), arena.len()), (None, 1));
    }
}
