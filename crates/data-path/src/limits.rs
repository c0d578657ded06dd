//! What the engine may hold in memory, in one place, so that the bound can be read and added up.
//!
//! A backup holds `READS_IN_FLIGHT × READ_BYTES` = 24 MiB of answers on their way, [`WAITING_BYTES`] between its reading
//! and its storing half, and what `repository::Writer` states for itself; one that reads only what changed also the ids of its
//! base, some 40 bytes a chunk. A restore holds [`FETCHES_IN_FLIGHT`] reads of
//! at most 8 MiB, sealed and plain, and `WRITES_IN_FLIGHT` chunks. A backup in the original's layout holds
//! [`PARTS_IN_FLIGHT`] parts of 10 MiB and what is read for them. The whole process stays under [`PROCESS_BYTES`];
//! `a_disk_of_four_gib_passes_through_bounded_memory` in the command line's tests watches it.

/// Bytes asked for in one read. Larger ones are slower on qemu-nbd and on VDDK; smaller ones cost round trips.
pub const READ_BYTES: u64 = 1 << 20;

/// Reads under way at once. Eight keep a local server busy; a server that takes 20 ms for each needs more, and with those that
/// wait to be stored no more than 32 MiB are on their way.
pub const READS_IN_FLIGHT: usize = 24;

/// Bytes that wait between reading and storing.
pub const WAITING_BYTES: u64 = 8 << 20;

/// Bytes of one step through the disk: bounds the list of extents in memory (fragmented to single 4 KiB blocks, a
/// window is 131,072 extents of 16 bytes, 2 MiB) and the plan of a restore.
pub const WINDOW_BYTES: u64 = 1 << 30;

/// Ranged reads of packs under way at once, each of at most 8 MiB of plaintext.
pub const FETCHES_IN_FLIGHT: usize = 4;

/// Bytes of one read of a disk in the original's layout; those of packs are about as large.
pub const FETCH_BYTES: u64 = 8 << 20;

/// Parts of a disk in the original's layout under way at once, each of 10 MiB.
pub const PARTS_IN_FLIGHT: usize = 4;

/// Writes under way at once.
pub const WRITES_IN_FLIGHT: usize = 8;

/// Bytes of one request to write zeroes. A server may really write them, and the request's deadline counts.
pub const ZERO_BYTES: u64 = 32 << 20;

/// NBD connections to one disk, where the server promises that they see each other's writes.
pub const CONNECTIONS: usize = 2;

/// Resident memory of a whole process that runs one transfer.
pub const PROCESS_BYTES: u64 = 256 << 20;
