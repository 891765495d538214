//! Dials under way.
