//! What quinn alone costs, on tokio.
//!
//! ```text
//! quinn-peer forward LISTEN TARGET     forwards streams between who connects and TARGET
//! quinn-peer hold LISTEN               lets libp2p peers connect and keeps them
//! quinn-peer listen LISTEN             the other end of the following
//! quinn-peer upload ADDRESS BYTES      one stream there
//! quinn-peer download ADDRESS BYTES    one stream back
//! quinn-peer echo ADDRESS BYTES        there and back at the same time
//! quinn-peer rtt ADDRESS COUNT         so many round trips of 64 bytes
//! ```
//!
//! All addresses are socket addresses. Who forwards or holds looks like a libp2p peer, so that libp2p's programs can use
//! it, but there is no libp2p here beyond the certificate. The others speak AES-128 with each other.

use std::{env, error::Error, net::SocketAddr, time::Instant};

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, ReadExactError, RecvStream, SendStream};

mod endpoint;

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str =
    "usage: quinn-peer forward LISTEN TARGET | hold LISTEN | listen LISTEN | upload|download|echo|rtt ADDRESS N";
/// Chunks read and written at once.
const CHUNKS: usize = 32;
const CHUNK: usize = 64 << 10;
static ZEROS: [u8; CHUNK] = [0; CHUNK];
const MESSAGE: usize = 64;
/// The first byte of a stream says what the rest of it is for.
const ECHO: u8 = 0;
const PERF: u8 = 1;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["forward", listen, target] => forward_all(listen.parse()?, target.parse()?).await,
        ["hold", listen] => hold(listen.parse()?).await,
        ["listen", listen] => serve_all(listen.parse()?).await,
        ["upload", to, bytes] => perf("upload", to.parse()?, bytes.parse()?, 0).await,
        ["download", to, bytes] => perf("download", to.parse()?, 0, bytes.parse()?).await,
        ["echo", to, bytes] => echo(to.parse()?, bytes.parse()?).await,
        ["rtt", to, count] => rtt(to.parse()?, count.parse()?).await,
        _ => Err(USAGE.into()),
    }
}

async fn forward_all(listen: SocketAddr, target: SocketAddr) -> Result<(), Failure> {
    let endpoint = endpoint::libp2p(listen)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(forward_connection(endpoint.clone(), incoming, target));
    }
    Ok(())
}

async fn forward_connection(endpoint: Endpoint, incoming: Incoming, target: SocketAddr) -> Result<(), Failure> {
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

async fn hold(listen: SocketAddr) -> Result<(), Failure> {
    let endpoint = endpoint::libp2p(listen)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            // Streams are taken and dropped.
            while connection.accept_bi().await.is_ok() {}
            Ok::<_, Failure>(())
        });
    }
    Ok(())
}

async fn serve_all(listen: SocketAddr) -> Result<(), Failure> {
    let endpoint = endpoint::server(listen)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(serve(send, receive));
            }
            Ok::<_, Failure>(())
        });
    }
    Ok(())
}

async fn serve(mut send: SendStream, mut receive: RecvStream) -> Result<(), Failure> {
    let mut kind = [0];
    receive.read_exact(&mut kind).await?;
    if kind == [ECHO] {
        return forward(receive, send).await;
    }
    let mut size = [0; 8];
    receive.read_exact(&mut size).await?;
    let mut chunks: [Bytes; CHUNKS] = Default::default();
    while receive.read_chunks(&mut chunks).await?.is_some() {}
    write_zeros(&mut send, u64::from_be_bytes(size)).await
}

async fn write_zeros(send: &mut SendStream, bytes: u64) -> Result<(), Failure> {
    let mut left = bytes;
    while left > 0 {
        let next = left.min(CHUNK as u64);
        send.write_chunk(Bytes::from_static(&ZEROS[..next as usize])).await?;
        left -= next;
    }
    Ok(send.finish()?)
}

async fn read_zeros(mut receive: RecvStream) -> Result<u64, Failure> {
    let mut chunks: [Bytes; CHUNKS] = Default::default();
    let mut read = 0;
    while let Some(count) = receive.read_chunks(&mut chunks).await? {
        for chunk in &chunks[..count] {
            if chunk[..] != ZEROS[..chunk.len()] {
                return Err("other bytes came back than were sent".into());
            }
            read += chunk.len() as u64;
        }
    }
    Ok(read)
}

async fn perf(direction: &str, to: SocketAddr, upload: u64, download: u64) -> Result<(), Failure> {
    let (_endpoint, connection) = endpoint::connect(to).await?;
    let started = Instant::now();
    let (mut send, receive) = connection.open_bi().await?;
    send.write_all(&[PERF]).await?;
    send.write_all(&download.to_be_bytes()).await?;
    write_zeros(&mut send, upload).await?;
    if read_zeros(receive).await? != download {
        return Err("bytes are missing".into());
    }
    report(direction, upload + download, started);
    Ok(())
}

async fn echo(to: SocketAddr, bytes: u64) -> Result<(), Failure> {
    let (_endpoint, connection) = endpoint::connect(to).await?;
    let started = Instant::now();
    let (mut send, receive) = connection.open_bi().await?;
    let sending = tokio::spawn(async move {
        send.write_all(&[ECHO]).await?;
        write_zeros(&mut send, bytes).await
    });
    if read_zeros(receive).await? != bytes {
        return Err("bytes are missing".into());
    }
    sending.await??;
    report("echo", bytes, started);
    Ok(())
}

fn report(event: &str, bytes: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(r#"{{"event":"{event}","bytes":{bytes},"seconds":{seconds}}}"#);
}

async fn rtt(to: SocketAddr, count: usize) -> Result<(), Failure> {
    let (_endpoint, connection) = endpoint::connect(to).await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&[ECHO]).await?;
    let mut micros = Vec::new();
    // The first ones warm up.
    for n in 0..count + count / 10 {
        let started = Instant::now();
        send.write_all(&ZEROS[..MESSAGE]).await?;
        receive.read_exact(&mut [0; MESSAGE]).await.map_err(|error: ReadExactError| error.to_string())?;
        if n >= count / 10 {
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    micros.sort_by(f64::total_cmp);
    let [p50, p99] = [50, 99].map(|percent| micros[(micros.len() - 1) * percent / 100]);
    println!(r#"{{"event":"echoed","p50_us":{p50},"p99_us":{p99}}}"#);
    Ok(())
}
