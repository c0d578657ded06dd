//! The BackupRepository for a storage location and a namespace: an existing one, or the driver makes it for a claim.

use std::time::Duration;

use api::velero::BackupStorageLocation;
use api::{BackupRepositoryClaim, Reason};
use kube::Api;
use kube::api::{ListParams, PostParams};
use lifecycle::Problem;
use lifecycle::velero::parameters::{self, Choice, Wanted};

use super::patience::Patience;
use super::reads::Reads;
use super::waits::{self, Waited};
use super::{failed, refused};
use crate::protocol::kinds::ActionError;

/// How long the driver has to answer a claim. It only makes one object, so a longer wait means that it does not run.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
/// How long it has once it was silent for that long in this run: a hundred claims must not wait two minutes each.
const ANSWERED_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// The patience with a driver that is asked for a repository.
pub(super) const fn patience() -> Patience {
    Patience::new(ANSWERED_WITHIN, ANSWERED_AFTER_SILENCE)
}

impl Reads {
    /// The name of the BackupRepository for claims from `namespace` in the location of that name, found once.
    pub(super) async fn repository_at(&self, location: Option<&str>, namespace: &str) -> Result<String, ActionError> {
        let location = location.unwrap_or_default();
        let place = (location.to_owned(), namespace.to_owned());
        let mut known = self.repositories.lock().await;
        if let Some(repository) = known.get(&place) {
            return Ok(repository.clone());
        }
        let repository = self.find_repository(location, namespace).await?;
        known.insert(place, repository.clone());
        Ok(repository)
    }

    async fn find_repository(&self, location: &str, namespace: &str) -> Result<String, ActionError> {
        let found: Option<BackupStorageLocation> = self.location(location).await?;
        let found = found.ok_or_else(|| refused(&parameters::missing(location)))?;
        let default = self.default_credentials().await?;
        let wanted = parameters::wanted(&found, namespace, &default).map_err(|problem| refused(&problem))?;
        self.repository(&wanted).await
    }

    /// The name of the BackupRepository that is wanted: one that is there, or one that the driver makes.
    pub(super) async fn repository(&self, wanted: &Wanted) -> Result<String, ActionError> {
        let claims: Api<BackupRepositoryClaim> = Api::namespaced(self.client().await?, self.velero());
        let present = claims.list(&ListParams::default()).await.map_err(failed("list BackupRepositoryClaims"))?.items;
        let claim = match wanted.choose(&present) {
            Choice::Use(repository) => return Ok(repository.to_owned()),
            Choice::Await(claim) => claim.to_owned(),
            Choice::Ask => {
                let claim = wanted.claim(self.velero());
                let name = claim.metadata.name.clone().unwrap_or_default();
                match claims.create(&PostParams::default(), &claim).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 409 => {} // another plugin was faster
                    Err(error) => return Err(failed(&format!("make BackupRepositoryClaim {name}"))(error)),
                }
                name
            }
        };
        answered(claims, &claim, &self.patience).await
    }
}

async fn answered(claims: Api<BackupRepositoryClaim>, name: &str, patience: &Patience) -> Result<String, ActionError> {
    let within = patience.lasts();
    let act = format!("wait for the repository of BackupRepositoryClaim {name}");
    let is_over = |claim: Option<&BackupRepositoryClaim>| claim.is_none_or(|claim| repository_of(claim).is_some());
    let waited = waits::until(claims, name, within, &act, is_over).await?;
    patience.learns(&waited);
    match waited {
        Waited::Settled(Some(claim)) => {
            repository_of(&claim).map(str::to_owned).ok_or_else(|| ActionError::new(format!("{act}: it has none")))
        }
        Waited::Settled(None) => Err(ActionError::new(format!("{act}: the claim was deleted meanwhile"))),
        Waited::TooLate => {
            let cause = format!("{act}: nobody answered it within {} s", within.as_secs());
            Err(refused(&Problem::passing(Reason::DriverSilent, cause)))
        }
    }
}

fn repository_of(claim: &BackupRepositoryClaim) -> Option<&str> {
    claim.backup_repository.as_deref().filter(|name| !name.is_empty())
}
