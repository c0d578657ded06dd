//! How a failure is told: one word, what happened, what helps, and whether another try can.

use std::fmt;

use api::Reason;

/// Whether trying once more can help without anybody changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It may work later.
    Later,
    /// It stays as it is until somebody changes something; a retry would only repeat the answer.
    Never,
}

/// A failure, told so that a person can act on it. The same text goes into status, condition, event and log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The word.
    pub reason: Reason,
    /// What was done and why it failed: verb phrases from the outside in.
    pub cause: String,
    /// What helps, where more is known than [`Reason::fix`] says.
    pub fix: Option<String>,
    /// Whether another try can help.
    pub again: Again,
}

impl Problem {
    /// A problem that may pass.
    pub fn passing(reason: Reason, cause: impl Into<String>) -> Self {
        Self { reason, cause: cause.into(), fix: None, again: Again::Later }
    }

    /// A problem that stays until somebody changes something.
    pub fn lasting(reason: Reason, cause: impl Into<String>) -> Self {
        Self { reason, cause: cause.into(), fix: None, again: Again::Never }
    }

    /// With better advice than the reason's own.
    #[must_use]
    pub fn with_fix(mut self, fix: Option<String>) -> Self {
        self.fix = fix.filter(|f| !f.is_empty());
        self
    }

    /// Cause and fix in one line, for `status.message`, conditions and events.
    pub fn message(&self) -> String {
        let fix = self.fix.as_deref().unwrap_or_else(|| self.reason.fix());
        if fix.is_empty() { self.cause.clone() } else { format!("{}. {fix}", self.cause.trim_end_matches('.')) }
    }

    /// The reason's word, cause and fix in one line, where no condition or event has the word beside it: what Velero shows.
    pub fn in_one_line(&self) -> String {
        format!("{}: {}", self.reason, self.message())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.cause)
    }
}

/// Whom a question was put to that got no answer, or none that says anything of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The API server, which refuses for a while too: one that has just started knows no roles.
    Cluster,
    /// A store, or a repository in it that somebody has locked.
    Store,
    /// A vCenter.
    Center,
}

impl Problem {
    /// Who gave no answer; `None` where the answer is about what was asked for. Narrower than [`Again::Later`], which also waits until
    /// somebody mends what an answer names. Who waits for whom, and for how long, differs from step to step.
    pub fn unanswered(&self) -> Option<Unanswered> {
        match self.reason {
            Reason::ClusterUnreachable | Reason::ClusterForbidden | Reason::Internal => Some(Unanswered::Cluster),
            Reason::StoreUnreachable | Reason::StoreFailed | Reason::RepositoryLocked => Some(Unanswered::Store),
            Reason::VCenterUnreachable => Some(Unanswered::Center),
            _ => None,
        }
    }
}

/// The sources of an error in one line; a `Display` of ours never repeats its source.
impl Problem {
    /// `error` and its sources as one line.
    pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            let part = source.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = source.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A restore that ends at once where it could have waited is lost, and so is the time of one that waits for what never changes.
    #[test]
    fn no_answer_is_told_apart_from_one_that_stays() {
        use Unanswered::{Center, Cluster, Store};
        let unanswered = [
            (Reason::ClusterUnreachable, Cluster),
            (Reason::ClusterForbidden, Cluster),
            (Reason::Internal, Cluster),
            (Reason::RepositoryLocked, Store),
            (Reason::StoreUnreachable, Store),
            (Reason::StoreFailed, Store),
            (Reason::VCenterUnreachable, Center),
        ];
        for reason in Reason::ALL {
            let want = unanswered.iter().find(|(silent, _)| silent == reason).map(|(_, by)| *by);
            assert_eq!(Problem::passing(*reason, "x").unanswered(), want, "{reason}");
        }
    }

    #[test]
    fn a_message_ends_with_what_helps() {
        let problem = Problem::lasting(Reason::BucketMissing, "open the repository: bucket `b` does not exist");
        assert!(problem.message().starts_with("open the repository: bucket `b` does not exist. "));
        assert!(problem.message().ends_with(Reason::BucketMissing.fix()));
        let better = problem.with_fix(Some("Create bucket b.".to_owned()));
        assert!(better.message().ends_with(". Create bucket b."));
    }
}
