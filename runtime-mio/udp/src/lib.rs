//! What every runtime of Peerless needs of the system, whatever it waits with: UDP sockets that send and receive in
//! batches, the addresses of the network interfaces, and the records that name servers have.
//!
//! Nothing here waits for a socket of the node: a runtime brings its own kind of socket and says how to try a call on it.

mod interfaces;
mod names;
mod resolver;
mod socket;

pub use interfaces::{Interfaces, bound, source_for};
pub use names::Answer;
pub use resolver::{Question, Resolver};
pub use socket::{MAX_SEND, Pending, ReceiveBuffers, Sent, Socket, bind_all};
