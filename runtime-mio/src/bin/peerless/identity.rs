//! The key file: made once, kept private, replaced whole or not at all, and used by one node at a time.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use directories::ProjectDirs;
use peerless_core::{identity::Identity, rng::Rng};
use peerless_proto::keys;

use crate::{
    Failure,
    cli::Common,
    report::{Line, Reporter},
};

/// The file's name in the identity directory.
const KEY_FILE: &str = "identity.key";
/// More than any key takes, RSA of 8192 bits included.
const MAX_KEY: u64 = 64 * 1024;

/// Prints who we are, and where the key is.
pub(crate) fn tell(common: &Common, report: Reporter) -> Result<(), Failure> {
    let (identity, key) = load(common)?;
    let key = key.map(|path| path.display().to_string());
    if report.is_human() {
        // Scripts take the peer id from stdout.
        report.aside(&key.as_ref().map_or("the key is kept nowhere".into(), |path| format!("key in {path}")));
    }
    report.result(&Line::Id { peer: identity.peer().to_string(), key });
    Ok(())
}

/// The identity that the flags ask for, and, if its key is kept, the claim on it: no other process gets it until that is
/// dropped or this process ends.
pub(crate) fn hold(common: &Common) -> Result<(Identity, Option<Held>), Failure> {
    let (identity, key) = load(common)?;
    let held = key.as_deref().map(Held::take).transpose()?;
    Ok((identity, held))
}

/// A key file in use.
#[derive(Debug)]
pub(crate) struct Held {
    /// Locked; the system lets go of it with the process, however that ends.
    _file: fs::File,
}

impl Held {
    fn take(path: &Path) -> Result<Self, Failure> {
        let file = fs::File::open(path).map_err(|error| {
            Failure::Usage(format!("cannot read the key file {}: {error}", path.display()))
        })?;
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                return Err(Failure::Usage(format!(
                    "the identity in {} is in use by another process; give this one an --identity DIR of its own, or \
                     --ephemeral",
                    path.parent().unwrap_or(path).display()
                )));
            }
            // There are file systems without locks.
            Err(fs4::TryLockError::Error(error)) => {
                tracing::warn!(%error, "the key file cannot be locked; two processes must not use it");
            }
        }
        Ok(Self { _file: file })
    }
}

/// The identity that the flags ask for, and where its key is, if it is kept.
fn load(common: &Common) -> Result<(Identity, Option<PathBuf>), Failure> {
    if let Some(seed) = common.seed {
        return Ok((Identity::generate(&mut Rng::new(seed_bytes(seed)).fork("identity")), None));
    }
    if common.ephemeral {
        return Ok((generate()?, None));
    }
    let directory = directory(common)?;
    Ok((load_from(&directory)?, Some(directory.join(KEY_FILE))))
}

/// Where the key file is.
fn directory(common: &Common) -> Result<PathBuf, Failure> {
    if let Some(directory) = &common.identity {
        return Ok(directory.clone());
    }
    let project = ProjectDirs::from("", "", "peerless");
    project.map(|project| project.data_dir().to_owned()).ok_or_else(|| {
        Failure::Usage(
            "there is no home directory to keep an identity in; give --identity DIR or --ephemeral".into(),
        )
    })
}

/// All randomness of a run with `--seed`.
pub(crate) fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

fn generate() -> Result<Identity, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::Failed(format!("the system has no random numbers: {error}")))?;
    Ok(Identity::generate(&mut Rng::new(seed)))
}

fn load_from(directory: &Path) -> Result<Identity, Failure> {
    let path = directory.join(KEY_FILE);
    if let Some(identity) = read_key(&path)? {
        return Ok(identity);
    }
    let identity = generate()?;
    let bytes = identity
        .keypair()
        .to_protobuf_encoding()
        .map_err(|error| Failure::Failed(format!("cannot encode the new key: {error}")))?;
    match store(directory, &path, &bytes) {
        Ok(()) => Ok(identity),
        // Another process was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(&path)?.ok_or_else(|| {
            Failure::Usage(format!("the key file {} is a link that leads nowhere", path.display()))
        }),
        Err(error) => Err(Failure::Usage(format!(
            "cannot keep an identity in {}: {error}; give another --identity DIR, or --ephemeral",
            directory.display()
        ))),
    }
}

/// The key in the file; `None` if there is no file.
fn read_key(path: &Path) -> Result<Option<Identity>, Failure> {
    match read(path) {
        Ok(bytes) if bytes.is_empty() => Err(Failure::Usage(format!(
            "the key file {} is empty; put the right file there, or take it away to get a new identity",
            path.display()
        ))),
        Ok(bytes) => keys::decode_private_key(&bytes).map(|key| Some(Identity::new(key))).map_err(|error| {
            Failure::Usage(format!(
                "{} is not a libp2p private key ({error}); put the right file there, or take it away to get a new \
                 identity",
                path.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Usage(format!("cannot read the key file {}: {error}", path.display()))),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_KEY).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes beside and moves into place, so that the file is there whole or not at all. The temporary file is 0600 from
/// its first moment.
fn store(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".identity-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_alone_in_its_directory() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let first = load_from(&directory).unwrap();
        assert_eq!(load_from(&directory).unwrap().peer(), first.peer());
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [KEY_FILE]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(directory.join(KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn an_ed25519_key_that_repeats_its_public_half_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let identity = load_from(directory.path()).unwrap();
        let path = directory.path().join(KEY_FILE);
        let plain = fs::read(&path).unwrap();
        let old = [&[8, 1, 18, 96][..], &plain[4..], &plain[36..]].concat();
        fs::write(&path, old).unwrap();
        assert_eq!(load_from(directory.path()).unwrap().peer(), identity.peer());
    }

    #[test]
    fn a_key_that_cannot_be_read_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        for contents in [&b""[..], b"junk", &[8, 1, 18, 64, 1, 2, 3]] {
            fs::write(&path, contents).unwrap();
            let Err(Failure::Usage(sentence)) = load_from(directory.path()) else { panic!("{contents:?}") };
            assert_eq!(sentence.contains("is empty"), contents.is_empty(), "{sentence}");
            assert_eq!(fs::read(&path).unwrap(), contents);
        }
    }

    #[test]
    fn a_key_is_held_by_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        load_from(directory.path()).unwrap();
        let path = directory.path().join(KEY_FILE);
        let held = Held::take(&path).unwrap();
        let Err(Failure::Usage(sentence)) = Held::take(&path).map(drop) else { panic!("held twice") };
        assert!(sentence.contains("in use by another process"), "{sentence}");
        drop(held);
        Held::take(&path).unwrap();
    }

    #[test]
    fn of_two_processes_that_make_a_key_both_use_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        store(directory.path(), &path, b"first").unwrap();
        let error = store(directory.path(), &path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
}
