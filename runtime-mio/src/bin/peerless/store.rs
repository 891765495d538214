//! What the node stores, in one file: a redb database on a thread of its own, so that no sync to disk holds the node up.
//!
//! Each request is one transaction, and its answer is given when that is on the disk. The node asks for one thing at a
//! time and collects meanwhile, so the slower the disk the larger the transactions.
//!
//! A database that failed, because the disk is full or ill, is closed and opened again later and later, without end. What
//! was acknowledged is in it then; what was asked for meanwhile was answered with a failure, and so is what a disk takes too
//! long for.

mod disk;
mod engine;
mod keeper;
mod watch;

use std::{
    fmt, fs,
    io::ErrorKind,
    path::Path,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use peerless_core::storage::{StorageAnswer, StorageId, StorageRequest, StoreError};
use peerless_mio::{Handle, HandleError};

pub(crate) use self::watch::{Figures, Watch};
use self::{
    disk::OpenError,
    engine::Engine,
    keeper::{Keeper, Note, Times, work},
};
use crate::{
    Failure,
    report::{Line, Reporter},
};

/// How long to wait before the node is told again, if as many commands wait for it as may.
const RETRY: Duration = Duration::from_millis(1);

/// An open store.
pub(crate) struct Store {
    engine: Engine,
}

impl Store {
    /// Opens the file or makes it, and has nobody else read it. What is not a store, or is damaged, stays as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let shown = path.display();
                return Err(Failure::Usage(format!("--store needs a file, and {shown} is a directory")));
            }
            Ok(found) if !found.is_file() => {
                let shown = path.display();
                return Err(Failure::Usage(format!(
                    "--store needs a file of its own, and {shown} is a device"
                )));
            }
            _ => {}
        }
        let open = || {
            disk::make(path)?;
            let engine = Engine::open(disk::file(path.to_owned()))?;
            #[cfg(unix)]
            disk::keep_private(path)?;
            Ok(engine)
        };
        open().map(|engine| Self { engine }).map_err(|error| sentence(path, error))
    }

    /// Serves the node that `handle` leads to, on threads of its own.
    pub(crate) fn serve(self, handle: Handle, report: Reporter) -> Result<Serving, Failure> {
        let tell = move |id, answer| tell(&handle, id, answer);
        let say = move |line: &Line| report.line(line);
        Ok(self.serve_with(Times::USUAL, tell, say)?)
    }

    fn serve_with(
        self,
        times: Times,
        tell: impl Fn(StorageId, Result<StorageAnswer, StoreError>) + Send + 'static,
        say: impl Fn(&Line) + Send + 'static,
    ) -> std::io::Result<Serving> {
        let (notes, heard) = channel();
        let (jobs, to_do) = channel();
        let watch = Watch::default();
        let outcomes = notes.clone();
        let worker = move || work(self.engine, &to_do, &outcomes);
        thread::Builder::new().name("store disk".into()).spawn(worker)?;
        let keeper = Keeper::new(jobs, watch.clone(), times, tell, say);
        let keeper = thread::Builder::new().name("store".into()).spawn(move || keeper.run(&heard))?;
        Ok(Serving { notes, keeper: Some(keeper), watch })
    }
}

fn tell(handle: &Handle, id: StorageId, answer: Result<StorageAnswer, StoreError>) {
    loop {
        let answer = answer.clone();
        match handle.send(move |node, now| node.handle_storage(now, id, answer)) {
            Err(HandleError::Full) => thread::sleep(RETRY),
            // If the node is gone, what it asked for last is done all the same.
            _ => break,
        }
    }
}

/// What is wrong, and what would be right.
fn sentence(path: &Path, error: OpenError) -> Failure {
    let shown = path.display();
    let usage = match error {
        OpenError::Locked => {
            format!("the store {shown} is in use: give each process a file of its own")
        }
        OpenError::Foreign => format!("{shown} is not a store: name another file"),
        OpenError::Version => format!("the store {shown} is of another version: name another file"),
        OpenError::Damaged(why) => {
            format!(
                "the store {shown} is damaged or cut short ({why}): put a copy back, or name another file"
            )
        }
        OpenError::Io(error) => match error.kind() {
            ErrorKind::NotFound => {
                format!("the directory of the store {shown} does not exist: make it first")
            }
            ErrorKind::PermissionDenied => {
                format!("the store {shown} must be a file that this user may read and write: {error}")
            }
            _ => return Failure::Failed(format!("cannot open the store {shown}: {error}")),
        },
    };
    Failure::Usage(usage)
}

/// A store that is served. It ends with what it was asked for, so drop the node before; but it does not wait for ever.
#[derive(Debug)]
pub(crate) struct Serving {
    notes: Sender<Note>,
    keeper: Option<JoinHandle<()>>,
    watch: Watch,
}

impl Serving {
    /// Asks for something; the node gets the answer.
    pub(crate) fn ask(&self, request: StorageRequest) {
        if self.notes.send(Note::Ask(request)).is_err() {
            tracing::error!("the store's thread is gone");
        }
    }

    /// How the store is.
    pub(crate) fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // If it is gone, there is nothing to wait for.
        let _ = self.notes.send(Note::End);
        if self.keeper.take().is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the store's thread has failed");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

#[cfg(test)]
mod tests;
