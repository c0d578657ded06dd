//! Errors of the crates that speak with the outside, as what an object will say. One match each, without a wildcard
//! where the list is ours.

use api::Reason;
use kube::client::AuthError;
use lifecycle::{Again, Problem};
use repository::ErrorKind;
use vsphere::ReasonKind;

/// What a repository's error means to an object.
pub fn from_repository(act: &str, error: &repository::Error) -> Problem {
    let reason = match error.kind() {
        ErrorKind::BucketMissing => Reason::BucketMissing,
        ErrorKind::AccessDenied => Reason::StoreAccessDenied,
        ErrorKind::Unreachable => Reason::StoreUnreachable,
        ErrorKind::StoreFailed | ErrorKind::SendAgain => Reason::StoreFailed,
        ErrorKind::PasswordWrong => Reason::RepositoryPasswordWrong,
        ErrorKind::NotARepository => Reason::RepositoryMissing,
        ErrorKind::Unsupported => Reason::RepositoryInvalid,
        ErrorKind::Locked => Reason::RepositoryLocked,
        ErrorKind::Damaged => Reason::RepositoryDamaged,
        ErrorKind::PointMissing => Reason::RestorePointMissing,
        ErrorKind::InvalidUse => Reason::Internal,
        ErrorKind::Cancelled => Reason::Canceled,
        other => {
            tracing::warn!(?other, "a repository error of a kind without a reason of its own");
            Reason::Internal
        }
    };
    // somebody may mend a bucket or a key while we back off, so only what a retry cannot change is final
    let again = match reason {
        Reason::RepositoryInvalid | Reason::RestorePointMissing | Reason::Internal => Again::Never,
        _ => Again::Later,
    };
    let problem = Problem { reason, cause: format!("{act}: {}", Problem::chain(error)), fix: None, again };
    match error {
        repository::Error::PasswordWrong { untried, .. } if !untried.is_empty() => {
            problem.with_fix(Some(KEYS_UNTRIED.to_owned()))
        }
        _ => problem,
    }
}

/// A repository's error while a restore point is read: damage belongs to the restore point, and no retry mends it.
pub fn damaged(act: &str, error: &repository::Error) -> Problem {
    let problem = from_repository(act, error);
    if problem.reason == Reason::RepositoryDamaged {
        return Problem::lasting(Reason::RestorePointDamaged, problem.cause);
    }
    problem
}

/// What helps where the key fits no key file, and some could not be tried with it: the Secret may be right.
const KEYS_UNTRIED: &str = "Where a key file that is named here is the repository's own: bring a damaged one back from a copy of the \
                            bucket; one that asks for too much is opened by `restic key add`, which writes one that does not. Else put \
                            the key back the repository was made with.";

/// What an error about a backup in the original's layout means to an object.
pub fn from_original(act: &str, error: &astrolabe::Error) -> Problem {
    match error {
        astrolabe::Error::Store { source, .. } => {
            use repository::store::ErrorKind as Kind;
            let reason = match source.kind() {
                Kind::BucketMissing => Reason::BucketMissing,
                Kind::AccessDenied => Reason::StoreAccessDenied,
                Kind::Unreachable => Reason::StoreUnreachable,
                Kind::NotFound | Kind::Failed => Reason::StoreFailed,
            };
            Problem::passing(reason, format!("{act}: {}", Problem::chain(error)))
        }
        // nobody mends it while we back off
        astrolabe::Error::Broken { .. } => {
            Problem::lasting(Reason::OldBackupIncomplete, format!("{act}: {}", Problem::chain(error)))
        }
    }
}

/// As [`from_original`], for a look from which follows that there is no backup where our keys do not reach: where there was no key to ask
/// with, nobody has said so.
pub fn from_look_for_original(act: &str, error: &astrolabe::Error) -> Problem {
    let problem = from_original(act, error);
    match error {
        astrolabe::Error::Store { source, .. } if is_without_key(source) => {
            Problem { reason: Reason::StoreUnreachable, ..problem }
        }
        _ => problem,
    }
}

/// Whether a request was not sent since there was no key to sign it with.
fn is_without_key(error: &repository::store::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<repository::store::NoKey>())
}

/// What vCenter's answer means to an object.
pub fn from_vsphere(act: &str, error: &vsphere::Error) -> Problem {
    let (reason, again) = match error.reason_kind() {
        ReasonKind::LoginRefused => (Reason::VCenterLoginRefused, Again::Later),
        ReasonKind::CertificateUntrusted => (Reason::VCenterCertificateUntrusted, Again::Later),
        ReasonKind::Unreachable => (Reason::VCenterUnreachable, Again::Later),
        ReasonKind::NoPermission { .. } => (Reason::VCenterPermission, Again::Later),
        ReasonKind::NotFound => (Reason::DiskMissing, Again::Never),
        ReasonKind::Busy => (Reason::DiskBusy, Again::Later),
        ReasonKind::BadConfig => (Reason::VCenterSecretInvalid, Again::Later),
        ReasonKind::NoSpace
        | ReasonKind::StorageUnavailable
        | ReasonKind::Unsupported
        | ReasonKind::ChangesUnknown
        | ReasonKind::Failed => (Reason::VCenterFailed, Again::Later),
    };
    Problem { reason, cause: format!("{act}: {}", Problem::chain(error)), fix: error.fix(), again }
}

/// What the API server's refusal means to an object.
pub fn from_kube(act: &str, error: &kube::Error) -> Problem {
    let reason = match error {
        kube::Error::Api(status) => match status.code {
            // the first also from one that has just started and knows nobody yet
            401 | 403 => Reason::ClusterForbidden,
            // it starts, stops, or has too much to do
            429 | 500..=504 => Reason::ClusterUnreachable,
            _ => Reason::Internal,
        },
        // the last where no credential is to be had: nobody was asked, and nothing is known of what our account may do
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) | kube::Error::Auth(_) => {
            Reason::ClusterUnreachable
        }
        _ => Reason::Internal,
    };
    let cause = match error {
        kube::Error::Api(status) => status.message.clone(), // the status itself shows as a dump of its fields
        kube::Error::Auth(AuthError::AuthExec(why)) => format!("log in to the cluster: {why}"),
        other => Problem::chain(other),
    };
    let quota = matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains(QUOTA));
    let problem = Problem::passing(reason, format!("{act}: {cause}"));
    match error {
        kube::Error::Auth(_) => problem.with_fix(Some(LOG_IN.to_owned())),
        kube::Error::Api(status) if status.code == 401 => problem.with_fix(Some(KNOWN_BY_NOBODY.to_owned())),
        _ if quota => problem.with_fix(Some(RAISE_THE_QUOTA.to_owned())),
        _ => problem,
    }
}

/// What helps where no credential for the API server is to be had.
const LOG_IN: &str = "Log in to the cluster as kubectl does, or mend what is named in the kubeconfig.";

/// What helps where the API server answers 401: not a right is lacking, the login is.
const KNOWN_BY_NOBODY: &str = "The API server knows nobody by this token or certificate: log in to the cluster again as kubectl does, or \
                               put one into the kubeconfig that has not run out. Where it has just started, it knows it in a moment.";

/// What Kubernetes says where a namespace may have no more of something; it answers 403 as where a right is missing.
const QUOTA: &str = "exceeded quota";
const RAISE_THE_QUOTA: &str = "Raise that ResourceQuota of the namespace, or delete what it counts and nobody needs.";

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody was asked: it says nothing of what an account may do.
    #[test]
    fn a_login_that_fails_is_told_with_what_helps_and_is_no_missing_right() {
        let ended =
            kube::Error::Auth(AuthError::AuthExec("`aws` failed with exit status: 255: it has expired".to_owned()));
        let problem = from_kube("list nodes", &ended);
        assert_eq!((problem.reason, problem.again), (Reason::ClusterUnreachable, Again::Later));
        let said = problem.message();
        assert!(said.starts_with("list nodes: log in to the cluster: `aws` failed"), "{said}");
        assert!(said.ends_with(LOG_IN), "{said}");
    }

    #[test]
    fn a_token_that_has_run_out_is_told_as_a_login_that_fails_and_not_as_a_role_to_apply_again() {
        let answers = |code, message: &str| {
            let status = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
            from_kube("list nodes", &kube::Error::Api(status.boxed()))
        };
        let (unknown, forbidden) = (answers(401, "Unauthorized"), answers(403, "nodes is forbidden"));
        assert_eq!((unknown.reason, unknown.again), (Reason::ClusterForbidden, Again::Later));
        assert_eq!(unknown.message(), format!("list nodes: Unauthorized. {KNOWN_BY_NOBODY}"));
        assert_eq!((forbidden.reason, forbidden.fix), (Reason::ClusterForbidden, None), "a right that is lacking");
    }

    #[test]
    fn nobody_is_sent_to_a_right_key_where_a_key_file_could_not_be_tried() {
        let wrong = |untried| repository::Error::PasswordWrong { location: "bucket b".to_owned(), untried };
        let plain = from_repository("open the repository", &wrong(Vec::new()));
        assert!(plain.message().ends_with(Reason::RepositoryPasswordWrong.fix()), "{}", plain.message());
        let untried = repository::Untried { object: "keys/12ab".to_owned(), why: "it asks for 512 MiB".to_owned() };
        let told = from_repository("open the repository", &wrong(vec![untried]));
        assert_eq!(told.reason, Reason::RepositoryPasswordWrong);
        for words in ["keys/12ab (it asks for 512 MiB)", "restic key add", "copy of the bucket"] {
            assert!(told.message().contains(words), "`{words}` in {}", told.message());
        }
    }
}
