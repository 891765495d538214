//! Ratios against a peer built and run in the same run.
