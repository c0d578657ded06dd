//! Keys of repositories, and what a store can do.

use std::collections::BTreeMap;

use api::parameters::key;
use api::{BackupRepository, BackupRepositoryClaim, REPOSITORY_DRIVER, Reason};

use super::{Finding, Matter};
use crate::parameters;

/// How many objects with keys in clear are named.
const NAMED: usize = 5;

/// One finding about the key of the repositories, which was found in that Secret.
pub fn judge_key(secret: &str, well_known: bool) -> Finding {
    let reason = Reason::RepositoryPasswordDefault;
    if well_known {
        let seen = format!("Secret {secret} holds the key that Velero puts where nobody has chosen one");
        let why = "Everybody knows it: whoever can read the bucket can read the backups.";
        return Finding::warning(Matter::Key, seen, why, reason.fix()).because(reason);
    }
    let seen = format!(
        "Secret {secret} holds the key of the repositories; without it nobody can read them: keep a copy elsewhere"
    );
    Finding::ok(Matter::Key, seen)
}

/// One finding about objects that hold S3 keys in clear, as the original writes them; `None` where there are none. They are never left
/// over: nobody can tell whether their keys are still needed.
pub fn judge_clear_keys(repositories: &[BackupRepository], claims: &[BackupRepositoryClaim]) -> Option<Finding> {
    let is_clear = |parameters: &BTreeMap<String, String>| {
        parameters.get(key::SECRET_ACCESS_KEY).is_some_and(|secret| !secret.is_empty())
    };
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let of_claims = claims.iter().filter(|claim| is_clear(&claim.repository_parameters)).map(|claim| {
        let (namespace, name) = (name(&claim.metadata.namespace), name(&claim.metadata.name));
        format!("BackupRepositoryClaim {namespace}/{name}")
    });
    let repositories = repositories.iter().filter(|repository| is_clear(&repository.repository_parameters));
    let found: Vec<String> =
        repositories.map(|found| format!("BackupRepository {}", name(&found.metadata.name))).chain(of_claims).collect();
    if found.is_empty() {
        return None;
    }
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let named: Vec<&str> = found.iter().take(NAMED).map(String::as_str).collect();
    let count = if found.len() == 1 { "1 object holds".to_owned() } else { format!("{} objects hold", found.len()) };
    let seen = format!("{count} S3 keys in clear, as the original writes them: {}{more}", named.join(", "));
    let why = "Whoever may read these kinds, or a backup of the cluster's own objects, has the keys of the bucket until they are replaced.";
    let fix = "Once no unfinished Snapshot, Upload, Download or DeleteSnapshot names them: put new keys into the Secret of the storage \
               location, take the old ones away at the store, and delete these objects. Ours name the Secret.";
    Some(Finding::warning(Matter::Storage, seen, why, fix))
}

/// A finding about each BackupRepository with parameters that are not followed as they are written. They are passed over, and its backups
/// may lie elsewhere than was meant.
pub fn judge_parameters(repositories: &[BackupRepository]) -> Vec<Finding> {
    let judged = |repository: &BackupRepository| {
        let slips = parameters::slips(&repository.repository_parameters);
        if slips.is_empty() {
            return None;
        }
        let name = repository.metadata.name.as_deref().unwrap_or_default();
        let seen = format!("BackupRepository {name}: {}", slips.join("; "));
        let why = "It is not followed as it is written: backups may lie elsewhere than was meant.";
        let fix = "Where nothing was backed up there yet, correct it in the BackupRepository. Else make a new claim for new backups, and \
                   keep this one as long as backups of it are needed.";
        Some(Finding::warning(Matter::Storage, seen, why, fix))
    };
    repositories.iter().filter_map(judged).collect()
}

/// One finding about descriptions that name another driver than the one that there is; `None` where there are none.
pub fn judge_drivers(repositories: &[BackupRepository], claims: &[BackupRepositoryClaim]) -> Option<Finding> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    // one that has its BackupRepository is judged by that: what the claim says changes nothing any more
    let waits = |claim: &&BackupRepositoryClaim| claim.backup_repository.as_deref().is_none_or(str::is_empty);
    let claims = claims.iter().filter(waits).filter(|claim| claim.repository_driver != REPOSITORY_DRIVER);
    let of_claims = claims.map(|claim| {
        let (namespace, called) = (name(&claim.metadata.namespace), name(&claim.metadata.name));
        format!("BackupRepositoryClaim {namespace}/{called} (`{}`)", claim.repository_driver)
    });
    let others = repositories.iter().filter(|repository| repository.repository_driver != REPOSITORY_DRIVER);
    let others =
        others.map(|found| format!("BackupRepository {} (`{}`)", name(&found.metadata.name), found.repository_driver));
    let found: Vec<String> = others.chain(of_claims).collect();
    if found.is_empty() {
        return None;
    }
    let more = found.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let named: Vec<&str> = found.iter().take(NAMED).map(String::as_str).collect();
    let seen = format!("`repositoryDriver` is not `{REPOSITORY_DRIVER}`: {}{more}", named.join(", "));
    let why = "There is no other driver: no backup goes there, and none comes back from there.";
    let fix =
        "Correct it in the BackupRepository, or make a new claim: a change of an old one changes nothing any more.";
    Some(Finding::problem(Matter::Storage, seen, why, fix).because(Reason::RepositoryInvalid))
}

/// Something that a store was asked to do, and that we do with every backup or some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Take an object.
    Put,
    /// Give it back as it was.
    Get,
    /// Give a part of it.
    Range,
    /// Say its size.
    Size,
    /// List it at once, over pages.
    List,
    /// Refuse to overwrite (`If-None-Match: *`).
    PutNew,
    /// Begin an upload in parts, list it, and forget it.
    Multipart,
    /// Delete.
    Delete,
}

impl Ability {
    fn phrase(self) -> &'static str {
        match self {
            Self::Put => "put an object",
            Self::Get => "get an object as it was put",
            Self::Range => "get a part of an object",
            Self::Size => "ask for an object's size",
            Self::List => "list objects page by page",
            Self::PutNew => "put an object only where there is none (If-None-Match)",
            Self::Multipart => "begin, list and abort an upload in parts",
            Self::Delete => "delete an object",
        }
    }

    /// What does not work without it; `None` where something else takes its place.
    fn without(self) -> Option<&'static str> {
        match self {
            Self::Put => Some("No backup can be stored."),
            Self::Get | Self::Range | Self::Size => Some("No backup can be checked, and none restored."),
            Self::List => Some("Restore points and what was stored already are found by lists."),
            Self::Delete => Some("The space of deleted backups is not freed, and locks stay."),
            Self::PutNew | Self::Multipart => None,
        }
    }
}

/// How a store did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// As it should.
    Well,
    /// It does not know how; what it did instead.
    Otherwise(String),
    /// It failed; why.
    Failed(String),
}

/// Findings about what was tried on a store at that place.
pub fn judge_probe(place: &str, tried: &[(Ability, Did)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (ability, did) in tried {
        let phrase = ability.phrase();
        match did {
            Did::Well => {}
            Did::Otherwise(how) => {
                let why = match ability {
                    Ability::PutNew => {
                        "Two who initialise one repository at the same moment are kept apart by a look before only."
                    }
                    _ => "It is not needed for backups of ours; what others left open there cannot be found.",
                };
                let seen = format!("{place}: {phrase}: {how}");
                findings.push(Finding::warning(
                    Matter::Storage,
                    seen,
                    why,
                    "Nothing, or use a newer release of the store.",
                ));
            }
            Did::Failed(cause) => {
                let seen = format!("{place}: {phrase}: {cause}");
                let fix = "Let the policy of the keys allow it, and see the store's own log.";
                findings.push(match ability.without() {
                    Some(why) => Finding::problem(Matter::Storage, seen, why, fix).because(Reason::StoreFailed),
                    None => Finding::warning(Matter::Storage, seen, "It is not needed for every backup.", fix),
                });
            }
        }
    }
    if findings.is_empty() && !tried.is_empty() {
        let did: Vec<_> = tried.iter().map(|(ability, _)| ability.phrase()).collect();
        findings.push(Finding::ok(Matter::Storage, format!("{place} can {}", did.join(", "))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_store_that_cannot_do_what_a_backup_needs_is_told_apart_from_one_that_is_old() {
        let verdicts = |tried: &[(Ability, Did)]| -> Vec<_> {
            judge_probe("bucket b", tried).iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(&[(Ability::Put, Did::Well), (Ability::Delete, Did::Well)]), [Verdict::Ok]);
        let refused = || Did::Failed("access denied".to_owned());
        assert_eq!(verdicts(&[(Ability::Put, Did::Well), (Ability::Delete, refused())]), [Verdict::Problem]);
        let old = Did::Otherwise("it is ignored".to_owned());
        assert_eq!(verdicts(&[(Ability::Put, Did::Well), (Ability::PutNew, old)]), [Verdict::Warning]);
        assert_eq!(verdicts(&[(Ability::Multipart, refused())]), [Verdict::Warning]);
    }

    #[test]
    fn w31_descriptions_with_keys_in_clear_are_named_with_what_to_do() {
        let parameters = |secret: &str| BTreeMap::from([(key::SECRET_ACCESS_KEY.to_owned(), secret.to_owned())]);
        let repository = |name: &str, secret: &str| {
            let mut described = BackupRepository::new(name);
            described.repository_parameters = parameters(secret);
            described
        };
        let mut claim = BackupRepositoryClaim::new("brc-1");
        claim.metadata.namespace = Some("shop".to_owned());
        let (clear, named) = (repository("br-1", "hunter2"), repository("br-2", ""));
        assert_eq!(judge_clear_keys(&[], &[]), None);
        assert_eq!(
            judge_clear_keys(std::slice::from_ref(&named), std::slice::from_ref(&claim)),
            None,
            "they name a Secret"
        );
        claim.repository_parameters = parameters("hunter2");
        let told = judge_clear_keys(&[clear, named], &[claim]).expect("two of them");
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.seen.contains("2 objects"), "{}", told.seen);
        assert!(told.seen.contains("BackupRepository br-1, BackupRepositoryClaim shop/brc-1"), "{}", told.seen);
        assert!(told.fix.contains("new keys"), "{}", told.fix);
        let whole = [told.seen, told.why, told.fix].concat();
        assert!(!whole.contains("hunter2") && !whole.contains("br-2"), "{whole}");
        let many: Vec<_> = (0..7).map(|n| repository(&format!("br-{n}"), "hunter2")).collect();
        assert!(judge_clear_keys(&many, &[]).is_some_and(|told| told.seen.ends_with("br-4, and 2 more")));
    }

    #[test]
    fn a_repository_whose_parameters_nobody_reads_is_told_with_the_ones_that_may_be_meant() {
        let described = |name: &str, parameters: &[(&str, &str)]| {
            let mut described = BackupRepository::new(name);
            let usual = [("region", ""), ("bucket", "b"), ("publicUrl", "https://elsewhere")];
            let pairs = usual.iter().chain(parameters).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            described.repository_parameters = pairs.collect();
            described
        };
        let well = described("br-1", &[("s3ForcePathStyle", "true")]);
        let slips = described("br-2", &[("prefx", "team-a"), ("s3ForcePathStyle", "yes")]);
        assert_eq!(judge_parameters(std::slice::from_ref(&well)), Vec::<Finding>::new());
        let [told] = &judge_parameters(&[well, slips])[..] else { panic!("one finding") };
        assert_eq!((told.verdict, told.matter), (Verdict::Warning, Matter::Storage));
        for words in ["BackupRepository br-2", "`prefx`; `prefix` may be meant", "`yes`, which is neither"] {
            assert!(told.seen.contains(words), "`{words}` in {}", told.seen);
        }
    }

    #[test]
    fn a_description_with_a_driver_that_nobody_has_is_named() {
        let right = BackupRepository::new("br-1");
        let mut wrong = BackupRepository::new("br-2");
        wrong.repository_driver = "s3repository.example.com".to_owned();
        let mut claim = BackupRepositoryClaim::new("brc-1");
        claim.metadata.namespace = Some("velero".to_owned());
        assert_eq!(judge_drivers(std::slice::from_ref(&right), std::slice::from_ref(&claim)), None);
        claim.repository_driver = String::new();
        let told = judge_drivers(&[right, wrong], &[claim]).expect("two of them");
        assert_eq!((told.verdict, told.reason), (Verdict::Problem, Some(Reason::RepositoryInvalid)));
        let named = "BackupRepository br-2 (`s3repository.example.com`), BackupRepositoryClaim velero/brc-1 (``)";
        assert!(told.seen.ends_with(named) && told.seen.contains(REPOSITORY_DRIVER), "{}", told.seen);
        let mut mended = BackupRepositoryClaim::new("brc-2");
        mended.repository_driver = "s3repository.example.com".to_owned();
        mended.backup_repository = Some("br-1".to_owned());
        assert_eq!(
            judge_drivers(&[BackupRepository::new("br-1")], &[mended]),
            None,
            "it was put right in the repository"
        );
    }

    #[test]
    fn a_key_that_everybody_knows_is_told() {
        assert_eq!(judge_key("velero/velero-repo-credentials", true).verdict, Verdict::Warning);
        assert_eq!(judge_key("velero/vsphere-backup-repository-key", false).verdict, Verdict::Ok);
    }
}
