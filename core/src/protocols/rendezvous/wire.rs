//! Messages in a few words, for transcripts.

use peerless_proto::{
    pb::{
        self,
        rendezvous::{Message, Register, RegisterRecord},
    },
    peer_record::{Dialect, PeerRecord},
};

use super::Status;

/// A message in a few words.
pub(super) fn describe(frame: &[u8]) -> String {
    let text = pb::decode::<Message>(frame).ok().and_then(|message| words(&message));
    format!("rendezvous {}", text.unwrap_or_else(|| "malformed".into()))
}

fn words(message: &Message) -> Option<String> {
    if let Some(register) = &message.register {
        return Some(format!("REGISTER {}", registration(register)));
    }
    if let Some(answer) = &message.register_response {
        let status = Status::from(answer.status);
        let ttl = answer.ttl.map(|ttl| format!(" ttl={ttl}s")).unwrap_or_default();
        return Some(format!("REGISTER_RESPONSE {status}{ttl}"));
    }
    if let Some(unregister) = &message.unregister {
        return Some(format!("UNREGISTER {:?}", unregister.ns.as_deref().unwrap_or_default()));
    }
    if let Some(discover) = &message.discover {
        let namespace = discover.ns.as_ref().map_or("all".into(), |ns| format!("{ns:?}"));
        let limit = discover.limit.map(|limit| format!(" limit={limit}")).unwrap_or_default();
        let cookie = if discover.cookie.is_some() { " cookie" } else { "" };
        return Some(format!("DISCOVER {namespace}{limit}{cookie}"));
    }
    let answer = message.discover_response.as_ref()?;
    let mut text = format!("DISCOVER_RESPONSE {}", Status::from(answer.status));
    // A page is told by its length, unless it is short.
    match answer.registrations.as_slice() {
        [] => {}
        [one] => text += &format!(" {}", registration(one)),
        many => text += &format!(" {} peers", many.len()),
    }
    if answer.cookie.as_ref().is_some_and(|cookie| !cookie.is_empty()) {
        text += " cookie";
    }
    Some(text)
}

fn registration(register: &Register) -> String {
    let namespace = register.ns.as_deref().unwrap_or_default();
    let ttl = register.ttl.map(|ttl| format!(" ttl={ttl}s")).unwrap_or_default();
    format!("{namespace:?}{ttl} {}", record(register).unwrap_or_else(|| "bad record".into()))
}

fn record(register: &Register) -> Option<String> {
    let (peer, addresses, dialect) =
        match RegisterRecord::decode(register.signed_peer_record.as_ref()?).ok()? {
            RegisterRecord::SignedPeerRecord(envelope) => {
                let record = PeerRecord::open(&envelope).ok()?;
                let dialect =
                    if Dialect::of(&envelope)? == Dialect::Standard { "signed" } else { "signed as rust" };
                (record.peer, record.addresses.len(), dialect)
            }
            RegisterRecord::PeerInfo { peer, addresses } => (peer, addresses.len(), "unsigned"),
        };
    Some(format!("{peer} addresses={addresses} {dialect}"))
}
