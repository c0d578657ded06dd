//! Decides what a BackupRepositoryClaim needs: a BackupRepository of its own, its name in the claim, and a word on
//! whether that repository can be used.

use api::conditions::{self, READY, Status};
use api::{BackupRepository, BackupRepositoryClaim, Reason, RepositoryStatus, Timestamp, labels, names};

use crate::{Problem, parameters};

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
/// end, and learns the rest when it uses it. Parameters that nobody follows keep no repository from being used, and are told.
pub fn status(
    before: Option<&RepositoryStatus>,
    repository: &BackupRepository,
    usable: Result<(), &Problem>,
    now: Timestamp,
) -> RepositoryStatus {
    let mut status = before.cloned().unwrap_or_default();
    let slips = slips(repository);
    let repository = repository.metadata.name.as_deref().unwrap_or_default();
    let (holds, reason, message) = match usable {
        Ok(()) => {
            let message = format!("it has {repository}; whether that opens shows at the first backup");
            let message = if let Some(slips) = slips { format!("{message}. {slips}") } else { message };
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

/// What a person should see of a repository that can be used: its parameters that are not followed as they are written.
pub fn slips(repository: &BackupRepository) -> Option<String> {
    let slips = parameters::slips(&repository.repository_parameters);
    let name = repository.metadata.name.as_deref().unwrap_or_default();
    let told = || {
        format!(
            "Not followed as it is written: {}. Before the first backup, correct it in {name}, or make a new claim: a change of this \
             one changes nothing any more.",
            slips.join("; ")
        )
    };
    (!slips.is_empty()).then(told)
}

/// The same, where the claim did not say it `before`: it is told as an event once.
pub fn news(
    before: Option<&RepositoryStatus>,
    after: &RepositoryStatus,
    repository: &BackupRepository,
) -> Option<String> {
    let message = |status: &RepositoryStatus| {
        conditions::get(&status.conditions, READY).map(|ready| ready.message.clone()).unwrap_or_default()
    };
    let said = before.map(message).unwrap_or_default();
    slips(repository).filter(|slips| message(after).contains(slips) && !said.contains(slips))
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
        let repository = BackupRepository::new("br-1");
        let told = status(None, &repository, Err(&problem), now);
        let ready = conditions::get(&told.conditions, READY).cloned().unwrap_or_else(|| unreachable!("it was set"));
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "RepositoryInvalid"));
        assert!(ready.message.contains("its driver is") && ready.message.contains("make a new claim"), "{ready:?}");
        let corrected = status(Some(&told), &repository, Ok(()), now);
        assert_eq!(corrected.conditions.iter().map(|c| c.status.as_str()).collect::<Vec<_>>(), ["True"]);
    }

    #[test]
    fn a_parameter_that_nobody_reads_is_told_once_and_the_claim_is_as_ready_as_before() {
        let (now, mut repository) = (Timestamp::UNIX_EPOCH, BackupRepository::new("br-1"));
        let parameters = [("region", ""), ("bucket", "b"), ("prefx", "team-a")];
        repository.repository_parameters = parameters.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let told = status(None, &repository, Ok(()), now);
        let ready = conditions::get(&told.conditions, READY).cloned().unwrap_or_else(|| unreachable!("it was set"));
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("True", "Completed"));
        for words in ["it has br-1", "`prefx`; `prefix` may be meant", "correct it in br-1"] {
            assert!(ready.message.contains(words), "`{words}` in {}", ready.message);
        }
        assert!(news(None, &told, &repository).is_some_and(|slips| slips.contains("`prefx`")));
        assert_eq!(news(Some(&told), &status(Some(&told), &repository, Ok(()), now), &repository), None, "it was told");
        let problem = Problem::lasting(Reason::RepositoryInvalid, "use BackupRepository br-1: its driver is ``");
        let refused = status(None, &repository, Err(&problem), now);
        assert_eq!(news(None, &refused, &repository), None, "what keeps it from being used is told first");
        repository.repository_parameters.remove("prefx");
        let corrected = status(Some(&told), &repository, Ok(()), now);
        assert_eq!(news(Some(&told), &corrected, &repository), None);
        assert!(corrected.conditions.iter().all(|c| !c.message.contains("prefx")), "{:?}", corrected.conditions);
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
