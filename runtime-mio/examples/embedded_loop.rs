//! A node inside a loop that serves something else too: whoever connects by TCP is told how many peers the node has.
//!
//! ```text
//! cargo run --example embedded_loop -- [SECONDS]
//! ```

use std::{
    error::Error,
    io::{self, Write},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpListener, unix::SourceFd};
use peerless_core::{identity::Identity, node, rng::Rng};
use peerless_mio::{Runtime, RuntimeConfig};

const NODE: Token = Token(0);
const TCP: Token = Token(1);

#[expect(clippy::disallowed_methods, reason = "a loop has a clock")]
fn main() -> Result<(), Box<dyn Error>> {
    use std::os::fd::AsRawFd;

    let seconds = std::env::args().nth(1).map_or(Ok(u64::MAX), |text| text.parse())?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let config = RuntimeConfig { listen: vec!["127.0.0.1:0".parse()?], ..RuntimeConfig::default() };
    let mut runtime = Runtime::new(node::Config::new(Identity::generate(&mut Rng::new(seed))), config)?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    println!("tcp {}", listener.local_addr()?);

    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&runtime.as_raw_fd()), NODE, Interest::READABLE)?;
    poll.registry().register(&mut listener, TCP, Interest::READABLE)?;
    let (start, mut ready) = (Instant::now(), Events::with_capacity(16));
    while start.elapsed().as_secs() < seconds {
        // One turn that does not wait, whatever woke the loop: it costs little when there is nothing to do.
        runtime.turn(Some(Duration::ZERO))?;
        while let Some(event) = runtime.poll_event() {
            println!("{event}");
        }
        let end = Duration::from_secs(seconds).saturating_sub(start.elapsed());
        let wait = runtime.wait(Some(end));
        match poll.poll(&mut ready, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        if ready.iter().any(|event| event.token() == TCP) {
            while let Ok((mut stream, _)) = listener.accept() {
                // Whoever does not wait for the answer does not want it.
                let _ = writeln!(stream, "{} connections", runtime.node().connections().len());
            }
        }
    }
    runtime.shutdown();
    Ok(runtime.run(|_, _| {})?)
}
