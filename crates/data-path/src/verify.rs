//! Reads every byte of a restore point again, and compares it with a disk where one is given. Changes nothing.

use std::time::{Duration, Instant};

use disk::{ByteRange, Ranges};
use futures::{StreamExt, TryStreamExt, stream};
use repository::{ChunkRef, ReadChunk, Reader, Unread, is_zero};
use tokio_util::sync::CancellationToken;

use crate::disk_access::Disk;
use crate::error::Error;
use crate::limits::{FETCHES_IN_FLIGHT, READ_BYTES, READS_IN_FLIGHT, WINDOW_BYTES};
use crate::progress::{Counts, Progress};
use crate::restore::zero_ranges;
use crate::select;

/// Damages that are kept word for word; the rest is counted.
const DAMAGES_KEPT: usize = 100;

/// What was found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// The counters at the end.
    pub counts: Counts,
    /// Damaged pieces of the repository, each named once; at most 100 of them.
    pub damages: Vec<String>,
    /// How many there are.
    pub damage_count: u64,
    /// Where on the disk they are missed: what a restore could not give back.
    pub damaged: Ranges,
    /// Where the disk given is not what the restore point says. Empty when none was given.
    pub differences: Ranges,
    /// How long it took.
    pub elapsed: Duration,
}

impl VerifyReport {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0 && self.differences.is_empty()
    }
}

/// Reads and checks all chunks of the restore point, and goes on behind what is damaged. With `against`, compares byte for byte: a disk that is shorter
/// differs in what it lacks, one that is longer in what it holds beyond the restore point's end and is not zero.
///
/// # Errors
/// Damage and differences are findings, not errors; an error means that not everything was looked at.
pub async fn verify(
    reader: &Reader,
    against: Option<&Disk>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<VerifyReport, Error> {
    let began = Instant::now();
    let size = reader.size();
    let end = against.map_or(size, |disk| disk.size().max(size));
    progress.begin(end);
    let mut found = Found::default();
    let looking = async {
        for window in select::windows(size, WINDOW_BYTES.next_multiple_of(reader.chunk_size())) {
            look_at_data(reader, against, window, progress, &mut found).await?;
            let zeroes = zero_ranges(reader, window);
            look_at_zeroes(&zeroes, against, window, progress, &mut found).await?;
        }
        for part in select::windows(end - size, WINDOW_BYTES) {
            let beyond = ByteRange::new(size + part.offset, part.length);
            look_at_zeroes(&Ranges::from_iter([beyond]), against, beyond, progress, &mut found).await?;
        }
        Ok::<_, Error>(())
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        done = looking => done?,
    }
    let Found { damages, damage_count, damaged, differences } = found;
    let (counts, elapsed) = (progress.counts(), began.elapsed());
    Ok(VerifyReport { counts, damages, damage_count, damaged, differences, elapsed })
}

#[derive(Default)]
struct Found {
    damages: Vec<String>,
    damage_count: u64,
    damaged: Ranges,
    differences: Ranges,
}

impl Found {
    /// Notes damage; any other error ends the verification.
    fn damage(&mut self, error: repository::Error, places: Ranges) -> Result<(), Error> {
        let source = match error {
            repository::Error::Damaged { source, .. } => source,
            other => return Err(Error::repository("read chunks")(other)),
        };
        places.iter().for_each(|range| self.damaged.insert(range));
        let piece = source.to_string();
        if self.damages.contains(&piece) {
            return Ok(()); // a pack that is gone is missed by many reads
        }
        self.damage_count += 1;
        if self.damages.len() < DAMAGES_KEPT {
            self.damages.push(piece);
        }
        Ok(())
    }
}

async fn look_at_data(
    reader: &Reader,
    against: Option<&Disk>,
    window: ByteRange,
    progress: &Progress,
    found: &mut Found,
) -> Result<(), Error> {
    let wanted = select::chunks(window, reader.chunk_size()).filter(|index| reader.chunk(*index) != ChunkRef::Zero);
    let chunks = reader.examine(reader.plan(wanted), FETCHES_IN_FLIGHT);
    let looked = chunks.map(|chunk| async {
        let chunk = chunk.map_err(Trouble::Unread)?;
        let differences = match against {
            Some(disk) => compare(reader, disk, &chunk).await.map_err(Trouble::Disk)?,
            None => Ranges::new(),
        };
        Ok((chunk, differences))
    });
    let mut looked = std::pin::pin!(looked.buffer_unordered(READS_IN_FLIGHT));
    while let Some(result) = looked.next().await {
        match result {
            Ok((chunk, differences)) => {
                progress.add_read(chunk.data.len() as u64);
                progress.settle(chunk.at.iter().map(|index| reader.chunk_range(*index).length).sum());
                differences.iter().for_each(|range| found.differences.insert(range));
            }
            Err(Trouble::Unread(Unread { at, error })) => {
                let places: Ranges = at.iter().map(|index| reader.chunk_range(*index)).collect();
                progress.settle(places.bytes());
                found.damage(*error, places)?;
            }
            Err(Trouble::Disk(error)) => return Err(error),
        }
    }
    Ok(())
}

enum Trouble {
    Unread(Unread),
    Disk(Error),
}

/// Where the disk differs from a chunk, at all its places.
async fn compare(reader: &Reader, disk: &Disk, chunk: &ReadChunk) -> Result<Ranges, Error> {
    let mut differences = Ranges::new();
    for index in &chunk.at {
        let range = reader.chunk_range(*index);
        let there = range.intersection(&ByteRange::new(0, disk.size()));
        differences.insert(ByteRange::between(there.end().max(range.offset), range.end()));
        if !there.is_empty() {
            let bytes = disk.read(there).await?;
            let (first, last) = different(&bytes, &chunk.data[..bytes.len()]);
            differences.insert(ByteRange::between(range.offset + first, range.offset + last));
        }
    }
    Ok(differences)
}

/// From the first to behind the last byte that differs; an empty span when none does.
fn different(a: &[u8], b: &[u8]) -> (u64, u64) {
    if a == b {
        return (0, 0);
    }
    let first = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(0);
    let last = a.iter().zip(b).rposition(|(x, y)| x != y).map_or(0, |last| last + 1);
    (first as u64, last as u64)
}

/// Where the restore point has zeroes, and behind its end, the disk must read as zeroes.
async fn look_at_zeroes(
    zeroes: &Ranges,
    against: Option<&Disk>,
    window: ByteRange,
    progress: &Progress,
    found: &mut Found,
) -> Result<(), Error> {
    if let Some(disk) = against {
        let there = window.intersection(&ByteRange::new(0, disk.size()));
        for lacking in zeroes.iter().map(|range| ByteRange::between(range.offset.max(there.end()), range.end())) {
            found.differences.insert(lacking);
        }
        let suspects = if there.is_empty() { Ranges::new() } else { disk.data_in(there).await?.intersection(zeroes) };
        let parts: Vec<_> = suspects.iter().flat_map(parts).collect();
        let looked = stream::iter(parts).map(|part| async move { disk.read(part).await.map(|bytes| (part, bytes)) });
        let mut looked = looked.buffer_unordered(READS_IN_FLIGHT);
        while let Some((part, bytes)) = looked.try_next().await? {
            if !is_zero(&bytes) {
                let (first, last) = different(&bytes, &vec![0; bytes.len()]);
                found.differences.insert(ByteRange::between(part.offset + first, part.offset + last));
            }
        }
    }
    progress.skip(zeroes.bytes());
    Ok(())
}

fn parts(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    select::windows(range.length, READ_BYTES).map(move |part| ByteRange::new(range.offset + part.offset, part.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_to_the_byte() {
        let mut other = [7; 100];
        assert_eq!(different(&[7; 100], &other), (0, 0));
        other[42] = 1;
        assert_eq!(different(&[7; 100], &other), (42, 43));
        other[99] = 1;
        assert_eq!(different(&[7; 100], &other), (42, 100));
    }
}
