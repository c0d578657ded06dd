//! The `config` object: which version, which id, how programs that cut by content cut.

use serde::{Deserialize, Serialize};

use crate::crypto::{Cipher, random};
use crate::disk_image::CHUNK_SIZE;
use crate::hash::hex;

/// Key of the object.
pub(crate) const KEY: &str = "config";

/// The version written and read here.
pub(crate) const VERSION: u32 = 2;

/// `config` as restic reads it, with rustic's notes for a fixed chunk size, which restic ignores.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) chunker_polynomial: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chunker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chunk_size: Option<u64>,
}

impl Config {
    /// For a new repository.
    pub(crate) fn generate() -> Self {
        let mut id = [0; 32];
        random(&mut id);
        Self {
            version: VERSION,
            id: hex(&id),
            chunker_polynomial: format!("{:x}", random_polynomial()),
            chunker: Some("FixedSize".to_owned()),
            chunk_size: Some(CHUNK_SIZE),
        }
    }

    pub(crate) fn seal(&self, cipher: &Cipher) -> Vec<u8> {
        cipher.seal(&serde_json::to_vec(self).expect("plain strings and numbers are JSON"))
    }

    /// `None` when the key does not open it; `Some(Err)` when it opens and is no config.
    pub(crate) fn open(sealed: &[u8], cipher: &Cipher) -> Option<Result<Self, serde_json::Error>> {
        cipher.open(sealed).map(|plain| serde_json::from_slice(&plain))
    }
}

/// Degree of the polynomials that restic's chunker works with.
const DEGREE: u32 = 53;

/// A random irreducible polynomial over GF(2) of degree 53; bit `n` is the coefficient of `x^n`. About one in 27 is.
fn random_polynomial() -> u64 {
    loop {
        let mut bytes = [0; 8];
        random(&mut bytes);
        let candidate = u64::from_le_bytes(bytes) & ((1 << DEGREE) - 1) | 1 << DEGREE | 1;
        if is_irreducible(candidate) {
            return candidate;
        }
    }
}

/// Ben-Or's test: `f` is irreducible when it shares no factor with `x^(2^i) - x` for any `i` up to half its degree.
fn is_irreducible(f: u64) -> bool {
    const X: u64 = 2;
    let mut power = X;
    for _ in 0..degree(f) / 2 {
        power = multiply(power, power, f);
        if gcd(f, power ^ X) != 1 {
            return false;
        }
    }
    true
}

fn degree(f: u64) -> u32 {
    63 - f.leading_zeros()
}

/// `a * b mod f`; `a` and `b` are below `f`'s degree.
fn multiply(a: u64, b: u64, f: u64) -> u64 {
    let top = 1 << degree(f);
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        b >>= 1;
        a <<= 1;
        if a & top != 0 {
            a ^= f;
        }
    }
    product
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        while a != 0 && degree(a) >= degree(b) {
            a ^= b << (degree(a) - degree(b));
        }
        (a, b) = (b, a);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunker_gets_only_polynomials_without_factors() {
        // x^2+x+1 and x^3+x+1 are irreducible, their product and squares are not
        assert!(is_irreducible(0b111));
        assert!(is_irreducible(0b1011));
        assert!(!is_irreducible(0b110001)); // (x^2+x+1)(x^3+x+1) = x^5+x^4+1
        assert!(!is_irreducible(0b101)); // (x+1)^2
        assert!(is_irreducible(0x003D_A335_8B4D_C173), "the one that restic's chunker documents");
        for _ in 0..20 {
            assert_eq!(degree(random_polynomial()), DEGREE);
        }
    }

    #[test]
    fn irreducible_means_no_divisor_of_smaller_degree() {
        let divides = |d: u64, f: u64| {
            let mut rest = f;
            while rest != 0 && degree(rest) >= degree(d) {
                rest ^= d << (degree(rest) - degree(d));
            }
            rest == 0
        };
        for f in 0b100..1024_u64 {
            let has_divisor = (0b10..(1 << degree(f))).any(|d| divides(d, f));
            assert_eq!(is_irreducible(f), !has_divisor, "{f:b}");
        }
    }
}
