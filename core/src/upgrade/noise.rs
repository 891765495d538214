//! Noise over byte slices: `/noise`, as in the libp2p `noise` specification (XX, 25519, ChaChaPoly, SHA256).

mod crypto;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};
use libp2p_identity::{Keypair, PeerId};
use peerless_proto::noise::{HandshakePayload, MAX_MESSAGE, MessageDecoder, PayloadError};
use snow::{Builder, HandshakeState, TransportState};
use thiserror::Error;

use crate::{
    names::UpgradeRole,
    rng::{Rng, RngCore as _},
    tls::WrongPeer,
};

/// The protocol name to negotiate before the first Noise byte.
pub const PROTOCOL: &str = "/noise";

const PARAMS: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
const TAG_LEN: usize = 16;
const MAX_PLAINTEXT: usize = MAX_MESSAGE - TAG_LEN;
/// No more input is taken while as many bytes of plaintext are unread.
const MAX_UNREAD: usize = 64 << 10;

/// Why a Noise stream is broken. Such an error is final.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// The remote's handshake message is not one.
    #[error("remote sent a bad handshake message")]
    Handshake,
    /// The remote's proof of identity is not one.
    #[error("remote failed to prove its identity: {0}")]
    Payload(PayloadError),
    /// The remote is somebody else.
    #[error(transparent)]
    WrongPeer(Box<WrongPeer>),
    /// A message was forged, damaged or repeated on the way.
    #[error("remote's message does not decrypt")]
    Decrypt,
    /// Our own keys are unusable.
    #[error("local fault: {0}")]
    Local(String),
}

/// One end of a Noise connection: bytes from the network in, bytes for the network out, plaintext on the other
/// side. Same in shape as [`crate::tls::TlsStream`].
///
/// Memory is bounded on both sides: about 64 KiB of unread plaintext stop [`handle_bytes`](Self::handle_bytes),
/// one full message of unsent plaintext stops [`write`](Self::write). Noise has no end of data of its own, and no
/// deadline for the handshake; both are the caller's.
pub struct Noise {
    state: State,
    /// Our proof of identity, until it is sent.
    payload: Option<HandshakePayload>,
    muxers: Vec<String>,
    expected: Option<PeerId>,
    peer: Option<PeerId>,
    muxer: Option<String>,
    input: MessageDecoder,
    received: VecDeque<Bytes>,
    unread: usize,
    /// Handshake messages to send.
    output: BytesMut,
    /// Plaintext to send, less than a message.
    unsent: Vec<u8>,
    error: Option<NoiseError>,
}

enum State {
    /// Initiator: `e` is out. Exits: message two ([`State::Transport`]) or a failure.
    AwaitingResponse(Box<HandshakeState>),
    /// Responder at the start. Exits: message one ([`State::AwaitingProof`]) or a failure.
    AwaitingGreeting(Box<HandshakeState>),
    /// Responder: message two is out. Exits: message three ([`State::Transport`]) or a failure.
    AwaitingProof(Box<HandshakeState>),
    Transport(Box<TransportState>),
    Failed,
}

impl Noise {
    /// A handshake as `keypair`. With `expected`, any other remote fails it. `muxers` are offered in the handshake,
    /// most wanted first; none turns that extension off. Equal seeds give equal bytes: never use one twice.
    ///
    /// # Errors
    /// Only [`NoiseError::Local`].
    pub fn new(
        role: UpgradeRole,
        keypair: &Keypair,
        expected: Option<PeerId>,
        seed: [u8; 32],
        muxers: &[&str],
    ) -> Result<Self, NoiseError> {
        let local = |error: snow::Error| NoiseError::Local(error.to_string());
        let rng = Rng::new(seed);
        let mut private = [0; 32];
        rng.fork("static").fill_bytes(&mut private);
        let public = crypto::public_key(&private).map_err(local)?;
        let mut payload =
            HandshakePayload::new(keypair, &public).map_err(|error| NoiseError::Local(error.to_string()))?;
        payload.stream_muxers = muxers.iter().map(|name| (*name).to_owned()).collect();

        let suite = crypto::Suite::new(rng.fork("ephemeral"));
        let builder = Builder::with_resolver(PARAMS.parse().map_err(local)?, Box::new(suite))
            .local_private_key(&private)
            .map_err(local)?;
        let mut noise = Self {
            state: State::Failed,
            muxers: payload.stream_muxers.clone(),
            payload: Some(payload),
            expected,
            peer: None,
            muxer: None,
            input: MessageDecoder::new(),
            received: VecDeque::new(),
            unread: 0,
            output: BytesMut::new(),
            unsent: Vec::new(),
            error: None,
        };
        noise.state = match role {
            UpgradeRole::Initiator => {
                let mut handshake = builder.build_initiator().map_err(local)?;
                noise.send_handshake(&mut handshake, &[])?;
                State::AwaitingResponse(Box::new(handshake))
            }
            UpgradeRole::Responder => {
                State::AwaitingGreeting(Box::new(builder.build_responder().map_err(local)?))
            }
        };
        Ok(noise)
    }

    /// Takes ciphertext off the front of `bytes`. If some is left, plaintext waits: [`read`](Self::read) until
    /// `None`, then offer the rest again.
    ///
    /// # Errors
    /// The reason the stream broke, now or earlier.
    pub fn handle_bytes(&mut self, bytes: &mut Bytes) -> Result<(), NoiseError> {
        while !bytes.is_empty() && self.wants_input() {
            if let Some(error) = &self.error {
                return Err(error.clone());
            }
            self.input.push(bytes.split_to(bytes.len().min(MAX_MESSAGE)));
            while let Some(message) = self.input.next_message() {
                let handled = self.handle_message(&message);
                if let Err(error) = handled {
                    self.state = State::Failed;
                    self.error = Some(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether [`handle_bytes`](Self::handle_bytes) takes anything.
    pub const fn wants_input(&self) -> bool {
        self.unread < MAX_UNREAD
    }

    /// The next plaintext, at most `max` bytes; `None` if there is none now.
    pub fn read(&mut self, max: usize) -> Option<Bytes> {
        let first = self.received.front_mut().filter(|_| max > 0)?;
        let plaintext = first.split_to(max.min(first.len()));
        if first.is_empty() {
            self.received.pop_front();
        }
        self.unread -= plaintext.len();
        Some(plaintext)
    }

    /// Takes as much of `plaintext` as there is room for and tells how much. Nothing is taken before we know who
    /// the remote is, nor after an error.
    pub fn write(&mut self, plaintext: &[u8]) -> usize {
        if !matches!(self.state, State::Transport(_)) {
            return 0;
        }
        let len = plaintext.len().min(MAX_PLAINTEXT - self.unsent.len());
        self.unsent.extend_from_slice(&plaintext[..len]);
        len
    }

    /// The next bytes for the network; what was written since the last call becomes one message.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if !self.output.is_empty() {
            return Some(self.output.split().freeze());
        }
        let State::Transport(transport) = &mut self.state else { return None };
        if self.unsent.is_empty() {
            return None;
        }
        let mut message = BytesMut::zeroed(2 + self.unsent.len() + TAG_LEN);
        let len = transport
            .write_message(&self.unsent, &mut message[2..])
            .expect("the length fits, and no connection lives for 2^64 messages");
        self.unsent.clear();
        message[..2].copy_from_slice(&length(len));
        Some(message.freeze())
    }

    /// Whether the handshake still goes on.
    pub const fn is_handshaking(&self) -> bool {
        !matches!(self.state, State::Transport(_) | State::Failed)
    }

    /// Who the remote is, once the handshake is complete.
    pub fn peer(&self) -> Option<PeerId> {
        self.peer.filter(|_| matches!(self.state, State::Transport(_)))
    }

    /// The muxer agreed on in the handshake: the first of the initiator's that the responder offers too. `None`
    /// before the handshake is complete, or if it is still to be negotiated.
    pub fn muxer(&self) -> Option<&str> {
        self.muxer.as_deref().filter(|_| matches!(self.state, State::Transport(_)))
    }

    fn handle_message(&mut self, message: &[u8]) -> Result<(), NoiseError> {
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::AwaitingGreeting(mut handshake) => {
                receive_handshake(&mut handshake, message)?;
                self.send_proof(&mut handshake)?;
                State::AwaitingProof(handshake)
            }
            State::AwaitingResponse(mut handshake) => {
                let payload = receive_handshake(&mut handshake, message)?;
                let offered = self.verify(&handshake, &payload)?;
                self.muxer = self.muxers.iter().find(|ours| offered.contains(ours)).cloned();
                self.send_proof(&mut handshake)?;
                into_transport(handshake)?
            }
            State::AwaitingProof(mut handshake) => {
                let payload = receive_handshake(&mut handshake, message)?;
                let offered = self.verify(&handshake, &payload)?;
                self.muxer = offered.into_iter().find(|theirs| self.muxers.contains(theirs));
                into_transport(handshake)?
            }
            State::Transport(mut transport) => {
                let mut plaintext = vec![0; message.len().saturating_sub(TAG_LEN)];
                transport.read_message(message, &mut plaintext).map_err(|_| NoiseError::Decrypt)?;
                if !plaintext.is_empty() {
                    self.unread += plaintext.len();
                    self.received.push_back(plaintext.into());
                }
                State::Transport(transport)
            }
            State::Failed => State::Failed,
        };
        Ok(())
    }

    /// Checks who the remote is and returns the muxers it offers.
    fn verify(&mut self, handshake: &HandshakeState, payload: &[u8]) -> Result<Vec<String>, NoiseError> {
        let payload = HandshakePayload::decode(payload).map_err(NoiseError::Payload)?;
        let key = handshake.get_remote_static().and_then(|key| <&[u8; 32]>::try_from(key).ok());
        let identity = payload.verify(key.ok_or(NoiseError::Handshake)?).map_err(NoiseError::Payload)?;
        let got = identity.to_peer_id();
        if let Some(expected) = self.expected.filter(|expected| *expected != got) {
            return Err(NoiseError::WrongPeer(Box::new(WrongPeer { expected, got })));
        }
        self.peer = Some(got);
        Ok(payload.stream_muxers)
    }

    fn send_proof(&mut self, handshake: &mut HandshakeState) -> Result<(), NoiseError> {
        let payload = self.payload.take().map(|payload| payload.encode()).unwrap_or_default();
        self.send_handshake(handshake, &payload)
    }

    fn send_handshake(&mut self, handshake: &mut HandshakeState, payload: &[u8]) -> Result<(), NoiseError> {
        // Two keys, each with a tag, and the tag of the payload.
        let mut message = vec![0; payload.len() + 2 * 32 + 2 * TAG_LEN];
        let len = handshake.write_message(payload, &mut message).map_err(|error| match error {
            snow::Error::Dh => NoiseError::Handshake,
            error => NoiseError::Local(error.to_string()),
        })?;
        self.output.put_slice(&length(len));
        self.output.put_slice(&message[..len]);
        Ok(())
    }
}

impl std::fmt::Debug for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Noise")
            .field("is_handshaking", &self.is_handshaking())
            .field("peer", &self.peer)
            .field("unread", &self.unread)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

fn receive_handshake(handshake: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut payload = vec![0; message.len()];
    let len = handshake.read_message(message, &mut payload).map_err(|_| NoiseError::Handshake)?;
    payload.truncate(len);
    Ok(payload)
}

fn into_transport(handshake: Box<HandshakeState>) -> Result<State, NoiseError> {
    let transport = handshake.into_transport_mode().map_err(|_| NoiseError::Handshake)?;
    Ok(State::Transport(Box::new(transport)))
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("snow's messages have at most 65535 bytes").to_be_bytes()
}
