//! Which way to hash: what this CPU has, and which of it is fastest. Knows nothing of SHA-256 itself.

use std::fmt;

use ring::digest::{SHA256, digest};

use crate::Digest;
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};

/// From this many messages on a set of lanes, however idle, is faster than one message after the other: a set costs
/// as much as 2.2 (AVX-512) or 2.3 (AVX2) single messages of 512 KiB. Measured by `examples/hash_throughput.rs` on a Xeon
/// of family 6, model 85 (Cascade Lake) at 2.5 GHz.
#[cfg(target_arch = "x86_64")]
const WORTH_LANES: usize = 3;

/// A way to hash that this CPU is known to have: there is no other way to get one than to ask the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Cpu),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Cpu),
    Single,
}

impl Engine {
    /// One message after the other, by `ring`: on every CPU, and with its SHA instructions if it has them.
    pub const SINGLE: Self = Self(Kind::Single);

    /// The fastest engine of this CPU: [`Engine::SINGLE`] where it has SHA instructions, else the widest lanes.
    /// Cheap enough to ask each time: the standard library remembers what the CPU said.
    #[must_use]
    pub fn best() -> Self {
        if has_sha_instructions() {
            return Self::SINGLE;
        }
        Self::available().first().copied().unwrap_or(Self::SINGLE)
    }

    /// Every engine that this CPU can run, widest first; [`Engine::SINGLE`] is always the last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut engines = Self::with_lanes();
        engines.push(Self::SINGLE);
        engines
    }

    #[cfg(target_arch = "x86_64")]
    fn with_lanes() -> Vec<Self> {
        let avx512 = avx512::Cpu::detect().map(|cpu| Self(Kind::Avx512(cpu)));
        let avx2 = avx2::Cpu::detect().map(|cpu| Self(Kind::Avx2(cpu)));
        avx512.into_iter().chain(avx2).collect()
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn with_lanes() -> Vec<Self> {
        Vec::new()
    }

    /// How many messages it hashes at once: 16, 8 or 1.
    #[must_use]
    pub fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => avx2::LANES,
            Kind::Single => 1,
        }
    }

    /// The digests of at most [`Engine::lanes`] messages of about one length.
    pub(crate) fn digest_group(self, messages: &[&[u8]]) -> Vec<Digest> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(cpu) if messages.len() >= WORTH_LANES => side_by_side(messages, |full| cpu.digests(full)),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(cpu) if messages.len() >= WORTH_LANES => side_by_side(messages, |full| cpu.digests(full)),
            _ => messages.iter().map(|message| single(message)).collect(),
        }
    }
}

/// The name to log: `avx512`, `avx2` or `single`.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            Kind::Single => "single",
        })
    }
}

/// Whether `ring` finds SHA instructions and so beats lanes. Elsewhere than on x86-64 there are no lanes to beat.
fn has_sha_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn single(message: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, message).as_ref()); // SHA-256 has 32 bytes
    bytes
}

/// Fills the lanes: those without a message of their own repeat one, which is then in the cache already.
#[cfg(target_arch = "x86_64")]
fn side_by_side<const N: usize>(messages: &[&[u8]], digests: impl FnOnce(&[&[u8]; N]) -> [Digest; N]) -> Vec<Digest> {
    let full = std::array::from_fn(|lane| messages[lane % messages.len()]);
    digests(&full).into_iter().take(messages.len()).collect()
}
