//! The programs: those given, and the others built from this tree, all with the same profile.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Options;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// That of our workspace, for those who have their own.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "thin"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4"),
];

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) peerless: PathBuf,
    pub(crate) rust_peer: PathBuf,
    pub(crate) quinn_forwarder: PathBuf,
}

impl Programs {
    /// Builds what is not given.
    pub(crate) fn get(options: &Options) -> Result<Self, String> {
        let target = target_dir()?;
        let root = Path::new(ROOT);
        let get = |given: &Option<PathBuf>, name: &str, folder: PathBuf, target: PathBuf| match given {
            Some(path) => Ok(path.clone()),
            None => build(name, &folder, &target),
        };
        Ok(Self {
            peerless: get(&options.peerless, "peerless", root.join("runtime-mio"), target.clone())?,
            rust_peer: get(
                &options.rust_peer,
                "rust-peer",
                root.join("tests/interop/rust"),
                target.join("rust-peer"),
            )?,
            quinn_forwarder: get(
                &options.quinn_forwarder,
                "quinn-forwarder",
                root.join("benches/quinn-forwarder"),
                target.join("quinn-forwarder"),
            )?,
        })
    }
}

/// The one that this program was built in.
fn target_dir() -> Result<PathBuf, String> {
    let me = env::current_exe().map_err(|error| error.to_string())?;
    me.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| "this program lies in no target directory".into())
}

fn build(name: &str, folder: &Path, target: &Path) -> Result<PathBuf, String> {
    eprintln!("building {name}");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--locked", "--bin", name, "--target-dir"])
        .arg(target)
        .current_dir(folder)
        .envs(PROFILE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("{name} does not build"));
    }
    Ok(target.join("release").join(name))
}
