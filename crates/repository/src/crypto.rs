//! Sealing and opening as restic does it: AES-256 in counter mode with Poly1305-AES, `IV ‖ ciphertext ‖ MAC`.
//!
//! Knows keys and bytes, no objects.

use std::fmt;

use aes256ctr_poly1305aes::aead::AeadInPlace;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

const IV: usize = 16;
const MAC: usize = 16;

/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = IV + MAC;

/// Fills `bytes` from the system.
pub(crate) fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system gives random bytes");
}

/// 64 bytes of key: 32 for AES-256, 16 for the AES of the MAC, 16 for Poly1305's `r`.
#[derive(Clone)]
pub(crate) struct Cipher {
    aead: Aes256CtrPoly1305Aes,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    pub(crate) fn new(key: &[u8; 64]) -> Self {
        Self { aead: Aes256CtrPoly1305Aes::new(Key::from_slice(key)) }
    }

    /// Appends the sealed `plain` to `out`.
    pub(crate) fn seal_into(&self, out: &mut Vec<u8>, plain: &[u8]) {
        let mut iv = [0; IV];
        random(&mut iv);
        out.reserve(plain.len() + OVERHEAD);
        out.extend_from_slice(&iv);
        let start = out.len();
        out.extend_from_slice(plain);
        let mac = self
            .aead
            .encrypt_in_place_detached(Nonce::from_slice(&iv), b"", &mut out[start..])
            .expect("no associated data, and far below the cipher's limit");
        out.extend_from_slice(&mac);
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.seal_into(&mut out, plain);
        out
    }

    /// The plaintext; `None` when a byte was changed or the key is another.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        if sealed.len() < OVERHEAD {
            return None;
        }
        let (iv, rest) = sealed.split_at(IV);
        let (ciphertext, mac) = rest.split_at(rest.len() - MAC);
        let mut plain = ciphertext.to_vec();
        self.aead.decrypt_in_place_detached(Nonce::from_slice(iv), b"", &mut plain, Tag::from_slice(mac)).ok()?;
        Some(plain)
    }
}

/// A repository's own key, as the key files hold it.
#[derive(Serialize, Deserialize)]
pub(crate) struct MasterKey {
    mac: MacKey,
    encrypt: String,
}

#[derive(Serialize, Deserialize)]
struct MacKey {
    k: String,
    r: String,
}

impl MasterKey {
    /// A fresh one.
    pub(crate) fn generate() -> Self {
        let mut key = [0; 64];
        random(&mut key);
        for (at, mask) in R_MASK {
            key[48 + at] &= mask;
        }
        let text = |range: std::ops::Range<usize>| STANDARD.encode(&key[range]);
        Self { mac: MacKey { k: text(32..48), r: text(48..64) }, encrypt: text(0..32) }
    }

    /// `None` when a part has not its length.
    pub(crate) fn cipher(&self) -> Option<Cipher> {
        let mut key = [0; 64];
        for (text, range) in [(&self.encrypt, 0..32), (&self.mac.k, 32..48), (&self.mac.r, 48..64)] {
            let part = STANDARD.decode(text).ok()?;
            if part.len() != range.len() {
                return None;
            }
            key[range].copy_from_slice(&part);
        }
        Some(Cipher::new(&key))
    }
}

/// Bits that Poly1305 wants clear in `r`; restic clears them when it makes a key.
const R_MASK: [(usize, u8); 7] = [(3, 15), (7, 15), (11, 15), (15, 15), (4, 252), (8, 252), (12, 252)];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn a_changed_byte_is_never_read_as_data() {
        let cipher = MasterKey::generate().cipher().unwrap();
        let sealed = cipher.seal(b"some content");
        assert_eq!(sealed.len(), 12 + OVERHEAD);
        assert_eq!(cipher.open(&sealed).unwrap(), b"some content");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(cipher.open(&changed).is_none(), "{at}");
        }
        assert!(MasterKey::generate().cipher().unwrap().open(&sealed).is_none());
        assert!(cipher.open(&sealed[..OVERHEAD - 1]).is_none());
    }

    #[test]
    fn equal_content_is_sealed_differently_each_time() {
        let cipher = MasterKey::generate().cipher().unwrap();
        assert_ne!(cipher.seal(b"x"), cipher.seal(b"x"));
    }
}
