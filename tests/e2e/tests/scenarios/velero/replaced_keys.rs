//! Keys of a bucket that are replaced while an upload waits: as a user rotates them, in the Secret and at the store.

use anyhow::{Context as _, Result, ensure};
use api::{BackupRepositoryClaim, ClonePhase, CredentialSecret, Reason, SnapshotPhase, conditions, names};
use e2e::{Claim, DEADLINE, World, nothing_left, wait_until};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::storage_locations::{Keys, forget, readable_secret};

crate::scenarios![keys_that_are_replaced_under_a_waiting_upload_are_read_anew];

/// W-31: the driver and the nodes have the repository open with the old keys, which the store refuses from then on.
async fn keys_that_are_replaced_under_a_waiting_upload_are_read_anew(world: World) -> Result<()> {
    let shop = world.namespace("vrotated").await?;
    let (claim, holder) = (shop.claim("data").mib(1).create().await?, shop.claim("holder").mib(48).create().await?);
    claim.fill_random(306)?;
    holder.fill_random(307)?;
    let bucket = world.bucket("rotated").await?;
    let secret = readable_secret(&world, shop.name(), &Keys::of_lab(&world)).await?;
    let mut asked = BackupRepositoryClaim::new(&format!("brc-{}", shop.name()));
    asked.repository_parameters = [
        ("region", world.var("AWS_REGION")),
        ("bucket", bucket.name()),
        ("s3Url", world.var("S3_ENDPOINT")),
        ("s3ForcePathStyle", "true"),
        ("profile", "lab"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    asked.allowed_namespaces = Some(vec![shop.name().to_owned()]);
    asked.credential_secret = Some(CredentialSecret { namespace: None, name: secret.clone(), key: "cloud".to_owned() });
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    claims.create(&PostParams::default(), &asked).await?;
    let is_answered = |claim: Option<&BackupRepositoryClaim>| {
        claim.is_some_and(|c| c.backup_repository.as_ref().is_some_and(|name| !name.is_empty()))
    };
    let answered = wait_until(&claims, &asked.name_any(), DEADLINE, "is answered", is_answered).await?;
    let repository = answered.and_then(|c| c.backup_repository).context("a repository")?;
    for _ in 0..2 {
        shop.snapshot_of(&claim.name, &repository).await?.wait_for(SnapshotPhase::Uploaded).await?;
    }

    world.set(names::CONFIG, &json!({"uploads-per-datastore": "1"})).await?;
    let outcome = async {
        world.control().slow(holder.disk.as_str(), "Read").await?;
        let first = shop.snapshot(&holder).await?;
        first.copying().await?;
        let waits = shop.snapshot_of(&claim.name, &repository).await?;
        let says_so = |seen: Option<&api::Snapshot>| {
            let ready = seen.and_then(|s| conditions::get(&s.status.as_ref()?.conditions, conditions::READY));
            ready.is_some_and(|c| c.reason == Reason::DatastoreBusy.as_str())
        };
        wait_until(&waits.api(), &waits.name, DEADLINE, "waits for its turn", says_so).await?;

        let new = Keys::of_the_other_account(&world);
        bucket.give_to(&world, &new.id).await?;
        let patch = Patch::Merge(json!({"stringData": {"cloud": new.file()}}));
        let secrets: Api<Secret> = Api::namespaced(world.client(), world.velero());
        secrets.patch(&secret, &PatchParams::default(), &patch).await?;
        world.control().heal(holder.disk.as_str()).await?;
        let snapshot = waits.wait_for(SnapshotPhase::Uploaded).await?;
        ensure!(waits.upload().await?.status.is_some_and(|s| s.retry_count == 0), "it was tried with the old keys");
        first.wait_for(SnapshotPhase::Uploaded).await?;
        anyhow::Ok(snapshot)
    };
    let outcome = outcome.await;
    world.set(names::CONFIG, &json!({"uploads-per-datastore": null})).await?;
    world.control().heal(holder.disk.as_str()).await?;
    shop.clone_as(&outcome?, "back").await?.wait_for(ClonePhase::Completed).await?;
    let back = Claim::bound(&world, shop.name(), "back").await?;
    ensure!(back.digest()? == claim.digest()?, "came back different");
    forget(&world, &secret).await?;
    nothing_left(&world, &shop, 1).await // the holder's; the others lie in a bucket of their own
}
