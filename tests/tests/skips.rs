//! No test passes because it could not run, where everything is to be shown.

use std::{path::Path, process::Command};

use peerless_tests::machine;

#[test]
#[ignore = "started by what_a_machine_lacks_is_seen_and_fails_where_ci_is_set"]
fn one_that_cannot_run() {
    machine::lacks("a unicorn");
}

#[test]
fn what_a_machine_lacks_is_seen_and_fails_where_ci_is_set() {
    let own = std::env::current_exe().expect("it runs");
    for (ci, passes) in [(None, true), (Some(""), true), (Some("true"), false), (Some("1"), false)] {
        let mut command = Command::new(&own);
        command.args(["--ignored", "--exact", "one_that_cannot_run"]).env_remove("CI");
        let output = command.envs(ci.map(|value| ("CI", value))).output().expect("it runs again");
        assert_eq!(output.status.success(), passes, "CI={ci:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let skipped = text.contains("SKIPPED one_that_cannot_run: this machine lacks a unicorn");
        assert_eq!((skipped, text.contains("a unicorn")), (passes, true), "CI={ci:?}: {text}");
    }
}

/// Where a test gives up without [`machine::lacks`]: a line for each.
fn silent_skips(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let offends = |line: &str| {
        let line = line.to_lowercase();
        let prints = line.contains("print!(") || line.contains("println!(");
        prints && ["skip", "return print", "return eprint"].iter().any(|word| line.contains(word))
    };
    lines.filter(|(_, line)| offends(line)).map(|(n, line)| format!("{path}:{}: {line}", n + 1)).collect()
}

#[test]
fn nothing_else_skips() {
    for bad in [
        r#"found => return println!("no network"),"#,
        r#"eprintln!("skipped: no network");"#,
        r#"print!("skipping");"#,
    ] {
        assert_eq!(silent_skips("f.rs", bad).len(), 1, "{bad}");
    }
    assert_eq!(silent_skips("f.rs", "println!(\"{n} found\");\ncount(\"skipped.own\");\nreturn;"), [""; 0]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    let (mut files, mut violations) = (0, Vec::new());
    let mut folders: Vec<_> =
        ["core", "proto", "tests", "runtime-mio", "runtime-async-std"].map(|name| root.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("skips.rs")
            {
                files += 1;
                let text = std::fs::read_to_string(&path).expect("a text");
                violations.extend(silent_skips(&path.display().to_string(), &text));
            }
        }
    }
    assert!(files > 100, "only {files} files found");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
