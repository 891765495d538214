//! Ratios against a peer built and run in the same run.

// A bench is what reads clocks and starts threads.
#![allow(clippy::disallowed_methods)]

pub mod crowd;
pub mod process;
pub mod programs;
pub mod summary;
