//! SHA-256 of many messages side by side, for CPUs without SHA instructions.
//!
//! One message keeps a CPU waiting for itself: every step of SHA-256 needs the one before. Sixteen messages of
//! about one length have the same steps, so a register of sixteen words takes a step of all of them at once. The digests are
//! those of SHA-256, bit for bit; only the order of work differs. [`Engine`] is a way to do it that this CPU has,
//! [`digest_all`] is the work.
//!
//! ```
//! use lanes::{Engine, digest_all};
//!
//! let chunks: Vec<Vec<u8>> = (0..20).map(|fill| vec![fill; 4096]).collect();
//! let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
//! assert_eq!(digest_all(Engine::best(), &chunks), digest_all(Engine::SINGLE, &chunks));
//! ```
//!
//! It may do no I/O, start no thread and know nothing of backups. `unsafe` lives in `avx512` and `avx2` alone.
//! Plain arrays of words, left to the compiler to make vectors of, were tried first: 0.4 of the throughput with
//! sixteen lanes, and with eight 0.8 or, once the rounds were written out, less than `ring` alone.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod compression;
mod engine;
#[cfg(target_arch = "x86_64")]
mod padding;

pub use engine::Engine;

/// A SHA-256 digest, in the byte order of FIPS 180-4 section 6.2.2: what `sha256sum` prints.
pub type Digest = [u8; 32];

/// The digests of `messages`, in their order. Any number of messages, of any lengths; never panics.
///
/// Messages of about equal length go together, up to [`Engine::lanes`] at a time, wherever they stand in the slice. A
/// caller gains by passing many at once: a full set of lanes costs as much as a set of three.
#[must_use]
pub fn digest_all(engine: Engine, messages: &[&[u8]]) -> Vec<Digest> {
    let mut digests = vec![[0; 32]; messages.len()];
    let mut by_length: Vec<usize> = (0..messages.len()).collect();
    by_length.sort_by_key(|&at| std::cmp::Reverse(messages[at].len()));
    let mut rest = by_length.as_slice();
    while let Some(&longest) = rest.first() {
        let together = rest.iter().take(engine.lanes()).take_while(|&&at| is_near(messages[longest], messages[at]));
        let (group, behind) = rest.split_at(together.count());
        rest = behind;
        let group_messages: Vec<&[u8]> = group.iter().map(|&at| messages[at]).collect();
        for (&at, digest) in group.iter().zip(engine.digest_group(&group_messages)) {
            digests[at] = digest;
        }
    }
    digests
}

/// Whether a shorter message loses little by waiting for a longer one: at most an eighth.
fn is_near(longer: &[u8], shorter: &[u8]) -> bool {
    shorter.len() >= longer.len() - longer.len() / 8
}
