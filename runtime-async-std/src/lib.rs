//! Peerless on async-std.
