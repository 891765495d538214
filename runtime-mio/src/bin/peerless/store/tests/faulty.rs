//! A disk whose operations fail, and whose system forgets in a crash what it has not brought to the disk.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Condvar, Mutex},
};

use peerless_core::rng::Rng;
use redb::StorageBackend;

use super::super::disk::{Disk, OpenError, Source};

/// What is written as a whole or not at all, as redb and other databases take for granted.
const SECTOR: usize = 512;

/// The machine that the disk is in.
#[derive(Clone)]
pub(super) struct Machine(Arc<(Mutex<State>, Condvar)>);

pub(super) struct State {
    /// What reads show.
    cache: Vec<u8>,
    /// What is there after a crash, but for `dirty`, of which each sector may be or not.
    platter: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// How often the disk was opened: who opened it earlier has it no more.
    opened: u32,
    rng: Rng,
    /// Of a thousand operations so many fail.
    pub(super) per_mille: u64,
    /// Whether nothing is brought to the disk.
    pub(super) syncs_fail: bool,
    /// Whether every operation waits until this is over.
    pub(super) stalls: bool,
    /// How many failed, by kind.
    pub(super) failed: [u32; 6],
}

/// The kinds of operations that fail.
const OPEN: usize = 0;
const READ: usize = 1;
const WRITE: usize = 2;
const SHORT: usize = 3;
const LEN: usize = 4;
const SYNC: usize = 5;

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let state = State {
            cache: Vec::new(),
            platter: Vec::new(),
            dirty: BTreeSet::new(),
            opened: 0,
            rng: Rng::new(bytes),
            per_mille: 0,
            syncs_fail: false,
            stalls: false,
            failed: [0; 6],
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    pub(super) fn source(&self) -> Source {
        let machine = self.clone();
        Box::new(move || {
            let opened = machine.with(|state| {
                state.may_fail(OPEN)?;
                state.opened += 1;
                Ok::<_, io::Error>(state.opened)
            });
            let disk: Disk = Arc::new(Faulty { machine: machine.clone(), opened: opened? });
            Ok::<_, OpenError>(disk)
        })
    }

    /// The power goes, and comes back: processes are gone, and of what was not on the disk any part may be.
    pub(super) fn crash(&self) {
        self.with(|state| {
            state.opened += 1;
            state.write_out(false);
            state.cache = state.platter.clone();
        });
    }
}

impl State {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        u64::from_le_bytes(self.rng.bytes()) % n
    }

    fn may_fail(&mut self, kind: usize) -> io::Result<()> {
        if self.per_mille == 0 || self.below(1000) >= self.per_mille {
            return Ok(());
        }
        self.failed[kind] += 1;
        // EIO, ENOSPC, EDQUOT.
        let code = [5, 28, 122][self.below(3) as usize];
        Err(io::Error::from_raw_os_error(code))
    }

    /// Brings to the disk what is not there, all of it or some. Either way it is not tried again.
    fn write_out(&mut self, all: bool) {
        for sector in std::mem::take(&mut self.dirty) {
            if all || self.below(2) == 0 {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.platter.len());
                if !range.is_empty() {
                    self.platter[range.clone()].copy_from_slice(&self.cache[range]);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Faulty {
    machine: Machine,
    opened: u32,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl Faulty {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let (state, changed) = &*self.machine.0;
        let mut state = state.lock().unwrap();
        while state.stalls {
            state = changed.wait(state).unwrap();
        }
        if state.opened != self.opened {
            return Err(io::Error::other("the process is dead"));
        }
        act(&mut state)
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.cache.len() as u64))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.with(|state| {
            state.may_fail(READ)?;
            let from = offset as usize;
            let bytes = state.cache.get(from..from + len).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(bytes.to_vec())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state| {
            state.may_fail(LEN)?;
            state.cache.resize(len as usize, 0);
            state.platter.resize(len as usize, 0);
            Ok(())
        })
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        self.with(|state| {
            if state.syncs_fail {
                state.dirty.clear();
                return Err(io::Error::from_raw_os_error(5));
            }
            let result = state.may_fail(SYNC);
            // As Linux does: what could not be written counts as clean from now on.
            state.write_out(result.is_ok());
            result
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|state| {
            state.may_fail(WRITE)?;
            let short = state.may_fail(SHORT);
            let whole = data.len() / SECTOR;
            let len =
                if short.is_err() { state.below(whole as u64 + 1) as usize * SECTOR } else { data.len() };
            let from = offset as usize;
            state.cache[from..from + len].copy_from_slice(&data[..len]);
            state.dirty.extend(from / SECTOR..(from + len).div_ceil(SECTOR));
            short
        })
    }
}
