//! The ids of all blobs that snapshots refer to: up to 20 bytes each, whatever refers to them how often.
//!
//! Holds the first 16 bytes of an id. Two ids that agree in these would keep a pack for longer, never lose one.

const SHARDS: usize = 1024;
type Short = [u8; 16];

/// A shard: sorted up to `settled`, then as they came.
#[derive(Default)]
struct Shard {
    ids: Vec<Short>,
    settled: usize,
}

impl Shard {
    fn settle(&mut self) {
        if self.settled < self.ids.len() {
            self.ids.sort_unstable();
            self.ids.dedup();
            self.settled = self.ids.len();
        }
    }
}

/// A set that grows, is settled, and is asked.
pub(super) struct IdSet {
    shards: Vec<Shard>,
}

fn short(id: &[u8; 32]) -> Short {
    *id.first_chunk().expect("an id has 32 bytes")
}

fn shard_of(id: Short) -> usize {
    usize::from(u16::from_be_bytes([id[0], id[1]]) >> 6)
}

impl IdSet {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    pub(super) fn insert(&mut self, id: &[u8; 32]) {
        let id = short(id);
        let shard = &mut self.shards[shard_of(id)];
        if shard.ids.len() == shard.ids.capacity() {
            shard.settle(); // most of what comes twice comes soon
            if shard.ids.len() + shard.ids.len() / 8 >= shard.ids.capacity() {
                shard.ids.reserve_exact(shard.ids.len() / 4 + 16);
            }
        }
        shard.ids.push(id);
    }

    /// Makes all that was inserted findable.
    pub(super) fn settle(&mut self) {
        self.shards.iter_mut().for_each(Shard::settle);
    }

    /// Whether it was inserted before the set was last settled.
    pub(super) fn contains(&self, id: &[u8; 32]) -> bool {
        let id = short(id);
        let shard = &self.shards[shard_of(id)];
        shard.ids[..shard.settled].binary_search(&id).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    fn id(n: u32) -> [u8; 32] {
        sha256(&n.to_le_bytes())
    }

    #[test]
    fn it_holds_what_was_inserted_and_nothing_else_in_twenty_bytes_each() {
        let mut set = IdSet::new();
        for round in 0..5 {
            for n in 0..100_000 {
                set.insert(&id(n));
            }
            set.settle();
            assert!((0..100_000).all(|n| set.contains(&id(n))), "round {round}");
        }
        assert!((100_000..200_000).all(|n| !set.contains(&id(n))));
        let bytes: usize = set.shards.iter().map(|shard| shard.ids.capacity() * 16).sum();
        assert!(bytes <= 100_000 * 24, "{bytes} bytes");
    }
}
