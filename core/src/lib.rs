//! libp2p without the I/O: pure state machines that consume bytes, timers and commands and emit actions.

pub mod tls;
