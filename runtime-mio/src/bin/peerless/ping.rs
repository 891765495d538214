//! `peerless ping`.

use std::time::Duration;

use peerless_core::{ids::ConnectionId, node::Event};

use crate::{
    Failure,
    cli::{Common, PingArgs},
    report::{Line, Reporter},
    session::{Session, Setup},
};

/// Longer than the node itself waits for an answer, so that its words are the ones reported.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Pings the given number of times; fails if an answer is missing.
pub(crate) fn run(common: &Common, args: &PingArgs, report: Reporter) -> Result<(), Failure> {
    let mut session = Session::open(common, Setup::default(), report)?;
    let outcome = match session.connect(&args.addresses) {
        Ok(connection) => ping(&mut session, args, connection, report),
        Err(failure) => Err(failure),
    };
    session.close(outcome)
}

fn ping(
    session: &mut Session,
    args: &PingArgs,
    connection: ConnectionId,
    report: Reporter,
) -> Result<(), Failure> {
    let (mut sent, mut answered, mut last_error) = (0, 0, String::new());
    while sent < args.count && !session.runtime.is_stopping() {
        session.wait_for_room(|event| check_connection(event, connection))?;
        let (node, started) = session.runtime.node_mut();
        node.ping(started, connection).map_err(|error| Failure::Failed(error.to_string()))?;
        sent += 1;
        match answer(session, connection)? {
            Some(Ok(line)) => {
                answered += 1;
                report.result(&line);
            }
            Some(Err(error)) => {
                report.say(&format!("no answer: {error}"));
                last_error = error;
            }
            // Interrupted while one was on its way: it is not lost.
            None => sent -= 1,
        }
        if sent < args.count {
            while let Some(event) = session.next_event(started + args.interval)? {
                check_connection(&event, connection)?;
            }
        }
    }
    report.say(&format!("{answered} of {sent} answered"));
    if answered < sent {
        return Err(Failure::Failed(format!(
            "{} of {sent} pings were not answered: {last_error}",
            sent - answered
        )));
    }
    Ok(())
}

/// The outcome of the ping under way; `None` if a signal came first.
fn answer(session: &mut Session, connection: ConnectionId) -> Result<Option<Result<Line, String>>, Failure> {
    let until = session.runtime.now() + ANSWER_TIMEOUT;
    while let Some(event) = session.next_event(until)? {
        check_connection(&event, connection)?;
        if let Event::Ping(ping) = event
            && ping.connection == connection
        {
            return Ok(Some(ping.result.map_err(|failure| failure.to_string()).map(|rtt| Line::Ping {
                peer: ping.peer.to_string(),
                rtt_us: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            })));
        }
    }
    if session.runtime.is_stopping() { Ok(None) } else { Ok(Some(Err("no answer in time".into()))) }
}

fn check_connection(event: &Event, ours: ConnectionId) -> Result<(), Failure> {
    match event {
        Event::Disconnected { connection, reason, .. } if *connection == ours => {
            Err(Failure::Failed(format!("the connection was lost: {reason}")))
        }
        _ => Ok(()),
    }
}
