//! Registering and discovering at a rendezvous point.

use std::{iter, time::Duration};

use clap::Args;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    rendezvous::{Cookie, Namespace, Registration, client::Event},
    swarm::SwarmEvent,
};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{DIAL_TIMEOUT, Failure, Peer, PeerEvent, dial, report};

/// Between two questions of a watching discoverer.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(crate) struct Register {
    #[arg(long)]
    point: Multiaddr,
    #[arg(long)]
    namespace: String,
    /// Seconds; what the point grants by itself when not given.
    #[arg(long)]
    ttl: Option<u64>,
    #[arg(long)]
    listen: Vec<Multiaddr>,
    /// Stay until told to stop.
    #[arg(long)]
    keep: bool,
    /// Register in so many namespaces more, which are called like the first and end in a number.
    #[arg(long, default_value_t = 0)]
    namespaces_more: u16,
    /// So many addresses of 250 bytes more, which lead nowhere; libp2p keeps 20 in all.
    #[arg(long, default_value_t = 0)]
    addresses_more: u16,
}

#[derive(Args)]
pub(crate) struct Discover {
    #[arg(long)]
    point: Multiaddr,
    /// Every namespace when not given.
    #[arg(long)]
    namespace: Option<String>,
    /// Registrations of one page; what the point answers by itself when not given.
    #[arg(long)]
    limit: Option<u64>,
    /// Go on asking for what is new.
    #[arg(long)]
    watch: bool,
}

/// Registers once the listening addresses are known, which are what it registers.
pub(crate) async fn register(mut swarm: Swarm<Peer>, options: Register) -> Result<(), Failure> {
    let point = dial::id_of(&options.point)?;
    let more = (1..=options.namespaces_more).map(|number| format!("{}-{number}", options.namespace));
    let namespaces: Vec<_> = iter::once(options.namespace.clone()).chain(more).collect();
    let mut awaited = options.listen.len();
    for address in options.listen {
        swarm.listen_on(address)?;
    }
    while awaited > 0 {
        if let SwarmEvent::NewListenAddr { address, .. } = dial::next(&mut swarm).await {
            swarm.add_external_address(address);
            awaited -= 1;
        }
    }
    timeout(DIAL_TIMEOUT, dial::connect(&mut swarm, options.point, point)).await??;
    for port in 0..options.addresses_more {
        let name = "padding.".repeat(30) + "invalid";
        swarm.add_external_address(format!("/dns4/{name}/udp/{port}/quic-v1").parse()?);
    }
    for namespace in namespaces {
        swarm.behaviour_mut().rendezvous.register(Namespace::new(namespace)?, point, options.ttl)?;
        timeout(DIAL_TIMEOUT, await_registered(&mut swarm)).await??;
    }
    if options.keep {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => {}
            () = async { loop { dial::next(&mut swarm).await; } } => {}
        }
    }
    dial::close(swarm, point).await;
    Ok(())
}

async fn await_registered(swarm: &mut Swarm<Peer>) -> Result<(), Failure> {
    loop {
        match dial::next(swarm).await {
            SwarmEvent::Behaviour(PeerEvent::Rendezvous(Event::Registered { ttl, namespace, .. })) => {
                let namespace = namespace.to_string();
                report::emit(json!({ "event": "registered", "namespace": namespace, "ttl": ttl }));
                return Ok(());
            }
            SwarmEvent::Behaviour(PeerEvent::Rendezvous(Event::RegisterFailed { error, .. })) => {
                return Err(format!("not registered: {error:?}").into());
            }
            _ => {}
        }
    }
}

/// Asks until there is no more, and when watching goes on asking for what is new.
pub(crate) async fn discover(mut swarm: Swarm<Peer>, options: Discover) -> Result<(), Failure> {
    let point = dial::id_of(&options.point)?;
    let namespace = options.namespace.map(Namespace::new).transpose()?;
    timeout(DIAL_TIMEOUT, dial::connect(&mut swarm, options.point, point)).await??;
    let mut cookie = None;
    loop {
        swarm.behaviour_mut().rendezvous.discover(namespace.clone(), cookie, options.limit, point);
        let (peers, next) = timeout(DIAL_TIMEOUT, await_page(&mut swarm)).await??;
        cookie = Some(next);
        if peers > 0 {
            continue;
        }
        if !options.watch {
            break;
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
    dial::close(swarm, point).await;
    Ok(())
}

/// How many the point named, and the cookie to go on with.
async fn await_page(swarm: &mut Swarm<Peer>) -> Result<(usize, Cookie), Failure> {
    loop {
        match dial::next(swarm).await {
            SwarmEvent::Behaviour(PeerEvent::Rendezvous(Event::Discovered {
                registrations, cookie, ..
            })) => {
                registrations.iter().for_each(emit_found);
                report::emit(json!({ "event": "page", "peers": registrations.len() }));
                return Ok((registrations.len(), cookie));
            }
            SwarmEvent::Behaviour(PeerEvent::Rendezvous(Event::DiscoverFailed { error, .. })) => {
                return Err(format!("not discovered: {error:?}").into());
            }
            _ => {}
        }
    }
}

fn emit_found(registration: &Registration) {
    let peer: PeerId = registration.record.peer_id();
    let addresses: Vec<_> =
        registration.record.addresses().iter().map(|address| report::full(address, peer)).collect();
    report::emit(json!({
        "event": "peer",
        "peer": peer.to_string(),
        "addresses": addresses,
        "ttl": registration.ttl,
    }));
}
