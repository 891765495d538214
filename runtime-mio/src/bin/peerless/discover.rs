//! `peerless discover`.

use std::time::Duration;

use peerless_core::{
    node::Event,
    protocols::rendezvous::{
        self,
        client::{Event::WatchFailed, Query, Watch},
    },
};

use crate::{
    Failure,
    cli::{Common, DiscoverArgs},
    report::{Line, Reporter, line_of_peer},
    session::{Session, Setup},
};

/// Longer than the node itself waits for an answer, so that its words are the ones reported.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Asks once, or with `--watch` until a signal comes.
pub(crate) fn run(common: &Common, args: &DiscoverArgs, report: Reporter) -> Result<(), Failure> {
    let mut session = Session::open(common, Setup::default(), report)?;
    if let Err(failure) = if args.watch { watch(&mut session, args) } else { ask(&mut session, args, report) }
    {
        return session.close(Err(failure));
    }
    if !args.watch {
        return session.close(Ok(()));
    }
    session.serve(|_, event| {
        if let Event::Rendezvous(rendezvous::Event::Client(WatchFailed { reason, .. })) = event {
            report.line(&Line::Error { message: format!("no answer from {}: {reason}", args.point) });
        }
    })
}

fn ask(session: &mut Session, args: &DiscoverArgs, report: Reporter) -> Result<(), Failure> {
    let failed = |error| Failure::Failed(format!("no answer from {}: {error}", args.point));
    let limit = args.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let query = Query { limit, ..Query::new(args.point.clone(), args.namespace.clone()) };
    let (node, now) = session.runtime.node_mut();
    let id = node.discover(now, query).map_err(failed)?;
    let found = session.wait_for(ANSWER_TIMEOUT, |event| event.discover_outcome(id))?.map_err(failed)?;
    found.peers.iter().for_each(|found| report.result(&line_of_peer(found)));
    if found.peers.is_empty() {
        report.say(&format!("nobody else is registered in {:?}", args.namespace));
    }
    Ok(())
}

/// Up to the first answer: a point that gives none is a mistake rather than an accident.
fn watch(session: &mut Session, args: &DiscoverArgs) -> Result<(), Failure> {
    use rendezvous::client::Event::Polled;
    let failed = |error| Failure::Failed(format!("no answer from {}: {error}", args.point));
    let watch = Watch { interval: args.interval, ..Watch::new(args.point.clone(), args.namespace.clone()) };
    let (node, now) = session.runtime.node_mut();
    node.watch(now, watch).map_err(failed)?;
    let first = |event: &Event| match event {
        Event::Rendezvous(rendezvous::Event::Client(Polled { .. })) => Some(Ok(())),
        Event::Rendezvous(rendezvous::Event::Client(WatchFailed { reason, .. })) => Some(Err(reason.clone())),
        _ => None,
    };
    session.wait_for(ANSWER_TIMEOUT, first)?.map_err(failed)
}
