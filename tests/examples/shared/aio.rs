//! The same program as tasks, with the handles and streams of `peerless-async-std`, on whatever executor.

use std::future::Future;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use peerless_async_std::{Handle, Stream};

use super::{CHUNK, ECHO, Job, Options, Pattern, on_signal, report, report_echo, report_left};

/// Streams that are opened before one of them has answered.
const MAX_PROPOSED: usize = 64;

/// Runs until the job is done or a signal comes, and shuts the node down. `spawn` starts a task.
pub async fn run<S: Fn(Task) + Clone + Send + 'static>(
    handle: Handle,
    options: &Options,
    spawn: S,
) -> Result<(), String> {
    let interrupted = async_channel::bounded(1);
    on_signal(move || _ = interrupted.0.try_send(()));
    let (me, events) = (handle.peer(), handle.events());
    let events = async move {
        while let Ok(event) = events.recv().await {
            report(me, &event);
        }
    };
    let (server, spawn_echo) = (handle.clone(), spawn.clone());
    spawn(Box::pin(async move {
        while let Some(stream) = server.accept().await {
            // An echo that fails resets its stream.
            spawn_echo(Box::pin(async move { _ = echo(stream).await }));
        }
    }));
    let job = async {
        match &options.job {
            Job::Listen { relays } => {
                for relay in relays {
                    // Refusals are events too.
                    let _ = handle.reserve(relay.clone()).await;
                }
                future::pending().await
            }
            Job::Relay => future::pending().await,
            job => work(&handle, job).await,
        }
    };
    let signal = async {
        let _ = interrupted.1.recv().await;
        match options.job {
            Job::Listen { .. } | Job::Relay => Ok(()),
            _ => Err("interrupted".into()),
        }
    };
    let outcome = async {
        let outcome = future::or(job, signal).await;
        handle.shutdown().await;
        // What is dropped leaves nothing behind, neither in the node nor in the runtime.
        let stats = handle.stats();
        report_left(&handle.with(|node, _| node.stats()), stats.streams + stats.waiting);
        outcome
    };
    future::zip(outcome, events).await.0
}

/// What `spawn` is given.
pub type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn echo(mut stream: Stream) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return stream.close().await,
            read => stream.write_all(&chunk[..read]).await?,
        }
    }
}

async fn work(handle: &Handle, job: &Job) -> Result<(), String> {
    let (Job::Ping { to, .. } | Job::Echo { to, .. }) = job else { return Ok(()) };
    let dialled = handle.dial(None, to).await;
    let connection = dialled.map_err(|error| error.to_string())?;
    if let Job::Ping { count, .. } = job {
        for _ in 0..*count {
            handle.ping(connection).await.map_err(|error| error.to_string())?;
        }
    }
    let Job::Echo { bytes, streams, .. } = job else { return Ok(()) };
    let lost = |error: std::io::Error| format!("the stream was lost: {error}");
    let (pattern, mut open, mut ok, mut echoed) = (Pattern::new(), Vec::new(), true, 0);
    for n in 0..*streams as usize {
        let mut stream = handle.open(connection, &ECHO).await.map_err(|error| error.to_string())?;
        let first = pattern.at(0, (*bytes).min(64));
        stream.write_all(&first).await.map_err(lost)?;
        open.push((stream, first.len() as u64));
        if n % MAX_PROPOSED == MAX_PROPOSED - 1 && !first.is_empty() {
            // What comes back shows that the remote has agreed to this stream and those before it.
            let mut back = vec![0; first.len()];
            open[n].0.read_exact(&mut back).await.map_err(lost)?;
            ok &= back == first;
            echoed += first.len() as u64;
        }
    }
    for (n, (stream, sent)) in open.into_iter().enumerate() {
        let skipped = if n % MAX_PROPOSED == MAX_PROPOSED - 1 { sent } else { 0 };
        let (same, received) = exchange(stream, &pattern, sent..*bytes, skipped).await.map_err(lost)?;
        ok &= same;
        echoed += received;
    }
    report_echo(echoed, ok);
    if ok { Ok(()) } else { Err("other bytes came back than were sent".into()) }
}

/// Sends what is left and compares what comes back from `received` on.
async fn exchange(
    stream: Stream,
    pattern: &Pattern,
    left: std::ops::Range<u64>,
    mut received: u64,
) -> std::io::Result<(bool, u64)> {
    let (bytes, start) = (left.end, received);
    let (mut reader, mut writer) = futures_lite::io::split(stream);
    let write = async {
        let mut sent = left.start;
        while sent < bytes {
            sent += writer.write(&pattern.at(sent, bytes - sent)).await? as u64;
        }
        writer.close().await
    };
    let read = async {
        let mut chunk = vec![0; CHUNK / 2];
        loop {
            let read = reader.read(&mut chunk).await?;
            if read == 0 {
                return Ok((received == bytes, received - start));
            }
            if chunk[..read] != pattern.at(received, read as u64) {
                return Ok((false, received - start));
            }
            received += read as u64;
        }
    };
    let (_, verdict) = future::try_zip(write, read).await?;
    Ok(verdict)
}
