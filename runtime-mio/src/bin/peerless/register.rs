//! `peerless register`.

use std::time::Duration;

use peerless_core::{
    PeerId,
    protocols::rendezvous::client::{Client, Registration},
};
use peerless_mio::Runtime;
use peerless_proto::address;

use crate::{
    Failure,
    app::{App, ECHO, PERF, STREAMS_PER_PEER},
    cli::{Common, RegisterArgs},
    listen::listen,
    report::Reporter,
    session::{Session, Setup},
};

/// Longer than the node itself waits for an answer, so that its words are the ones reported.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Registers; with `--keep` until a signal comes.
pub(crate) fn run(common: &Common, args: &RegisterArgs, report: Reporter) -> Result<(), Failure> {
    let setup = Setup {
        listen: listen(&args.listen),
        announce: args.announce.clone(),
        protocols: vec![(PERF, STREAMS_PER_PEER), (ECHO, STREAMS_PER_PEER)],
        ..Setup::default()
    };
    let mut session = Session::open(common, setup, report)?;
    let point = match register(&mut session, args) {
        Ok(point) => point,
        Err(failure) => return session.close(Err(failure)),
    };
    if !args.keep {
        let (node, now) = session.runtime.node_mut();
        node.with::<Client, _>(now, |client, cx| client.abandon(cx, point, &args.namespace));
        return session.close(Ok(()));
    }
    let mut app = App::default();
    session.serve(|runtime: &mut Runtime, event| {
        let (node, now) = runtime.node_mut();
        app.handle(node, now, event);
    })
}

/// Has the relays reserve, so that there are circuits to be found at, and then the point register us.
fn register(session: &mut Session, args: &RegisterArgs) -> Result<PeerId, Failure> {
    for relay in &args.relay {
        let failed = |error| Failure::Failed(format!("no reservation at {relay}: {error}"));
        let (node, now) = session.runtime.node_mut();
        node.reserve(now, relay.clone()).map_err(failed)?;
        let Some(peer) = address::split_peer(relay).1 else { continue };
        session.wait_for(ANSWER_TIMEOUT, |event| event.reserve_outcome(peer))?.map_err(failed)?;
    }
    let failed = |error| Failure::Failed(format!("not registered at {}: {error}", args.point));
    let wanted =
        Registration { ttl: args.ttl, ..Registration::new(args.point.clone(), args.namespace.clone()) };
    let (node, now) = session.runtime.node_mut();
    node.register(now, wanted).map_err(failed)?;
    // The command line takes no point without its peer id.
    let point = address::split_peer(&args.point).1.unwrap_or_else(|| node.local_peer());
    session
        .wait_for(ANSWER_TIMEOUT, |event| event.register_outcome(point, &args.namespace))?
        .map_err(failed)?;
    Ok(point)
}
