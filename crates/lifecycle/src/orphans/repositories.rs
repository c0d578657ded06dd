//! BackupRepositories whose claim is gone: one that was deleted while no driver ran leaves it. It is a description only; the
//! backups stay in the bucket.

use std::collections::HashSet;

use api::{BackupRepository, BackupRepositoryClaim, Timestamp, names};

use super::Settings;

/// Those that go. `used` are the names that any object still holds. Claims and users must have been listed after the repositories.
pub fn without_claim<'r>(
    repositories: &'r [BackupRepository],
    claims: &[BackupRepositoryClaim],
    used: &HashSet<String>,
    settings: &Settings,
    now: Timestamp,
) -> Vec<&'r BackupRepository> {
    let of_claim = |claim: &BackupRepositoryClaim| claim.metadata.uid.as_deref().map(names::backup_repository);
    let claimed: HashSet<String> = claims.iter().filter_map(of_claim).collect();
    let named: HashSet<&str> = claims.iter().filter_map(|claim| claim.backup_repository.as_deref()).collect();
    let is_left = |repository: &&BackupRepository| {
        let Some(name) = repository.metadata.name.as_deref() else { return false };
        let made = repository.metadata.creation_timestamp.as_ref();
        name.starts_with(&names::backup_repository(""))
            && !repository.backup_repository_claim.is_empty()
            && repository.metadata.deletion_timestamp.is_none()
            && made.is_some_and(|made| now.duration_since(made.0) >= settings.age)
            && !claimed.contains(name)
            && !named.contains(name)
            && !used.contains(name)
    };
    repositories.iter().filter(is_left).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use api::Time;
    use k8s_openapi::jiff::SignedDuration;

    #[test]
    fn m_2_9_a_repository_goes_when_its_claim_and_everybody_who_names_it_are_gone() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let repository = |name: &str, claim: &str, hours: i64| {
            let mut repository = BackupRepository::new(name);
            repository.backup_repository_claim = claim.to_owned();
            repository.metadata.creation_timestamp = Some(Time(now - SignedDuration::from_hours(hours)));
            repository
        };
        let claim = |uid: &str, repository: Option<&str>| {
            let mut claim = BackupRepositoryClaim::new("c");
            claim.metadata.uid = Some(uid.to_owned());
            claim.backup_repository = repository.map(str::to_owned);
            claim
        };
        let old = || repository("br-1", "c", 48);
        let cases = [
            ("its claim is gone", old(), vec![claim("2", None)], "", true),
            ("its claim is there", old(), vec![claim("1", None)], "", false),
            ("a restored claim names it", old(), vec![claim("3", Some("br-1"))], "", false),
            ("a Snapshot names it", old(), vec![], "br-1", false),
            ("it is young", repository("br-1", "c", 2), vec![], "", false),
            ("somebody made it by hand", repository("mine", "c", 48), vec![], "", false),
            ("… and under a name like ours", repository("br-1", "", 48), vec![], "", false),
        ];
        for (situation, repository, claims, used, left) in cases {
            let used: HashSet<String> = [used.to_owned()].into();
            let all = [repository];
            let found = without_claim(&all, &claims, &used, &Settings::default(), now);
            assert_eq!(!found.is_empty(), left, "{situation}");
        }
    }
}
