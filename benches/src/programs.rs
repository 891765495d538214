//! The programs that are measured: those given, and the others built from this tree, all with the same profile.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// That of our workspace, for those who have their own.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "thin"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4"),
];

/// Programs that are built already.
#[derive(Clone, Debug, Default, Args)]
pub struct Given {
    /// The `peerless` program, if it is built already
    #[arg(long)]
    peerless: Option<PathBuf>,
    /// The rust-libp2p peer of the interop suite, if it is built already
    #[arg(long)]
    rust_peer: Option<PathBuf>,
    /// The go-libp2p peer of the interop suite, if it is built already
    #[arg(long)]
    go_peer: Option<PathBuf>,
    /// The programs on quinn alone, if they are built already
    #[arg(long)]
    quinn_peer: Option<PathBuf>,
    /// The directory of the examples of the tests, if they are built already
    #[arg(long)]
    examples: Option<PathBuf>,
}

impl Given {
    /// Our command, built if it is not given.
    ///
    /// # Errors
    /// If it does not build.
    pub fn peerless(&self) -> Result<PathBuf, String> {
        let build = |target: PathBuf| cargo("runtime-mio", &["--bin", "peerless"], &target, "peerless");
        self.peerless.clone().map_or_else(|| build(target_dir()?), Ok)
    }

    /// rust-libp2p, built if it is not given.
    ///
    /// # Errors
    /// If it does not build.
    pub fn rust_peer(&self) -> Result<PathBuf, String> {
        let args = ["--bin", "rust-peer"];
        let build =
            |target: PathBuf| cargo("tests/interop/rust", &args, &target.join("rust-peer"), "rust-peer");
        self.rust_peer.clone().map_or_else(|| build(target_dir()?), Ok)
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Our command.
    pub peerless: PathBuf,
    /// Peers of ours, many in one process.
    pub crowd: PathBuf,
    /// The core without sockets.
    pub memory: PathBuf,
    /// rust-libp2p.
    pub rust_peer: PathBuf,
    /// go-libp2p, if there is Go.
    pub go_peer: Option<PathBuf>,
    /// Nothing on top of quinn.
    pub quinn_peer: PathBuf,
    /// Where the example of each driver is.
    pub examples: PathBuf,
}

impl Programs {
    /// Builds what is not given.
    ///
    /// # Errors
    /// If something does not build.
    pub fn get(given: &Given) -> Result<Self, String> {
        let target = target_dir()?;
        let root = Path::new(ROOT);
        let release = target.join("release");
        let get = |given: &Option<PathBuf>, folder: &str, args: &[&str], target: &Path, place: &str| {
            given.clone().map_or_else(|| cargo(folder, args, target, place), Ok)
        };
        let quinn = ["--bin", "quinn-peer"];
        let examples = ["-p", "peerless-tests", "--examples"];
        let ours = ["-p", "peerless-benches", "--bin", "crowd", "--bin", "relay_memory"];
        let crowd = cargo("", &ours, &target, "crowd")?;
        Ok(Self {
            peerless: given.peerless()?,
            crowd,
            memory: release.join("relay_memory"),
            rust_peer: given.rust_peer()?,
            go_peer: given.go_peer.clone().or_else(|| go(&root.join("tests/interop/go"), &target)),
            quinn_peer: get(
                &given.quinn_peer,
                "benches/quinn-peer",
                &quinn,
                &target.join("quinn-peer"),
                "quinn-peer",
            )?,
            examples: get(&given.examples, "tests", &examples, &target, "examples")?,
        })
    }
}

/// The one that this program was built in.
fn target_dir() -> Result<PathBuf, String> {
    let me = env::current_exe().map_err(|error| error.to_string())?;
    me.ancestors().nth(2).map(Path::to_owned).ok_or_else(|| "this program lies in no target directory".into())
}

fn cargo(folder: &str, args: &[&str], target: &Path, place: &str) -> Result<PathBuf, String> {
    eprintln!("building {place}");
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--release", "--locked", "--target-dir"]).arg(target).args(args);
    command.envs(PROFILE).current_dir(Path::new(ROOT).join(folder));
    if !succeeds(&mut command)? {
        return Err(format!("{place} does not build"));
    }
    Ok(target.join("release").join(place))
}

/// Who has no Go has a table without it.
fn go(folder: &Path, target: &Path) -> Option<PathBuf> {
    eprintln!("building go-peer");
    let place = target.join("go-peer");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&place).arg(".").current_dir(folder);
    match succeeds(&mut command) {
        Ok(true) => Some(place),
        _ => {
            eprintln!("go-peer does not build: it is left out");
            None
        }
    }
}

fn succeeds(command: &mut Command) -> Result<bool, String> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.map(|status| status.success()).map_err(|error| format!("{:?}: {error}", command.get_program()))
}
