//! What quinn alone costs: accepts connections, dials a target for each, and forwards the chunks of every
//! bidirectional stream either side opens, without copying them.
//!
//! `quinn-forwarder LISTEN TARGET`, two socket addresses. Both sides see a libp2p peer, so that libp2p's programs can
//! use it, but there is no libp2p here beyond the certificate: no identify, no circuits, no limits.

use std::{env, error::Error, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use libp2p_identity::Keypair;
use quinn::{
    ClientConfig, Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Chunks read and written at once.
const CHUNKS: usize = 32;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [listen, target] = &arguments[..] else { return Err("usage: quinn-forwarder LISTEN TARGET".into()) };
    let target: SocketAddr = target.parse()?;
    let key = Keypair::generate_ed25519();
    let endpoint = endpoint(&key, listen.parse()?)?;
    let local = endpoint.local_addr()?;
    let family = if local.is_ipv4() { "ip4" } else { "ip6" };
    let (ip, port, peer) = (local.ip(), local.port(), key.public().to_peer_id());
    println!(r#"{{"event":"listening","address":"/{family}/{ip}/udp/{port}/quic-v1/p2p/{peer}"}}"#);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(endpoint.clone(), incoming, target));
    }
    Ok(())
}

/// These configurations put ChaCha20 first, but leave the choice to the peers: to the client of one leg, and to the
/// server of the other if it insists. Peerless at both ends means AES-128 on both legs.
fn endpoint(key: &Keypair, listen: SocketAddr) -> Result<Endpoint, Failure> {
    let server = QuicServerConfig::try_from(libp2p_tls::make_server_config(key)?)?;
    let client = QuicClientConfig::try_from(libp2p_tls::make_client_config(key, None)?)?;
    let mut endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(server)), listen)?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(client)));
    Ok(endpoint)
}

async fn serve(endpoint: Endpoint, incoming: Incoming, target: SocketAddr) -> Result<(), Failure> {
    let near = incoming.await?;
    let far = endpoint.connect(target, "l")?.await?;
    tokio::join!(forward_streams(&near, &far), forward_streams(&far, &near));
    Ok(())
}

/// Forwards the streams that one side opens, until its connection ends, and then ends the other's.
async fn forward_streams(from: &Connection, to: &Connection) {
    while let Ok((send, receive)) = from.accept_bi().await {
        let Ok((to_send, to_receive)) = to.open_bi().await else { break };
        tokio::spawn(forward(receive, to_send));
        tokio::spawn(forward(to_receive, send));
    }
    to.close(0u32.into(), b"");
}

async fn forward(mut from: RecvStream, mut to: SendStream) -> Result<(), Failure> {
    let mut chunks: [Bytes; CHUNKS] = Default::default();
    while let Some(count) = from.read_chunks(&mut chunks).await? {
        to.write_all_chunks(&mut chunks[..count]).await?;
    }
    Ok(to.finish()?)
}
