//! What storage locations, buckets and repositories say. A bucket is written to with `--probe-store` alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::velero::BackupStorageLocation;
use api::{BackupRepository, BackupRepositoryClaim, CredentialSecret, Reason, Timestamp, names};
use connections::{Repositories, from_kube, from_repository, leftovers};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::doctor::storage::{Ability, Did, judge_clear_keys, judge_probe};
use lifecycle::doctor::{Finding, Matter, Verdict};
use lifecycle::velero::parameters::{DefaultCredentials, wanted};
use repository::store::{self, S3Store, Store as _};

use super::cluster::{knows_no_such_kind, not_installed};
use super::{A_LONG_LOOK, Doctor};

/// A bucket that has not answered after this long does not.
const ANSWER: Duration = Duration::from_secs(40);
/// A probe asks for a dozen things, one after the other.
const PROBE: Duration = Duration::from_secs(120);

/// A place of repositories, and who names it.
struct Place {
    who: String,
    described: BackupRepository,
}

impl Doctor {
    pub(super) async fn look_at_stores(&mut self, repositories: &Repositories) -> Result<(), Problem> {
        let begun = Instant::now();
        let places = self.places().await?;
        for (looked_at, place) in places.iter().enumerate() {
            if begun.elapsed() > A_LONG_LOOK {
                let within = A_LONG_LOOK.as_secs();
                let cause = format!("{looked_at} of {} places were looked at within {within} s", places.len());
                return Err(Problem::passing(Reason::StoreUnreachable, cause));
            }
            if let Err(problem) = self.look_at_store(place, repositories).await {
                let cause = format!("{}: {}", place.who, problem.cause);
                self.find(Finding::of_look(Matter::Storage, &Problem { cause, ..problem }));
            }
        }
        Ok(())
    }

    /// Descriptions of the original, which hold their keys in clear.
    pub(super) async fn look_for_clear_keys(&mut self) -> Result<(), Problem> {
        let (repositories, claims) =
            (self.all::<BackupRepository>().await?, self.all::<BackupRepositoryClaim>().await?);
        self.findings.extend(judge_clear_keys(&repositories, &claims));
        Ok(())
    }

    async fn look_at_store(&mut self, place: &Place, repositories: &Repositories) -> Result<(), Problem> {
        let store = tokio::time::timeout(ANSWER, repositories.store(&place.described)).await;
        let store = store.map_err(|_| silent("what describes its bucket"))??;
        let asked = Timestamp::now();
        let (reached, time) = match tokio::time::timeout(ANSWER, store.reach()).await {
            Ok(answer) => answer,
            Err(_) => return Err(silent(&store.place())),
        };
        if let Some(time) = time {
            self.note_clock(&format!("object store of {}", place.who), time, asked, Timestamp::now());
        }
        reached.map_err(|source| {
            from_repository("look at the bucket", &repository::Error::Store { act: "list it".to_owned(), source })
        })?;
        self.find(Finding::ok(Matter::Storage, format!("{}: {} answers our keys", place.who, store.place())));
        if self.probe_store {
            self.probe(&store, &place.who).await;
        }
        Ok(())
    }

    async fn probe(&mut self, store: &S3Store, who: &str) {
        // no namespace has a dot in its name: no repository lies there
        let folder = format!("doctor.probe.{}.{}/", std::process::id(), Timestamp::now().as_nanosecond());
        let place = format!("{who}: {}", store.place());
        match tokio::time::timeout(PROBE, store.probe(&folder)).await {
            Ok(tried) => {
                let tried: Vec<_> = tried.into_iter().map(|(what, did)| (ability(what), how(did))).collect();
                self.findings.extend(judge_probe(&place, &tried));
            }
            Err(_) => {
                let left = match tokio::time::timeout(ANSWER, clear(store, &folder)).await {
                    Ok(Ok(())) => "what it put is deleted again".to_owned(),
                    Ok(Err(error)) => format!("what it put below {folder} may be left: {}", Problem::chain(&error)),
                    Err(_) => format!(
                        "what it put below {folder} may be left: that was not deleted within {} s",
                        ANSWER.as_secs()
                    ),
                };
                let cause = format!("{place}: the probe did not end within {} s; {left}", PROBE.as_secs());
                self.find(Finding::of(Matter::Storage, &Problem::passing(Reason::StoreUnreachable, cause)));
            }
        }
    }

    /// Velero's storage locations, and what BackupRepositories name besides.
    async fn places(&mut self) -> Result<Vec<Place>, Problem> {
        let default = self.default_credentials().await?;
        let locations: Api<BackupStorageLocation> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let locations = match locations.list(&ListParams::default()).await {
            Ok(locations) => locations.items,
            Err(error) if knows_no_such_kind(&error) => {
                self.find(Finding::of(Matter::Storage, &not_installed("list storage locations")));
                Vec::new()
            }
            Err(error) => return Err(from_kube("list storage locations", &error)),
        };
        let mut places = Vec::new();
        for location in &locations {
            match wanted(location, "", &default) {
                Ok(wanted) => {
                    let described = describe(location.name(), wanted.parameters, wanted.credential_secret);
                    places.push(Place { who: format!("storage location {}", location.name()), described });
                }
                Err(problem) => {
                    let finding = Finding::of(Matter::Storage, &problem);
                    // others than S3 are for other volumes
                    self.find(Finding { verdict: Verdict::Warning, ..finding });
                }
            }
        }
        for described in leftovers::folders(self.all().await?) {
            let is_known = places.iter().any(|place| {
                place.described.repository_parameters == described.repository_parameters
                    && place.described.credential_secret == described.credential_secret
            });
            if !is_known {
                places.push(Place { who: format!("BackupRepository {}", described.name_any()), described });
            }
        }
        Ok(places)
    }

    async fn default_credentials(&self) -> Result<DefaultCredentials, Problem> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.velero_namespace);
        let name = names::CLOUD_CREDENTIALS_SECRET;
        let found = secrets.get_opt(name).await.map_err(|e| from_kube(&format!("read Secret {name}"), &e))?;
        let keys = |secret: Secret| secret.data.unwrap_or_default().into_keys().collect();
        Ok(found.map_or(DefaultCredentials::None, |secret| DefaultCredentials::Secret(keys(secret))))
    }
}

/// Deletes what a probe that was cut off has left below its folder.
async fn clear(store: &S3Store, folder: &str) -> Result<(), store::Error> {
    for object in store.list(folder).await? {
        store.delete(&object.key).await?;
    }
    for open in store.open_uploads(folder).await? {
        store.abort_upload(&open.upload).await?;
    }
    Ok(())
}

fn describe(
    name: &str,
    parameters: BTreeMap<String, String>,
    credential_secret: Option<CredentialSecret>,
) -> BackupRepository {
    let mut described = BackupRepository::new(name);
    described.repository_parameters = parameters;
    described.credential_secret = credential_secret;
    described
}

fn silent(whom: &str) -> Problem {
    let cause = format!("{whom} does not answer within {} s", ANSWER.as_secs());
    Problem::passing(Reason::StoreUnreachable, cause)
}

fn ability(of: store::Ability) -> Ability {
    match of {
        store::Ability::Put => Ability::Put,
        store::Ability::Get => Ability::Get,
        store::Ability::Range => Ability::Range,
        store::Ability::Size => Ability::Size,
        store::Ability::List => Ability::List,
        store::Ability::PutNew => Ability::PutNew,
        store::Ability::Multipart => Ability::Multipart,
        store::Ability::Delete => Ability::Delete,
    }
}

fn how(did: store::Did) -> Did {
    match did {
        store::Did::Well => Did::Well,
        store::Did::Otherwise(how) => Did::Otherwise(how.to_owned()),
        store::Did::Failed(error) => Did::Failed(Problem::chain(&error)),
    }
}
