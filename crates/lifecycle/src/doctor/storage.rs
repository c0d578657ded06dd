//! Keys of repositories, and what a store can do.

use api::Reason;

use super::{Finding, Matter};

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
    fn a_key_that_everybody_knows_is_told() {
        assert_eq!(judge_key("velero/velero-repo-credentials", true).verdict, Verdict::Warning);
        assert_eq!(judge_key("velero/vsphere-backup-repository-key", false).verdict, Verdict::Ok);
    }
}
