//! The machine that tests run on.

use std::{
    fmt,
    io::{self, Write as _},
    thread,
};

/// Says that the test cannot run, because the machine lacks something; the test is to return then. Where the environment
/// variable `CI` is set it fails instead: a machine that is to show that everything holds must have what that takes.
///
/// # Panics
/// If `CI` is set and not empty.
pub fn lacks(what: impl fmt::Display) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "this machine lacks {what}, and CI is set");
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not with a macro: the harness would keep it to itself. If nobody reads it, that is no fault of the test.
    let _ = writeln!(io::stderr(), "SKIPPED {test}: this machine lacks {what}");
}

/// Bytes of memory that this process holds; zero if the machine does not tell, which it [`lacks`] then.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    match statm.split(' ').nth(1).map(str::parse::<usize>) {
        Some(Ok(pages)) => pages * 4096,
        _ => {
            lacks("/proc/self/statm");
            0
        }
    }
}

/// How large a long test is to be: what the environment variable says, or else `usual`. It is printed.
///
/// # Panics
/// If the variable is no whole number.
pub fn size(variable: &str, usual: u64) -> u64 {
    let size = std::env::var(variable).map_or(usual, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, and must be a whole number"))
    });
    println!("{variable}={size}, {usual} is the whole");
    size
}
