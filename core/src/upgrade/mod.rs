//! From a byte pipe to a secured, multiplexed connection: circuits today, TCP some day.
//!
//! ```text
//!   bytes ──> multistream-select ──> /tls/1.0.0 or /noise ──> [multistream-select] ──> /yamux/1.0.0 ──> streams
//! ```
//!
//! The second negotiation is skipped if the security handshake itself settles on yamux, by ALPN or by the Noise
//! extension (libp2p specs, `connections/inlined-muxer-negotiation.md`).
//!
//! | file         | what it is                                                 |
//! |--------------|------------------------------------------------------------|
//! | `mod.rs`     | [`SecuredConnection`]: the steps in their order            |
//! | `secure.rs`  | TLS and Noise behind one face                              |
//! | `noise.rs`   | [`noise::Noise`]: `/noise` over byte slices                |
//! | `yamux/`     | [`yamux::Yamux`]: streams over one pipe                    |

pub mod noise;
mod secure;
#[cfg(test)]
mod tests;
pub mod yamux;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use libp2p_identity::PeerId;

use self::{secure::Secure, yamux::Yamux};
pub use self::{
    secure::{Credentials, Security},
    yamux::{
        CloseReason, GoAway, MuxEvent, MuxStream, OpenError, Read, ReadError, WriteError, YamuxConfig,
        YamuxError,
    },
};
use crate::{
    errors::{InvalidConfig, StreamFault, UpgradeError, require},
    names::UpgradeRole,
    streams::negotiate::{Dialer, Listener, NegotiateError},
    time::{Deadline, Instant},
};

/// Plaintext gathered before it is encrypted: a full TLS record.
const RECORD: usize = 16 << 10;
/// Plaintext handed to the muxer at a time.
const MAX_READ: usize = 64 << 10;

/// How byte pipes are upgraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is proposed, in this order, and accepted. TLS, then Noise by default.
    pub security: Vec<Security>,
    /// How long it may take until the connection is established. 10 s by default.
    pub timeout: Duration,
    /// The muxer.
    pub yamux: YamuxConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            security: vec![Security::Tls, Security::Noise],
            timeout: Duration::from_secs(10),
            yamux: YamuxConfig::default(),
        }
    }
}

impl Config {
    /// Finds the first thing that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const AT_LEAST_ONE: &str = "must be at least 1";
        const NOT_ZERO: &str = "must not be zero";
        let yamux = &self.yamux;
        require(!self.security.is_empty(), "upgrade.security", "must name at least one protocol")?;
        require(!self.timeout.is_zero(), "upgrade.timeout", NOT_ZERO)?;
        require(yamux.max_inbound_streams >= 1, "upgrade.yamux.max_inbound_streams", AT_LEAST_ONE)?;
        require(yamux.max_outbound_streams >= 1, "upgrade.yamux.max_outbound_streams", AT_LEAST_ONE)?;
        require(
            yamux.max_stream_window >= 256 << 10,
            "upgrade.yamux.max_stream_window",
            "must be at least 256 KiB, with which every stream begins",
        )?;
        require(yamux.max_connection_window >= 1, "upgrade.yamux.max_connection_window", AT_LEAST_ONE)?;
        require(yamux.max_queued >= 1, "upgrade.yamux.max_queued", AT_LEAST_ONE)?;
        require(!yamux.keepalive.is_zero(), "upgrade.yamux.keepalive", NOT_ZERO)?;
        require(!yamux.pong_timeout.is_zero(), "upgrade.yamux.pong_timeout", NOT_ZERO)
    }
}

/// What happened on a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The remote has proven who it is, and streams can be opened. The first event, once.
    Established {
        /// Who the remote is.
        peer: PeerId,
        /// What secures the pipe.
        security: Security,
        /// The name of the muxer.
        muxer: &'static str,
    },
    /// There will be no connection. The only event.
    Failed(UpgradeError),
    /// Something happened on the established connection.
    Mux(MuxEvent),
}

/// A byte pipe on its way to be, or being, a secured and multiplexed connection.
///
/// The owner feeds [`handle_bytes`](Self::handle_bytes), [`handle_finish`](Self::handle_finish),
/// [`handle_reset`](Self::handle_reset) and [`handle_timeout`](Self::handle_timeout). After each of them, and after
/// any command, it takes [`poll_event`](Self::poll_event) until `None` and, as far as the pipe has room,
/// [`poll_transmit`](Self::poll_transmit), also after a failure: an alert may tell the remote why. What is transmitted
/// makes room for writers, so events are taken once more after it. While
/// [`wants_input`](Self::wants_input) is false the pipe is not read; reading streams ends that.
///
/// The initiator proposes its first security protocol right behind its header. If there is but one to propose, the
/// first handshake message follows in the same flight.
#[derive(Debug)]
pub struct SecuredConnection {
    role: UpgradeRole,
    config: Config,
    credentials: Arc<Credentials>,
    expected: Option<PeerId>,
    seed: [u8; 32],
    /// The latest time we were told.
    now: Instant,
    /// When the upgrade must be over.
    give_up: Instant,
    stage: Stage,
    /// Bytes from the pipe that nobody took yet.
    input: VecDeque<Bytes>,
    is_input_finished: bool,
    /// Bytes for the pipe, before those that the security protocol has.
    output: BytesMut,
    /// Plaintext that the security protocol did not take yet.
    unsent: BytesMut,
    events: VecDeque<Event>,
}

/// Each of the first three ends in [`Stage::Failed`] when time is up, the pipe ends, or the remote does anything else.
#[derive(Debug)]
enum Stage {
    /// Waits for agreement on a security protocol. Exit: [`Stage::Securing`].
    Negotiating { negotiation: Negotiation, early: Option<Secure> },
    /// Waits for the remote's proof of identity. Exits: [`Stage::Established`] if the handshake has settled on the
    /// muxer, else [`Stage::NegotiatingMuxer`].
    Securing(Secure),
    /// Waits for agreement on the muxer. Exit: [`Stage::Established`].
    NegotiatingMuxer { secure: Secure, negotiation: Negotiation },
    /// Carries streams; the muxer knows when it is over.
    Established { secure: Secure, mux: Box<Yamux> },
    /// Nothing more will happen.
    Failed,
}

impl SecuredConnection {
    /// Starts to upgrade a pipe. With `expected`, any other remote fails the handshake. Noise draws its keys from
    /// `seed`, which must be used once.
    pub fn new(
        role: UpgradeRole,
        config: Config,
        credentials: Arc<Credentials>,
        expected: Option<PeerId>,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut output = BytesMut::new();
        let negotiation = Negotiation::new(role, &protocols(&config.security), &mut output);
        let mut connection = Self {
            role,
            credentials,
            expected,
            seed,
            now,
            give_up: now + config.timeout,
            config,
            stage: Stage::Failed,
            input: VecDeque::new(),
            is_input_finished: false,
            output,
            unsent: BytesMut::new(),
            events: VecDeque::new(),
        };
        match connection.start_early() {
            Ok(early) => connection.stage = Stage::Negotiating { negotiation, early },
            Err(error) => connection.fail(*error),
        }
        connection
    }

    /// Takes bytes from the pipe, in any chunking. What the remote did wrong comes out of
    /// [`poll_event`](Self::poll_event).
    pub fn handle_bytes(&mut self, now: Instant, data: Bytes) {
        self.now = self.now.max(now);
        if !data.is_empty() {
            self.input.push_back(data);
        }
        self.advance();
    }

    /// The remote ended its direction of the pipe; that ends the connection, behind the bytes before it.
    pub fn handle_finish(&mut self) {
        self.is_input_finished = true;
        self.advance();
    }

    /// The pipe is lost.
    pub fn handle_reset(&mut self, fault: StreamFault) {
        match &mut self.stage {
            Stage::Established { mux, .. } => mux.handle_end(CloseReason::Broken(fault.to_string())),
            Stage::Failed => {}
            _ => self.fail(UpgradeError::Carrier(fault)),
        }
        self.output.clear();
        self.unsent.clear();
    }

    /// Time has passed: gives up an upgrade that takes too long, sends or misses keepalives.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if let Stage::Established { mux, .. } = &mut self.stage {
            mux.handle_timeout(now);
        } else if let Some(deadline) = self.deadline()
            && deadline.is_due(now)
        {
            self.fail(UpgradeError::TimedOut(deadline.why));
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Deadline> {
        let why = match &self.stage {
            Stage::Negotiating { .. } => "security negotiation",
            Stage::Securing(_) => "security handshake",
            Stage::NegotiatingMuxer { .. } => "muxer negotiation",
            Stage::Established { mux, .. } => return mux.deadline(),
            Stage::Failed => return None,
        };
        Some(Deadline::new(self.give_up, why))
    }

    /// Whether the pipe should be read.
    pub fn wants_input(&self) -> bool {
        self.input.is_empty()
            && match &self.stage {
                Stage::Established { mux, .. } => mux.wants_input(),
                _ => true,
            }
    }

    /// The next bytes for the pipe, at most about 64 KiB, never empty.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if !self.output.is_empty() {
            return Some(self.output.split().freeze());
        }
        let secure = match &mut self.stage {
            Stage::Negotiating { early, .. } => early.as_mut()?,
            Stage::Securing(secure) | Stage::NegotiatingMuxer { secure, .. } => secure,
            Stage::Established { secure, mux } => {
                while self.unsent.len() < RECORD
                    && let Some(piece) = mux.poll_transmit()
                {
                    self.unsent.extend_from_slice(&piece);
                }
                secure
            }
            Stage::Failed => return None,
        };
        let taken = secure.write(&self.unsent);
        self.unsent.advance(taken);
        if let Stage::Established { secure, mux } = &mut self.stage {
            if mux.is_drained() && self.unsent.is_empty() {
                secure.close();
            }
            return secure.poll_transmit();
        }
        self.secure()?.poll_transmit()
    }

    /// The next event, in the order things happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.making_room(Yamux::poll_event)?.map(Event::Mux))
    }

    /// Opens a stream; [`OpenError::Closed`] before the connection is established, too.
    pub fn open(&mut self) -> Result<MuxStream, OpenError> {
        self.mux().ok_or(OpenError::Closed)?.open()
    }

    /// See [`Yamux::read`].
    pub fn read(&mut self, id: MuxStream, max: usize) -> Result<Read, ReadError> {
        self.making_room(|mux| mux.read(id, max)).unwrap_or(Err(ReadError::UnknownStream))
    }

    /// See [`Yamux::write`].
    pub fn write(&mut self, id: MuxStream, data: &mut Bytes) -> Result<usize, WriteError> {
        self.mux().ok_or(WriteError::UnknownStream)?.write(id, data)
    }

    /// See [`Yamux::finish`].
    pub fn finish(&mut self, id: MuxStream) -> Result<(), WriteError> {
        self.mux().ok_or(WriteError::UnknownStream)?.finish(id)
    }

    /// See [`Yamux::reset`].
    pub fn reset(&mut self, id: MuxStream) {
        self.reset_with(id, 0);
    }

    /// See [`Yamux::reset_with`].
    pub fn reset_with(&mut self, id: MuxStream, code: u32) {
        self.making_room(|mux| mux.reset_with(id, code));
    }

    /// See [`Yamux::stop`].
    pub fn stop(&mut self, id: MuxStream) {
        self.making_room(|mux| mux.stop(id));
    }

    /// Ends an established connection behind the data queued. One that is not established yet is simply dropped.
    pub fn close(&mut self) {
        self.close_with(0);
    }

    /// The same with a code that tells the remote why.
    pub fn close_with(&mut self, code: u32) {
        if let Some(mux) = self.mux() {
            mux.close_with(code.into());
        }
    }

    /// Whether it is over, or failed, and nothing is left to transmit.
    pub fn is_drained(&self) -> bool {
        self.output.is_empty()
            && self.unsent.is_empty()
            && match &self.stage {
                Stage::Established { mux, .. } => mux.is_drained(),
                Stage::Failed => true,
                _ => false,
            }
    }

    /// Whether streams can be opened.
    pub const fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Established { .. })
    }

    /// Streams that exist, in any state.
    pub fn stream_count(&self) -> usize {
        match &self.stage {
            Stage::Established { mux, .. } => mux.stream_count(),
            _ => 0,
        }
    }

    /// Bytes held: ciphertext nobody took yet, plaintext not sent yet, and [`Yamux::buffered`].
    pub fn buffered(&self) -> usize {
        let mux = match &self.stage {
            Stage::Established { mux, .. } => mux.buffered(),
            _ => 0,
        };
        self.input.iter().map(Bytes::len).sum::<usize>() + self.output.len() + self.unsent.len() + mux
    }

    fn mux(&mut self) -> Option<&mut Yamux> {
        match &mut self.stage {
            Stage::Established { mux, .. } => Some(mux),
            _ => None,
        }
    }

    fn secure(&mut self) -> Option<&mut Secure> {
        match &mut self.stage {
            Stage::Negotiating { early, .. } => early.as_mut(),
            Stage::Securing(secure)
            | Stage::NegotiatingMuxer { secure, .. }
            | Stage::Established { secure, .. } => Some(secure),
            Stage::Failed => None,
        }
    }

    /// Does something that may free room in the muxer, and goes on with input that waits for it.
    fn making_room<T>(&mut self, act: impl FnOnce(&mut Yamux) -> T) -> Option<T> {
        let mux = self.mux()?;
        let was_full = !mux.wants_input();
        let result = act(mux);
        if was_full && mux.wants_input() {
            self.advance();
        }
        Some(result)
    }

    /// The initiator's handshake, started before the responder agreed, if there is nothing else to agree on.
    fn start_early(&self) -> Result<Option<Secure>, Box<UpgradeError>> {
        match (self.role, &self.config.security[..]) {
            (UpgradeRole::Initiator, [only]) => self.start(*only).map(Some),
            _ => Ok(None),
        }
    }

    fn start(&self, security: Security) -> Result<Secure, Box<UpgradeError>> {
        Secure::new(security, self.role, &self.credentials, self.expected, self.seed)
    }

    /// Does all that the input allows.
    fn advance(&mut self) {
        loop {
            let progress = match std::mem::replace(&mut self.stage, Stage::Failed) {
                Stage::Established { secure, mux } => {
                    self.stage = Stage::Established { secure, mux };
                    self.carry()
                }
                Stage::Failed => {
                    self.input.clear();
                    false
                }
                stage => match self.upgrade(stage) {
                    Ok((stage, progress)) => {
                        self.stage = stage;
                        progress
                    }
                    Err(error) => {
                        self.fail(*error);
                        false
                    }
                },
            };
            if !progress {
                break;
            }
        }
        let is_upgrading = !matches!(self.stage, Stage::Established { .. } | Stage::Failed);
        if self.is_input_finished && is_upgrading {
            self.fail(UpgradeError::Carrier(StreamFault::ConnectionLost));
        }
    }

    /// One step of the upgrade: the stage after it, and whether anything moved.
    fn upgrade(&mut self, stage: Stage) -> Result<(Stage, bool), Box<UpgradeError>> {
        match stage {
            Stage::Negotiating { mut negotiation, early } => {
                let Some(chunk) = self.input.pop_front() else {
                    return Ok((Stage::Negotiating { negotiation, early }, false));
                };
                let names = protocols(&self.config.security);
                let agreed = negotiation.handle_bytes(chunk, &names, &mut self.output).map_err(disagreed)?;
                let Some(index) = agreed else {
                    return Ok((Stage::Negotiating { negotiation, early }, true));
                };
                for rest in negotiation.take_rest().into_iter().rev() {
                    self.input.push_front(rest);
                }
                let secure = match early {
                    Some(secure) => secure,
                    None => self.start(self.config.security[index])?,
                };
                Ok((Stage::Securing(secure), true))
            }
            Stage::Securing(mut secure) => {
                let progress = self.feed(&mut secure)?;
                let Some(peer) = secure.peer() else { return Ok((Stage::Securing(secure), progress)) };
                if secure.has_agreed_on_yamux() {
                    return Ok((self.establish(secure, peer, Vec::new()), true));
                }
                let negotiation = Negotiation::new(self.role, &[yamux::PROTOCOL], &mut self.unsent);
                Ok((Stage::NegotiatingMuxer { secure, negotiation }, true))
            }
            Stage::NegotiatingMuxer { mut secure, mut negotiation } => {
                let progress = self.feed(&mut secure)?;
                let (Some(chunk), Some(peer)) = (secure.read(MAX_READ), secure.peer()) else {
                    return Ok((Stage::NegotiatingMuxer { secure, negotiation }, progress));
                };
                let agreed = negotiation.handle_bytes(chunk, &[yamux::PROTOCOL], &mut self.unsent);
                if agreed.map_err(disagreed)?.is_none() {
                    return Ok((Stage::NegotiatingMuxer { secure, negotiation }, true));
                }
                Ok((self.establish(secure, peer, negotiation.take_rest()), true))
            }
            stage @ (Stage::Established { .. } | Stage::Failed) => Ok((stage, false)),
        }
    }

    fn establish(&mut self, secure: Secure, peer: PeerId, rest: Vec<Bytes>) -> Stage {
        let mut mux = Yamux::new(self.role, self.config.yamux.clone(), self.now);
        self.events.push_back(Event::Established {
            peer,
            security: secure.security(),
            muxer: yamux::PROTOCOL,
        });
        for plaintext in rest {
            // A violation is told by the muxer's own event.
            let _ = mux.handle_bytes(self.now, plaintext);
        }
        Stage::Established { secure, mux: Box::new(mux) }
    }

    /// One step of the established connection: whether anything moved.
    fn carry(&mut self) -> bool {
        let Stage::Established { secure, mux } = &mut self.stage else { return false };
        let mut progress = match feed(&mut self.input, secure) {
            Ok(progress) => progress,
            Err(error) => {
                mux.handle_end(CloseReason::Broken(error.to_string()));
                self.input.clear();
                return false;
            }
        };
        if !mux.wants_input() {
            return progress;
        }
        if let Some(plaintext) = secure.read(MAX_READ) {
            let _ = mux.handle_bytes(self.now, plaintext);
            progress = true;
        }
        let is_over = (self.is_input_finished && self.input.is_empty()) || secure.is_peer_closed();
        if is_over && !progress {
            mux.handle_end(CloseReason::Ended);
        }
        progress
    }

    fn feed(&mut self, secure: &mut Secure) -> Result<bool, Box<UpgradeError>> {
        feed(&mut self.input, secure).inspect_err(|_| {
            while let Some(alert) = secure.poll_transmit() {
                self.output.extend_from_slice(&alert);
            }
        })
    }

    fn fail(&mut self, error: UpgradeError) {
        self.stage = Stage::Failed;
        self.input.clear();
        self.unsent.clear();
        self.events.push_back(Event::Failed(error));
    }
}

/// Hands one chunk of the input to the security protocol; whether it took any.
fn feed(input: &mut VecDeque<Bytes>, secure: &mut Secure) -> Result<bool, Box<UpgradeError>> {
    let Some(chunk) = input.front_mut() else { return Ok(false) };
    let before = chunk.len();
    secure.handle_bytes(chunk)?;
    let left = chunk.len();
    if left == 0 {
        input.pop_front();
    }
    Ok(left < before)
}

fn protocols(security: &[Security]) -> Vec<&'static str> {
    security.iter().map(|security| security.protocol()).collect()
}

fn disagreed(error: NegotiateError) -> Box<UpgradeError> {
    Box::new(UpgradeError::Negotiation(error.to_string()))
}

/// Our side of multistream-select.
#[derive(Debug)]
enum Negotiation {
    Dialer(Dialer),
    Listener(Listener),
}

impl Negotiation {
    fn new(role: UpgradeRole, names: &[&str], out: &mut BytesMut) -> Self {
        match role {
            UpgradeRole::Initiator => Self::Dialer(Dialer::new(names.iter().copied(), out)),
            UpgradeRole::Responder => Self::Listener(Listener::new()),
        }
    }

    /// Takes bytes; returns which of `names` was agreed on, once one was.
    fn handle_bytes(
        &mut self,
        chunk: Bytes,
        names: &[&str],
        out: &mut BytesMut,
    ) -> Result<Option<usize>, NegotiateError> {
        let find = |name: &str| names.iter().position(|known| *known == name);
        match self {
            Self::Dialer(dialer) => Ok(dialer.handle_bytes(chunk, out)?.and_then(|name| find(&name))),
            Self::Listener(listener) => listener.handle_bytes(chunk, find, out),
        }
    }

    fn take_rest(&mut self) -> Vec<Bytes> {
        match self {
            Self::Dialer(dialer) => dialer.take_rest(),
            Self::Listener(listener) => listener.take_rest(),
        }
    }
}
