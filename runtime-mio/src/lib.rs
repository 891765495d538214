//! Peerless on a blocking mio event loop, and the `peerless` command.
