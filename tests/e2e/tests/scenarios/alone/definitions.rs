//! Our programs on a cluster that has still the original's definition of a kind.

use anyhow::{Context as _, Result, ensure};
use api::{Reason, SnapshotPhase, Upload, UploadPhase, UploadSpec, UploadStatus, names};
use e2e::{DiskFault, World, insist, nothing_left, put_right, warned};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::orphans::until;
use super::{DATA_MANAGERS, back_up};

crate::scenarios![w30_an_upload_whose_end_the_originals_definition_refuses_is_told_and_ends_under_ours];

const UPLOADS: &str = "uploads.datamover.cnsdp.vmware.com";

/// It has no word for an upload that is given up, and takes all others.
async fn w30_an_upload_whose_end_the_originals_definition_refuses_is_told_and_ends_under_ours(
    world: World,
) -> Result<()> {
    let shop = world.namespace("oldword").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(114)?;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client());
    let ours = serde_json::to_value(definitions.get(UPLOADS).await?.spec)?;
    let outcome = async {
        define(&world, &originals(&ours)?, false).await?;
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": "0"})).await?;
        let unreadable = DiskFault { code: 13, ..DiskFault::new(claim.disk.as_str(), "Open", "fail") };
        world.control().disk_fault(&unreadable).await?;
        let asked = shop.snapshot(&claim).await?;
        let upload = asked.upload_when_made().await?.name_any();
        let words = ["Unsupported value", "UploadFailedAfterRetry", "deploy/crds"];
        let told = || warned(&world, world.velero(), &upload, Reason::StatusRefused, &words);
        insist("it is told that a word is refused", told).await?;
        nothing_left(&world, &shop, 0).await.context("who was refused holds nothing")?;
        let phase = asked.upload().await?.phase().cloned();
        ensure!(phase == Some(UploadPhase::InProgress), "the last word that was taken stays, not {phase:?}");

        define(&world, &ours, true).await?;
        for node in DATA_MANAGERS {
            world.restart(node).await?; // else it is looked at again after a minute
        }
        asked.wait_for(SnapshotPhase::UploadFailedAfterRetry).await?;
        let phase = asked.upload().await?.phase().cloned();
        ensure!(phase == Some(UploadPhase::UploadFailedAfterRetry), "its Upload is {phase:?}");
        nothing_left(&world, &shop, 0).await
    };
    let outcome = outcome.await;
    let mut acts = vec![
        define(&world, &ours, true).await,
        world.set(names::CONFIG, &json!({"upload-cr-retry-max": null})).await,
        world.control().heal(claim.disk.as_str()).await,
    ];
    for node in DATA_MANAGERS {
        acts.push(world.start_process(node).await); // one that runs goes on
    }
    put_right(outcome, acts)?;
    back_up(&shop, &claim).await.context("the next backup of the same claim")?;
    nothing_left(&world, &shop, 1).await
}

/// The definition without the word that the original's lacks, though its programs write it.
fn originals(ours: &Value) -> Result<Value> {
    let mut originals = ours.clone();
    let words = originals.pointer_mut("/versions/0/schema/openAPIV3Schema/properties/status/properties/phase/enum");
    let words = words.and_then(Value::as_array_mut).context("the words of status.phase")?;
    words.retain(|word| word != "UploadFailedAfterRetry");
    Ok(originals)
}

/// Writes the definition of Uploads, and waits until the API server goes by it: whether it takes that word.
async fn define(world: &World, spec: &Value, is_taken: bool) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(world.client());
    definitions.patch(UPLOADS, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await?;
    let uploads: Api<Upload> = Api::namespaced(world.client(), world.velero());
    let status = UploadStatus { phase: Some(UploadPhase::UploadFailedAfterRetry), ..UploadStatus::default() };
    let mut asked = Upload::new("upload-that-is-not-made", UploadSpec::default());
    asked.status = Some(status);
    let not_made = PostParams { dry_run: true, ..PostParams::default() };
    until("the API server goes by the definition", || async {
        Ok(match uploads.create(&not_made, &asked).await {
            Ok(_) => is_taken,
            Err(kube::Error::Api(answer)) if answer.code == 422 => !is_taken,
            Err(_) => false, // it begins to serve the kind anew
        })
    })
    .await
}
