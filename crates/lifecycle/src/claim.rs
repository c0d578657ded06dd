//! Decides what a BackupRepositoryClaim needs: a BackupRepository of its own, its name in the claim, and a word on
//! whether that repository can be used.

use api::conditions::{self, READY, Status};
use api::{BackupRepository, BackupRepositoryClaim, Reason, RepositoryStatus, Timestamp, labels, names};

use crate::Problem;

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The claim has its repository.
    Rest,
    /// Make the repository, then write its name into the claim.
    Create(Box<BackupRepository>),
    /// Write its name into the claim.
    Bind(String),
}

/// Decides. The repository's name follows from the claim's uid, so a repeated step finds the first one's.
pub fn plan(claim: &BackupRepositoryClaim, repository: Option<&BackupRepository>) -> Plan {
    let name = names::backup_repository(claim.metadata.uid.as_deref().unwrap_or_default());
    if claim.metadata.deletion_timestamp.is_some() {
        return Plan::Rest;
    }
    match repository {
        None => Plan::Create(Box::new(repository_for(claim, &name))),
        Some(_) if claim.backup_repository.as_deref() == Some(name.as_str()) => Plan::Rest,
        Some(_) => Plan::Bind(name),
    }
}

/// What the claim says of its repository. It gets one in any case: whoever made the claim waits for the name, without an
/// end, and learns the rest when it uses it.
pub fn status(
    before: Option<&RepositoryStatus>,
    repository: &str,
    usable: Result<(), &Problem>,
    now: Timestamp,
) -> RepositoryStatus {
    let mut status = before.cloned().unwrap_or_default();
    let (holds, reason, message) = match usable {
        Ok(()) => {
            let message = format!("it has {repository}; whether that opens shows at the first backup");
            (Status::True, Reason::Completed, message)
        }
        Err(problem) => {
            let fix = format!(
                "Correct it in {repository}, or make a new claim: a change of this one changes nothing any more."
            );
            (Status::False, problem.reason, problem.clone().with_fix(Some(fix)).message())
        }
    };
    conditions::set(&mut status.conditions, READY, holds, reason, &message, now);
    status
}

fn repository_for(claim: &BackupRepositoryClaim, name: &str) -> BackupRepository {
    let mut repository = BackupRepository::new(name);
    repository.metadata.labels = Some(labels::ours());
    repository.repository_driver.clone_from(&claim.repository_driver);
    repository.repository_parameters.clone_from(&claim.repository_parameters);
    repository.allowed_namespaces = claim.allowed_namespaces.clone().unwrap_or_default();
    repository.backup_repository_claim = claim.metadata.name.clone().unwrap_or_default();
    repository.svc_backup_repository_name = Some(String::new()); // always written, as the original does
    repository.credential_secret.clone_from(&claim.credential_secret);
    repository
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> BackupRepositoryClaim {
        let mut claim = BackupRepositoryClaim::new("brc-1");
        claim.metadata.uid = Some("1f4d".to_owned());
        claim.allowed_namespaces = Some(vec!["shop".to_owned()]);
        claim
    }

    #[test]
    fn a_claim_that_asks_for_the_impossible_says_so_until_that_is_corrected() {
        let now = Timestamp::UNIX_EPOCH;
        let problem = Problem::lasting(Reason::RepositoryInvalid, "use BackupRepository br-1: its driver is ``");
        let told = status(None, "br-1", Err(&problem), now);
        let ready = conditions::get(&told.conditions, READY).cloned().unwrap_or_else(|| unreachable!("it was set"));
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "RepositoryInvalid"));
        assert!(ready.message.contains("its driver is") && ready.message.contains("make a new claim"), "{ready:?}");
        let corrected = status(Some(&told), "br-1", Ok(()), now);
        assert_eq!(corrected.conditions.iter().map(|c| c.status.as_str()).collect::<Vec<_>>(), ["True"]);
    }

    #[test]
    fn a_claim_gets_one_repository_however_often_we_look() {
        let Plan::Create(made) = plan(&claim(), None) else { unreachable!("it has none yet") };
        assert_eq!(made.metadata.name.as_deref(), Some("br-1f4d"));
        assert_eq!((made.backup_repository_claim.as_str(), made.allowed_namespaces.len()), ("brc-1", 1));
        assert_eq!(made.metadata.labels, Some(labels::ours()), "Velero does not back it up");
        assert_eq!(plan(&claim(), Some(&made)), Plan::Bind("br-1f4d".to_owned()));
        let bound = BackupRepositoryClaim { backup_repository: Some("br-1f4d".to_owned()), ..claim() };
        assert_eq!(plan(&bound, Some(&made)), Plan::Rest);
    }
}
