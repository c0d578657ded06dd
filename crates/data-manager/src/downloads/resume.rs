//! Where an attempt to write a volume begins: at the start, or where an earlier one has left it. An earlier one is believed as
//! far as the Download's checkpoint goes, which names restore point and disk.

use std::sync::Arc;
use std::time::Duration;

use api::{Download, DownloadCheckpoint, labels};
use connections::from_kube;
use data_path::{Checkpoint, Checkpoints, RestoreOptions, Source, TargetContent};
use disk::DiskId;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::clone::claims::scratch_name_of;
use lifecycle::snapshot::disk_of;

use crate::context::Context;

/// Pause between two flushes of the disk, each with a checkpoint. With the two seconds between two words on progress, and
/// some time for flush and word, a kill costs three seconds of writing.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// What is known of a volume that is being written.
pub(super) struct Start {
    checkpoints: Arc<Checkpoints>,
    disk: DiskId,
    /// It read as zeroes before the first write, and nothing but this restore point was written to it since.
    was_blank: bool,
}

impl Start {
    /// Looks at what `download` says of the attempts before. `touched`: there was one that may have written.
    pub(super) async fn find(
        ctx: &Context,
        download: &Download,
        reader: &dyn Source,
        disk: &DiskId,
        touched: bool,
    ) -> Result<Self, Problem> {
        let noted = download.status.as_ref().and_then(|status| status.checkpoint.as_ref());
        let (checkpoint, may_be_blank) = match noted.map(|noted| (noted, read(noted, reader, disk))) {
            Some((noted, Ok(checkpoint))) => (checkpoint, noted.was_blank),
            Some((_, Err(why))) => {
                tracing::warn!(why, "the checkpoint is of no use; the restore begins at its start");
                (Checkpoint::nothing(reader), false)
            }
            None => (Checkpoint::nothing(reader), !touched), // the attempt of a version that noted none
        };
        let (written, up_to, of) = (checkpoint.bytes(), checkpoint.up_to(), reader.size());
        if written > 0 {
            tracing::info!(written, up_to, of, "going on behind what is on the volume for good");
        }
        let was_blank = may_be_blank && is_blank(ctx, download, disk).await?;
        Ok(Self { checkpoints: Arc::new(Checkpoints::new(checkpoint, FLUSH_EVERY)), disk: disk.clone(), was_blank })
    }

    /// How to write.
    pub(super) fn options(&self) -> RestoreOptions {
        let target = if self.was_blank { TargetContent::KnownZero } else { TargetContent::Unknown };
        RestoreOptions { target, checkpoints: Some(self.checkpoints.clone()), ..RestoreOptions::default() }
    }

    /// What of it is on the volume for good by now.
    pub(super) fn checkpoint(&self) -> DownloadCheckpoint {
        let latest = self.checkpoints.latest();
        DownloadCheckpoint {
            digest: latest.digest().to_owned(),
            disk: self.disk.to_string(),
            was_blank: self.was_blank,
            chunk_size: latest.chunk_size(),
            up_to: latest.up_to(),
            beyond: latest.beyond(),
        }
    }
}

fn read(noted: &DownloadCheckpoint, reader: &dyn Source, disk: &DiskId) -> Result<Checkpoint, String> {
    if noted.is_untouched() {
        return Ok(Checkpoint::nothing(reader));
    }
    if noted.disk != disk.as_str() {
        return Err("it is of another disk".to_owned());
    }
    let checkpoint = Checkpoint::noted(reader, &noted.digest, noted.chunk_size, noted.up_to, &noted.beyond);
    checkpoint.map_err(|unfit| unfit.to_string())
}

/// Whether the driver made the volume for this very restore, so that it read as zeroes and holes need not be written.
///
/// The Download's own word is no proof: anybody may write one. The proof is the scratch claim of the clone that the
/// Download is marked with: it is bound to this disk, and nobody but the CSI driver makes its volume.
async fn is_blank(ctx: &Context, download: &Download, disk: &DiskId) -> Result<bool, Problem> {
    let Some(clone_uid) = download.labels().get(labels::SCRATCH_FOR) else { return Ok(false) };
    let name = scratch_name_of(clone_uid);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let claim = claims.get_opt(&name).await.map_err(|e| from_kube(&format!("read the scratch claim {name}"), &e))?;
    let Some(volume) = claim.and_then(|c| c.spec?.volume_name).filter(|name| !name.is_empty()) else {
        return Ok(false);
    };
    let volumes: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let found = volumes.get_opt(&volume).await.map_err(|e| from_kube(&format!("read volume {volume}"), &e))?;
    Ok(found.is_some_and(|v| disk_of(&v).is_ok_and(|of_claim| of_claim == *disk)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use repository::store::FolderStore;
    use repository::{DiskFacts, NewRestorePoint, WriterOptions};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checkpoint_counts_for_its_own_restore_point_on_its_own_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FolderStore::new(folder.path()));
        let repository = repository::initialise(store, &"a key".into()).await.unwrap();
        let point = NewRestorePoint::new("host", "/disk", api::Timestamp::now(), DiskFacts::of_size(4 << 20));
        let writer = repository.writer(point, WriterOptions::default()).await.unwrap();
        writer.put_zero(0..7).await.unwrap();
        writer.put_chunk(7, vec![7; 512 << 10].into()).await.unwrap();
        let reader = repository.reader(&writer.commit().await.unwrap().id).await.unwrap();

        let disk: DiskId = "disk-1".parse().unwrap();
        let start = Start {
            checkpoints: Arc::new(Checkpoints::new(Checkpoint::nothing(&reader), FLUSH_EVERY)),
            disk: disk.clone(),
            was_blank: true,
        };
        let noted = DownloadCheckpoint { up_to: 1 << 20, beyond: "02".to_owned(), ..start.checkpoint() };
        let cases = [
            ("its own", noted.clone(), Some(3 << 19)),
            ("before the first write", DownloadCheckpoint::untouched(), Some(0)),
            ("of another disk", DownloadCheckpoint { disk: "disk-2".to_owned(), ..noted.clone() }, None),
            ("of another restore point", DownloadCheckpoint { digest: "00".to_owned(), ..noted.clone() }, None),
            ("cut otherwise", DownloadCheckpoint { chunk_size: 1 << 20, ..noted.clone() }, None),
            ("of a larger disk", DownloadCheckpoint { up_to: 8 << 20, ..noted.clone() }, None),
            ("garbage", DownloadCheckpoint { beyond: "much".to_owned(), ..noted.clone() }, None),
        ];
        for (situation, noted, want) in cases {
            let written = read(&noted, &reader, &disk).ok().map(|checkpoint| checkpoint.bytes());
            assert_eq!(written, want, "{situation}");
        }
    }
}
