//! TLS over byte slices: `/tls/1.0.0` on TCP connections and on relayed circuits.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::certificate::peer_id_of_verified;
use super::verifier::PeerError;

/// The protocol name to negotiate before the first TLS byte.
pub const PROTOCOL: &str = "/tls/1.0.0";

/// Why a TLS stream is broken. Such an error is final.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer was refused.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// TLS itself failed: a malformed or forged record, no protocol in common, an alert from the peer.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        PeerError::find(&error).map_or(Self::Tls(error), Self::Peer)
    }
}

/// One end of a TLS connection: bytes from the network in, bytes for the network out, plaintext on the other side.
///
/// After every call that changes something, send all of [`poll_transmit`](Self::poll_transmit), also after an error:
/// the alert tells the peer why. Deadlines for the handshake are the caller's.
///
/// Memory is bounded on both sides: unread plaintext stops [`handle_bytes`](Self::handle_bytes) (at most two records
/// are held), unsent ciphertext stops [`write`](Self::write) at about 64 KiB.
///
/// A client has finished its handshake before the server has seen the client's certificate. A refusal by the server
/// therefore reaches the client as an error on an established connection.
#[derive(Debug)]
pub struct TlsStream {
    connection: Connection,
    /// Bytes of plaintext that wait for [`read`](Self::read).
    unread: usize,
    peer: Option<PeerId>,
    peer_closed: bool,
    closed: bool,
    error: Option<TlsError>,
}

impl TlsStream {
    /// The side that dialled, or that has the client role on a circuit.
    ///
    /// # Errors
    /// If the cryptography provider fails.
    pub fn client(config: Arc<ClientConfig>) -> Result<Self, TlsError> {
        // rustls wants a name; an address is never sent as SNI and our verifier ignores it.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        Ok(Self::new(ClientConnection::new(config, name)?.into()))
    }

    /// The side that accepts.
    ///
    /// # Errors
    /// If the cryptography provider fails.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(ServerConnection::new(config)?.into()))
    }

    fn new(connection: Connection) -> Self {
        Self { connection, unread: 0, peer: None, peer_closed: false, closed: false, error: None }
    }

    /// Takes ciphertext from the network and tells how many bytes of it were accepted. Fewer than given means that
    /// plaintext waits: [`read`](Self::read) until `None`, then offer the rest again.
    ///
    /// Bytes after the peer's `close_notify` are accepted and dropped.
    ///
    /// # Errors
    /// The reason the stream broke, now or earlier.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut rest = bytes;
        while !rest.is_empty() && self.unread == 0 && !self.peer_closed {
            if let Err(error) = self.process(&mut rest) {
                self.error = Some(error.clone());
                return Err(error);
            }
        }
        if self.peer_closed {
            return Ok(bytes.len());
        }
        Ok(bytes.len() - rest.len())
    }

    /// Takes some bytes off the front of `rest`, at most a few KiB.
    fn process(&mut self, rest: &mut &[u8]) -> Result<(), TlsError> {
        self.connection.read_tls(rest).map_err(|error| rustls::Error::General(error.to_string()))?;
        let state = self.connection.process_new_packets()?;
        self.unread = state.plaintext_bytes_to_read();
        self.peer_closed = state.peer_has_closed();
        if self.peer.is_none() && !self.connection.is_handshaking() {
            self.peer = self.connection.peer_certificates().and_then(peer_id_of_verified);
        }
        Ok(())
    }

    /// The next plaintext from the peer, at most `max` bytes; `None` if there is none now. What arrived before an
    /// error is still there after it.
    pub fn read(&mut self, max: usize) -> Option<Bytes> {
        let mut reader = self.connection.reader();
        let chunk = reader.fill_buf().ok()?;
        let len = chunk.len().min(max);
        let plaintext = Bytes::copy_from_slice(&chunk[..len]);
        reader.consume(len);
        self.unread = self.unread.saturating_sub(len);
        (len > 0).then_some(plaintext)
    }

    /// Encrypts as much of `plaintext` as the buffer allows and tells how much. What is written during the handshake
    /// waits until the peer is verified. Nothing is accepted after [`close`](Self::close) or an error.
    pub fn write(&mut self, plaintext: &[u8]) -> usize {
        if self.closed || self.error.is_some() {
            return 0;
        }
        self.connection.writer().write(plaintext).unwrap_or(0)
    }

    /// All ciphertext that waits to be sent; `None` if there is none.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).expect("a vector takes all bytes");
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Whether the handshake still goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Who the peer is, once the handshake is complete.
    pub fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// The application protocol agreed on. `None` before that, or if the peer does not speak ALPN: then treat it as
    /// [`ALPN_LIBP2P`](super::ALPN_LIBP2P).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Says `close_notify`: we send nothing more. The peer may go on.
    pub fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.connection.send_close_notify();
        }
    }

    /// Whether the peer said `close_notify`. A connection that ends without it was cut off.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }
}

#[cfg(test)]
mod tests;
