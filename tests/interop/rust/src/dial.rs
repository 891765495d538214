//! The dialing side, and the echo both sides speak.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, io::copy};
use libp2p::{Multiaddr, PeerId, Stream, Swarm, identify, multiaddr::Protocol, swarm::SwarmEvent};
use libp2p_stream::IncomingStreams;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    DIAL_TIMEOUT, ECHO, Failure, Peer, PeerEvent,
    report::{emit, report},
};

/// The closing packet leaves some time after the swarm calls the connection closed.
const FAREWELL: Duration = Duration::from_millis(100);
const CHUNK: usize = 64 << 10;

pub(crate) enum Task {
    Ping { count: u32 },
    Echo { bytes: u64 },
    Identify,
}

/// Dials the target and does the task with it.
pub(crate) async fn run(mut swarm: Swarm<Peer>, target: Multiaddr, task: Task) -> Result<(), Failure> {
    let peer = id_of(&target)?;
    let work = async {
        connect(&mut swarm, target, peer).await?;
        match task {
            Task::Ping { count } => await_pings(&mut swarm, peer, count).await,
            Task::Echo { bytes } => drive_echo(&mut swarm, peer, bytes).await,
            Task::Identify => await_identified(&mut swarm, peer).await,
        }
    };
    let result = timeout(DIAL_TIMEOUT, work).await.map_err(|_| "timed out")?;
    close(swarm, peer).await;
    result
}

pub(crate) fn id_of(target: &Multiaddr) -> Result<PeerId, Failure> {
    match target.iter().last() {
        Some(Protocol::P2p(peer)) => Ok(peer),
        _ => Err("the multiaddr has to end in /p2p/ID".into()),
    }
}

pub(crate) async fn connect(swarm: &mut Swarm<Peer>, target: Multiaddr, peer: PeerId) -> Result<(), Failure> {
    swarm.dial(target)?;
    loop {
        match next(swarm).await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return Ok(()),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
}

pub(crate) async fn next(swarm: &mut Swarm<Peer>) -> SwarmEvent<PeerEvent> {
    let event = swarm.select_next_some().await;
    report(swarm, &event);
    event
}

async fn await_pings(swarm: &mut Swarm<Peer>, peer: PeerId, count: u32) -> Result<(), Failure> {
    let mut left = count;
    while left > 0 {
        if let SwarmEvent::Behaviour(PeerEvent::Ping(ping)) = next(swarm).await
            && ping.peer == peer
        {
            let rtt_us = ping.result?.as_micros() as u64;
            emit(json!({ "event": "ping", "peer": peer.to_string(), "rtt_us": rtt_us }));
            left -= 1;
        }
    }
    Ok(())
}

async fn await_identified(swarm: &mut Swarm<Peer>, peer: PeerId) -> Result<(), Failure> {
    loop {
        if let SwarmEvent::Behaviour(PeerEvent::Identify(identify::Event::Received { peer_id, .. })) =
            next(swarm).await
            && peer_id == peer
        {
            return Ok(());
        }
    }
}

async fn drive_echo(swarm: &mut Swarm<Peer>, peer: PeerId, bytes: u64) -> Result<(), Failure> {
    let mut streams = swarm.behaviour().streams.new_control();
    let work = async move { echo(streams.open_stream(peer, ECHO).await?, bytes).await };
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                result?;
                emit(json!({ "event": "echo", "bytes": bytes, "ok": true }));
                return Ok(());
            }
            event = swarm.select_next_some() => report(swarm, &event),
        }
    }
}

/// Ends the connection in words, so that the far side need not wait for silence.
pub(crate) async fn close(mut swarm: Swarm<Peer>, peer: PeerId) {
    let _ = swarm.disconnect_peer_id(peer);
    let farewell = async {
        loop {
            next(&mut swarm).await;
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// Sends pseudo-random bytes and wants exactly these back, then the end of the stream.
async fn echo(stream: Stream, bytes: u64) -> Result<(), Failure> {
    let seed = rand::rng().next_u64();
    let (reader, writer) = stream.split();
    let (received, ()) = futures::try_join!(compare(reader, seed, bytes), send(writer, seed, bytes))?;
    if received == bytes { Ok(()) } else { Err(format!("{received} of {bytes} bytes came back").into()) }
}

async fn send(mut writer: impl futures::AsyncWrite + Unpin, seed: u64, bytes: u64) -> Result<(), Failure> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        rng.fill_bytes(&mut chunk);
        let take = left.min(CHUNK as u64) as usize;
        writer.write_all(&chunk[..take]).await?;
        left -= take as u64;
    }
    writer.close().await?;
    Ok(())
}

async fn compare(mut reader: impl futures::AsyncRead + Unpin, seed: u64, bytes: u64) -> Result<u64, Failure> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut received = 0;
    loop {
        rng.fill_bytes(&mut expected);
        let want = (bytes - received).min(CHUNK as u64) as usize;
        let mut filled = 0;
        while filled < want {
            match reader.read(&mut chunk[filled..want]).await? {
                0 => return Ok(received + filled as u64),
                count => filled += count,
            }
        }
        if chunk[..want] != expected[..want] {
            return Err(format!("the echo differs after byte {received}").into());
        }
        received += want as u64;
        if want == 0 {
            return match reader.read(&mut chunk).await? {
                0 => Ok(received),
                more => Err(format!("{more} bytes more than were sent").into()),
            };
        }
    }
}

pub(crate) async fn serve_echo(mut incoming: IncomingStreams) {
    while let Some((_, stream)) = incoming.next().await {
        tokio::spawn(async move {
            let (reader, mut writer) = stream.split();
            match copy(reader, &mut writer).await {
                Ok(_) => drop(writer.close().await),
                Err(error) => eprintln!("echo: {error}"),
            }
        });
    }
}

/// Reads a download size and an upload to its end, then sends that many bytes (libp2p specs, perf).
pub(crate) async fn serve_perf(mut incoming: IncomingStreams) {
    while let Some((_, stream)) = incoming.next().await {
        tokio::spawn(async move {
            if let Err(error) = answer_perf(stream).await {
                eprintln!("perf: {error}");
            }
        });
    }
}

async fn answer_perf(mut stream: Stream) -> Result<(), Failure> {
    let (mut size, mut chunk) = ([0; 8], vec![0; CHUNK]);
    stream.read_exact(&mut size).await?;
    while stream.read(&mut chunk).await? > 0 {}
    let mut left = u64::from_be_bytes(size);
    while left > 0 {
        let take = left.min(CHUNK as u64) as usize;
        stream.write_all(&chunk[..take]).await?;
        left -= take as u64;
    }
    stream.close().await?;
    Ok(())
}
