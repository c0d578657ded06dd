//! Decides what a BackupRepositoryClaim needs: a BackupRepository of its own, and its name in the claim.

use api::{BackupRepository, BackupRepositoryClaim, labels, names};

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
    fn a_claim_gets_one_repository_however_often_we_look() {
        let Plan::Create(made) = plan(&claim(), None) else { unreachable!("it has none yet") };
        assert_eq!(made.metadata.name.as_deref(), Some("br-1f4d"));
        assert_eq!((made.backup_repository_claim.as_str(), made.allowed_namespaces.len()), ("brc-1", 1));
        assert_eq!(plan(&claim(), Some(&made)), Plan::Bind("br-1f4d".to_owned()));
        let bound = BackupRepositoryClaim { backup_repository: Some("br-1f4d".to_owned()), ..claim() };
        assert_eq!(plan(&bound, Some(&made)), Plan::Rest);
    }
}
