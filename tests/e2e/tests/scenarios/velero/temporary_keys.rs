//! Keys that are good for a while only, with their token: in the Secret of a storage location, as users put them there.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use api::{BackupRepositoryClaim, CredentialSecret, Reason, SnapshotPhase};
use e2e::{DEADLINE, World, explained, wait_until};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::s3_server::S3Server;
use super::storage_locations::recorder::Recorder;
use super::storage_locations::{Keys, Location, forget, prefix, readable_secret};
use super::{digests, lose, same};

crate::scenarios![temporary_keys_take_a_backup_and_bring_it_back, temporary_keys_reach_the_store_with_their_token,];

/// W-39: the store opens to these keys with their token alone. Velero's plugin sends it, and so do driver and data-managers.
async fn temporary_keys_take_a_backup_and_bring_it_back(world: World) -> Result<()> {
    let shop = world.namespace("vwhile").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    claim.fill_random(303)?;
    let before = digests(std::slice::from_ref(&claim))?;
    let keys = Keys::temporary();
    let server = S3Server::for_temporary(&world, &keys).await?;
    let recorder = Recorder::before(&server.address).await;
    let config = [("s3Url", recorder.url()), ("profile", "lab".to_owned())];
    let location = Location::create(&world, shop.name(), &keys, &config, json!({})).await?;
    let (velero, name) = (world.velero_server(), shop.name());
    velero.back_up(name, name, &["--storage-location", name]).await?;
    velero.backup_is(name, "Completed").await?;

    let puts = recorder.heads("PUT");
    let folder = format!("/{}/{}", world.var("S3_BUCKET"), prefix(name));
    let tokens_below = |part: &str| {
        let found = puts.iter().filter(|put| put.path.starts_with(&format!("{folder}/{part}/")));
        found.map(|put| put.value("x-amz-security-token").map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    for (who, part) in [("Velero's", "backups"), ("our", "plugins")] {
        let tokens = tokens_below(part);
        ensure!(tokens == BTreeSet::from([keys.token.clone()]), "{who} objects came with the tokens {tokens:?}");
    }

    lose(&[claim]).await?;
    velero.restore(name, name, &[]).await?;
    velero.restore_is(name, "Completed").await?;
    same(&world, name, &before).await?;
    location.remove(&world, &shop).await
}

/// W-39: the store has given no such token, so it says what it thinks of it. Dropped, the keys would work.
async fn temporary_keys_reach_the_store_with_their_token(world: World) -> Result<()> {
    let shop = world.namespace("vtoken").await?;
    let claim = shop.claim("data").mib(1).create().await?;
    let keys = Keys { token: Some("only for a while".to_owned()), ..Keys::of_lab(&world) };
    let secret = readable_secret(&world, shop.name(), &keys).await?;
    let parameters = [
        ("region", world.var("AWS_REGION")),
        ("bucket", world.var("S3_BUCKET")),
        ("s3Url", world.var("S3_ENDPOINT")),
        ("s3ForcePathStyle", "true"),
        ("profile", "lab"),
    ];
    let mut asked = BackupRepositoryClaim::new(&format!("brc-{}", shop.name()));
    asked.repository_parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    asked.allowed_namespaces = Some(vec![shop.name().to_owned()]);
    asked.credential_secret = Some(CredentialSecret { namespace: None, name: secret.clone(), key: "cloud".to_owned() });
    let claims: Api<BackupRepositoryClaim> = Api::namespaced(world.client(), world.velero());
    claims.create(&PostParams::default(), &asked).await?;
    let answered =
        wait_until(&claims, &asked.name_any(), DEADLINE, "is answered", |c: Option<&BackupRepositoryClaim>| {
            c.is_some_and(|c| c.backup_repository.as_ref().is_some_and(|name| !name.is_empty()))
        })
        .await?;
    let repository = answered.and_then(|c| c.backup_repository).context("a repository")?;
    let asked = shop.snapshot_of(&claim.name, &repository).await?;
    let status = asked.wait_for(SnapshotPhase::SnapshotFailed).await?.status.context("status")?;
    let (reason, words) = (Reason::StoreAccessDenied, ["InvalidToken"]);
    explained(&world, shop.name(), &asked.name, &status.conditions, reason, &words).await?;
    forget(&world, &secret).await
}
