//! What storage locations, buckets and repositories say. A bucket is written to with `--probe-store` alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::velero::BackupStorageLocation;
use api::{BackupRepository, BackupRepositoryClaim, CredentialSecret, Reason, Timestamp, names};
use connections::{Repositories, from_kube, from_repository, leftovers};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::doctor::storage::{Ability, Did, judge_clear_keys, judge_drivers, judge_parameters, judge_probe};
use lifecycle::doctor::{Finding, Matter, Verdict};
use lifecycle::velero::parameters::{DefaultCredentials, wanted};
use repository::store::{self, S3Store, Store as _};

use super::cluster::{knows_no_such_kind, not_installed};
use super::{A_LONG_LOOK, AT_ONCE, Doctor};

/// A bucket that has not answered after this long does not.
const ANSWER: Duration = Duration::from_secs(40);
/// A probe asks for a dozen things, one after the other.
const PROBE: Duration = Duration::from_secs(120);

/// A place of repositories, and who names it.
struct Place {
    who: String,
    described: BackupRepository,
}

/// What a look at one place has found.
#[derive(Default)]
struct Looked {
    findings: Vec<Finding>,
    /// The store's time, and this machine's when it was asked and when it answered.
    clock: Option<(Timestamp, Timestamp, Timestamp)>,
    failed: Option<Problem>,
}

impl Doctor {
    pub(super) async fn look_at_stores(&mut self, repositories: &Repositories) -> Result<(), Problem> {
        let begun = Instant::now();
        let places = self.places().await?;
        let this: &Self = self;
        let looks = stream::iter(&places).map(|place| async move {
            // one that has begun is not cut off
            if begun.elapsed() > A_LONG_LOOK { None } else { Some(this.look_at_store(place, repositories).await) }
        });
        let looked: Vec<Option<Looked>> = looks.buffered(AT_ONCE).collect().await;
        let looked_at = looked.iter().flatten().count();
        let mut failed: Vec<(String, Problem)> = Vec::new();
        let mut mute: BTreeMap<Option<usize>, (String, Problem)> = BTreeMap::new(); // one a store
        for (place, looked) in places.iter().zip(looked) {
            let Some(looked) = looked else { continue };
            self.findings.extend(looked.findings);
            if let Some((time, asked, answered)) = looked.clock {
                self.note_clock(&format!("object store of {}", place.who), time, asked, answered);
            }
            let Some(problem) = looked.failed else { continue };
            if problem.reason != Reason::StoreUnreachable {
                failed.push((place.who.clone(), problem));
                continue;
            }
            self.silent.note(&place.described, &problem);
            let of_store = mute.entry(self.silent.position(&place.described));
            let of_store = of_store.and_modify(|(who, _)| *who = format!("{who}, {}", place.who));
            of_store.or_insert_with(|| (place.who.clone(), problem));
        }
        for (who, problem) in failed.into_iter().chain(mute.into_values()) {
            let cause = format!("{who}: {}", problem.cause);
            self.find(Finding::of_look(Matter::Storage, &Problem { cause, ..problem }));
        }
        if looked_at < places.len() {
            let within = A_LONG_LOOK.as_secs();
            let cause = format!("{looked_at} of {} places were looked at within {within} s", places.len());
            return Err(Problem::passing(Reason::StoreUnreachable, cause));
        }
        Ok(())
    }

    /// Descriptions of the original, which hold their keys in clear, drivers that there are not, and parameters that nobody follows.
    pub(super) async fn look_at_descriptions(&mut self) -> Result<(), Problem> {
        let (repositories, claims) =
            (self.all::<BackupRepository>().await?, self.all::<BackupRepositoryClaim>().await?);
        self.findings.extend(judge_clear_keys(&repositories, &claims));
        self.findings.extend(judge_drivers(&repositories, &claims));
        self.findings.extend(judge_parameters(&repositories));
        Ok(())
    }

    async fn look_at_store(&self, place: &Place, repositories: &Repositories) -> Looked {
        let mut looked = Looked::default();
        let asked = self.ask_store(place, repositories, &mut looked).await;
        Looked { failed: asked.err(), ..looked }
    }

    async fn ask_store(&self, place: &Place, repositories: &Repositories, looked: &mut Looked) -> Result<(), Problem> {
        let store = tokio::time::timeout(ANSWER, repositories.store(&place.described)).await;
        let store = store.map_err(|_| silent("what describes its bucket"))??;
        let asked = Timestamp::now();
        let (reached, time) = match tokio::time::timeout(ANSWER, store.reach()).await {
            Ok(answer) => answer,
            Err(_) => return Err(silent(&store.place())),
        };
        looked.clock = time.map(|time| (time, asked, Timestamp::now()));
        reached.map_err(|source| {
            from_repository("look at the bucket", &repository::Error::Store { act: "list it".to_owned(), source })
        })?;
        let seen = format!("{}: {} answers our keys", place.who, store.place());
        looked.findings.push(Finding::ok(Matter::Storage, seen));
        if self.probe_store {
            looked.findings.extend(probe(&store, &place.who).await);
        }
        Ok(())
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

/// Tries out what a store can do, in a folder of its own.
async fn probe(store: &S3Store, who: &str) -> Vec<Finding> {
    // no namespace has a dot in its name: no repository lies there
    let folder = format!("doctor.probe.{}.{}/", std::process::id(), Timestamp::now().as_nanosecond());
    let place = format!("{who}: {}", store.place());
    if let Ok(tried) = tokio::time::timeout(PROBE, store.probe(&folder)).await {
        let tried: Vec<_> = tried.into_iter().map(|(what, did)| (ability(what), how(did))).collect();
        return judge_probe(&place, &tried);
    }
    let left = match tokio::time::timeout(ANSWER, clear(store, &folder)).await {
        Ok(Ok(())) => "what it put is deleted again".to_owned(),
        Ok(Err(error)) => format!("what it put below {folder} may be left: {}", Problem::chain(&error)),
        Err(_) => {
            format!("what it put below {folder} may be left: that was not deleted within {} s", ANSWER.as_secs())
        }
    };
    let cause = format!("{place}: the probe did not end within {} s; {left}", PROBE.as_secs());
    vec![Finding::of(Matter::Storage, &Problem::passing(Reason::StoreUnreachable, cause))]
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
