//! The one cipher suite of libp2p's Noise, for snow: aws-lc's primitives, and randomness from the caller.

use std::cell::Cell;

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    digest::{Context, SHA256},
};
use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};

use crate::rng::{Rng, RngCore as _};

const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// Resolves X25519, ChaCha20-Poly1305 and SHA-256, and nothing else. Good for one handshake.
pub(super) struct Suite(Cell<Option<Rng>>);

impl Suite {
    /// A suite whose ephemeral key comes from `rng`.
    pub(super) fn new(rng: Rng) -> Self {
        Self(Cell::new(Some(rng)))
    }
}

impl CryptoResolver for Suite {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        // Handed out once: two users of the same stream would draw the same keys.
        let rng = self.0.take()?;
        Some(Box::new(Seeded(rng)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<KeyPair>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256(Context::new(&SHA256))) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| Box::new(ChaChaPoly(cipher_key(&[0; KEY_LEN]))) as Box<dyn Cipher>)
    }
}

struct Seeded(Rng);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

/// The public key of an X25519 private key.
pub(super) fn public_key(private: &[u8; KEY_LEN]) -> Result<[u8; KEY_LEN], Error> {
    let key = PrivateKey::from_private_key(&X25519, private).map_err(|_| Error::Dh)?;
    let public = key.compute_public_key().map_err(|_| Error::Dh)?;
    public.as_ref().try_into().map_err(|_| Error::Dh)
}

#[derive(Default)]
struct KeyPair {
    private: [u8; KEY_LEN],
    public: [u8; KEY_LEN],
}

impl Dh for KeyPair {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, private: &[u8]) {
        self.private = private.try_into().expect("snow checks the length against priv_len");
        self.public = public_key(&self.private).expect("any 32 bytes are an X25519 private key");
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = [0; KEY_LEN];
        rng.try_fill_bytes(&mut private)?;
        self.set(&private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let private = PrivateKey::from_private_key(&X25519, &self.private).map_err(|_| Error::Dh)?;
        let public = UnparsedPublicKey::new(&X25519, public.get(..KEY_LEN).ok_or(Error::Dh)?);
        // Fails for points of small order, whose result does not depend on our key.
        agree(&private, public, Error::Dh, |secret| {
            out.get_mut(..secret.len()).ok_or(Error::Dh)?.copy_from_slice(secret);
            Ok(())
        })
    }
}

struct Sha256(Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        SHA256.block_len()
    }

    fn hash_len(&self) -> usize {
        SHA256.output_len()
    }

    fn reset(&mut self) {
        self.0 = Context::new(&SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest = std::mem::replace(&mut self.0, Context::new(&SHA256)).finish();
        out[..digest.as_ref().len()].copy_from_slice(digest.as_ref());
    }
}

struct ChaChaPoly(LessSafeKey);

fn cipher_key(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the length is the algorithm's"))
}

/// Noise's nonce for this cipher: four zero bytes and a little-endian counter.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_LEN]) {
        self.0 = cipher_key(key);
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let len = plaintext.len() + TAG_LEN;
        let (body, tag) = out[..len].split_at_mut(plaintext.len());
        self.0
            .seal_out_of_place_scatter(nonce(counter), Aad::from(authtext), plaintext, body, &[], tag)
            .expect("the lengths fit");
        len
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let len = ciphertext.len().checked_sub(TAG_LEN).ok_or(Error::Decrypt)?;
        let (body, tag) = ciphertext.split_at(len);
        let out = out.get_mut(..len).ok_or(Error::Decrypt)?;
        self.0
            .open_separate_gather(nonce(counter), Aad::from(authtext), body, tag, out)
            .map_err(|_| Error::Decrypt)?;
        Ok(len)
    }
}
