//! What is under the database: the file, and how it is looked at before anything is written to it.

use std::{
    any::Any,
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once, PoisonError},
};

use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError, backends::FileBackend};

/// A file, or what a test puts in its place.
pub(super) type Disk = Arc<dyn StorageBackend>;
/// Opens it, once for every time that the database is opened.
pub(super) type Source = Box<dyn Fn() -> Result<Disk, OpenError> + Send>;

/// Memory of redb while a file is only looked at.
const CHECK_CACHE: usize = 16 << 20;
/// Bytes that are written anew at once after a failure.
const STRETCH: usize = 1 << 20;
/// What is written by itself while a file is only looked at.
const BLOCK: usize = 4096;

/// Where the header has the bits that say how the database was left, and the one that asks for a repair: redb's file format,
/// version 2, "Database header".
const STATE_BITS: u64 = 9;
const REPAIR_NEEDED: u8 = 2;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum OpenError {
    #[error("another process has it open")]
    Locked,
    #[error("it is not a store")]
    Foreign,
    #[error("it was made by another version")]
    Version,
    #[error("it is damaged or cut short ({0})")]
    Damaged(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<DatabaseError> for OpenError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Locked,
            DatabaseError::UpgradeRequired(_) => Self::Version,
            // What redb says if the first bytes are not its own.
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                Self::Foreign
            }
            DatabaseError::Storage(StorageError::Io(error)) => Self::Io(error),
            error => Self::Damaged(error.to_string()),
        }
    }
}

/// The file at `path`, locked for this process.
pub(super) fn file(path: PathBuf) -> Source {
    Box::new(move || {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Arc::new(FileBackend::new(file)?))
    })
}

/// Makes an empty store at `path`, for this user alone, unless something is there that is not empty. A crash leaves all of
/// it or nothing.
pub(super) fn make(path: &Path) -> Result<(), OpenError> {
    let is_empty = match fs::metadata(path) {
        Ok(found) if found.len() > 0 => return Ok(()),
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    // Not a link, but what it leads to.
    let path = &if is_empty { fs::canonicalize(path)? } else { path.to_owned() };
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".store-").tempfile_in(folder)?;
    drop(Database::builder().create_file(made.reopen()?)?);
    let persisted = if is_empty { made.persist(path) } else { made.persist_noclobber(path) };
    match persisted {
        // Another process was faster.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
        other => drop(other.map_err(|error| error.error)?),
    }
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Takes away what others may do with the file.
#[cfg(unix)]
pub(super) fn keep_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "the store was open to others; it is not any more");
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700))
}

/// The database on a disk, which is read as a whole before anything is written to it.
pub(super) fn open(disk: Disk) -> Result<Database, OpenError> {
    let mut is_tidy = true;
    if disk.len()? > 0 {
        is_tidy = match check(&Overlay::new(&disk)?) {
            Err(OpenError::Damaged(why)) => {
                // Where a repair failed half-way redb does not see by itself that there is one to be made.
                let overlay = Overlay::new(&disk)?;
                let repaired = ask_for_repair(&*overlay).map_err(Into::into).and_then(|()| check(&overlay));
                let is_tidy = repaired.map_err(|_| OpenError::Damaged(why))?;
                ask_for_repair(&*disk)?;
                is_tidy
            }
            other => other?,
        };
    }
    let open = || {
        let mut database = Database::builder().create_with_backend(Shared(disk))?;
        if !is_tidy {
            database.check_integrity()?;
        }
        Ok(database)
    };
    guarded(open).map_err(OpenError::Damaged)?.map_err(|error: DatabaseError| error.into())
}

/// Reads all that is on the disk, and mends what a crash has left, in memory alone: a file that turns out to be damaged, or
/// none of ours, is left as it is. Says whether what is known of its free pages is right, which it may not be after a crash.
fn check(overlay: &Arc<Overlay>) -> Result<bool, OpenError> {
    let look = || {
        let overlay = Shared(Arc::<Overlay>::clone(overlay));
        Builder::new().set_cache_size(CHECK_CACHE).create_with_backend(overlay)?.check_integrity()
    };
    guarded(look).map_err(OpenError::Damaged)?.map_err(|error: DatabaseError| match error {
        // It has our first bytes, so it ends too early.
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            OpenError::Damaged("it ends too early".into())
        }
        error => error.into(),
    })
}

/// Sets the bit that a database has while it is open, and after a crash.
fn ask_for_repair(disk: &dyn StorageBackend) -> io::Result<()> {
    let mut bits = disk.read(STATE_BITS, 1)?;
    bits[0] |= REPAIR_NEEDED;
    disk.write(STATE_BITS, &bits)?;
    disk.sync_data(false)
}

/// Writes everything anew as it is read. If the system could not bring to the disk what was written, later reads show it
/// nevertheless, and nothing else would bring it there.
pub(super) fn rewrite(disk: &Disk) -> io::Result<()> {
    let len = disk.len()?;
    let mut at = 0;
    while at < len {
        let stretch = disk.read(at, STRETCH.min((len - at) as usize))?;
        for (n, block) in stretch.chunks(BLOCK).enumerate() {
            // A hole in the file, which may stay one.
            if block.iter().any(|byte| *byte != 0) {
                disk.write(at + (n * BLOCK) as u64, block)?;
            }
        }
        at += stretch.len() as u64;
    }
    disk.sync_data(false)
}

/// What `work` returns, or the words of its panic, which is not printed: redb panics at some damaged files.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    thread_local!(static IS_GUARDED: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_GUARDED.get() {
                others(info);
            }
        }));
    });
    let before = IS_GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    result.map_err(|panic| words(&*panic))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
    text.lines().next().unwrap_or_default().to_owned()
}

/// A disk that redb may have, while we keep it too.
#[derive(Debug)]
struct Shared(Disk);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        self.0.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// A disk that is only read: what is written to it stays in memory.
#[derive(Debug)]
struct Overlay {
    below: Disk,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Of the disk below only so much is seen.
    below: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    fn new(below: &Disk) -> io::Result<Arc<Self>> {
        let len = below.len()?;
        let written = Mutex::new(Written { len, below: len, blocks: BTreeMap::new() });
        Ok(Arc::new(Self { below: Arc::clone(below), written }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Written) -> T) -> T {
        act(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Written {
    /// A block as it is now.
    fn block(&self, below: &Disk, at: u64) -> io::Result<Box<[u8]>> {
        if let Some(block) = self.blocks.get(&at) {
            return Ok(block.clone());
        }
        let there = self.below.saturating_sub(at).min(BLOCK as u64) as usize;
        let mut block = if there > 0 { below.read(at, there)? } else { Vec::new() };
        block.resize(BLOCK, 0);
        Ok(block.into())
    }
}

/// The blocks that the bytes touch: where each begins, which of its bytes, and where those stand among all.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let from = (at % BLOCK as u64) as usize;
        let n = (BLOCK - from).min(len - done);
        done += n;
        (n > 0).then(|| (at - from as u64, from..from + n, done - n))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|written| written.len))
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.with(|written| {
            if offset.checked_add(len as u64).is_none_or(|end| end > written.len) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = Vec::with_capacity(len);
            for (at, range, _) in blocks(offset, len) {
                bytes.extend_from_slice(&written.block(&self.below, at)?[range]);
            }
            Ok(bytes)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|written| {
            written.len = len;
            written.below = written.below.min(len);
            written.blocks.retain(|at, _| *at < len);
        });
        Ok(())
    }

    fn sync_data(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|written| {
            for (at, range, from) in blocks(offset, data.len()) {
                let mut block = written.block(&self.below, at)?;
                let n = range.len();
                block[range].copy_from_slice(&data[from..from + n]);
                written.blocks.insert(at, block);
            }
            Ok(())
        })
    }
}
