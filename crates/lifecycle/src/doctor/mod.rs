//! What `vsphere-backup doctor` says: facts that were gathered go in, [`Finding`]s come out, each with what was looked at, why it
//! matters and what helps. One module a matter; this one has what they share.
//!
//! Nothing here asks anybody. What could not be looked at is a finding too: an answer that was not had is no good news.

pub mod clocks;
pub mod definitions;
pub mod flavor;
pub mod leftovers;
pub mod library;
pub mod privileges;
pub mod programs;
pub mod rights;
pub mod settings;
pub mod storage;
pub mod tracking;
pub mod trust;

use api::Reason;
use serde::Serialize;

use crate::Problem;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Backups and restores work, or may; somebody should know.
    Warning,
    /// Something does not work.
    Problem,
}

impl Verdict {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What a finding is about, in the order they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Matter {
    /// The API server.
    Cluster,
    /// The custom resource definitions.
    Definitions,
    /// Our programs: whether they run, and of which version.
    Programs,
    /// What our accounts may do in the cluster.
    Rights,
    /// The user's ConfigMaps.
    Settings,
    /// vCenter: its Secret, its certificate, the login.
    VCenter,
    /// What our account may do in vCenter.
    Privileges,
    /// Clocks of all parts.
    Clocks,
    /// Change tracking of nodes and disks.
    Tracking,
    /// VMware's disk library.
    Library,
    /// The key of the repositories.
    Key,
    /// Storage locations, buckets and repositories.
    Storage,
    /// What nobody owns any more.
    Leftovers,
}

impl Matter {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Definitions => "definitions",
            Self::Programs => "programs",
            Self::Rights => "rights",
            Self::Settings => "settings",
            Self::VCenter => "vcenter",
            Self::Privileges => "privileges",
            Self::Clocks => "clocks",
            Self::Tracking => "tracking",
            Self::Library => "library",
            Self::Key => "key",
            Self::Storage => "storage",
            Self::Leftovers => "leftovers",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub matter: Matter,
    /// How bad it is.
    pub verdict: Verdict,
    /// The word that objects would carry for it, where there is one.
    #[serde(serialize_with = "word")]
    pub reason: Option<Reason>,
    /// What was looked at, and what was found.
    pub seen: String,
    /// Why it matters; empty where all is well.
    pub why: String,
    /// What helps; empty where nothing needs to be done.
    pub fix: String,
}

fn word<S: serde::Serializer>(reason: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => serializer.serialize_str(reason.as_str()),
        None => serializer.serialize_none(),
    }
}

impl Finding {
    /// All is well.
    pub fn ok(matter: Matter, seen: impl Into<String>) -> Self {
        Self::new(matter, Verdict::Ok, seen, "", "")
    }

    /// Somebody should know.
    pub fn warning(matter: Matter, seen: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(matter, Verdict::Warning, seen, why, fix)
    }

    /// Something does not work.
    pub fn problem(matter: Matter, seen: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(matter, Verdict::Problem, seen, why, fix)
    }

    fn new(
        matter: Matter,
        verdict: Verdict,
        seen: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { matter, verdict, reason: None, seen: seen.into(), why: why.into(), fix: fix.into() }
    }

    /// A failure that objects would tell in the same words.
    pub fn of(matter: Matter, problem: &Problem) -> Self {
        let fix = problem.fix.as_deref().unwrap_or_else(|| problem.reason.fix());
        Self::problem(matter, &problem.cause, problem.reason.meaning(), fix).because(problem.reason)
    }

    /// What our own account of this moment may not see: of whatever it is, nothing is known.
    pub fn unseen(matter: Matter, problem: &Problem) -> Self {
        let why = "What cannot be looked at may be as it should be, or not.";
        let fix = "Run doctor with an account that may read it, such as the cluster's administrator.";
        Self::warning(matter, &problem.cause, why, fix).because(problem.reason)
    }

    /// A failure of the look itself: [`Finding::unseen`] where our account may not look, else [`Finding::of`].
    pub fn of_look(matter: Matter, problem: &Problem) -> Self {
        match problem.reason {
            Reason::ClusterForbidden => Self::unseen(matter, problem),
            _ => Self::of(matter, problem),
        }
    }

    /// The same, with the word that objects would carry.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_looked_at_is_no_good_news_and_no_trouble_of_the_cluster() {
        let refused = Problem::passing(Reason::ClusterForbidden, "list nodes: forbidden");
        assert_eq!(Finding::of_look(Matter::Tracking, &refused).verdict, Verdict::Warning);
        let gone = Problem::passing(Reason::BucketMissing, "list bucket b: the bucket does not exist");
        let told = Finding::of_look(Matter::Storage, &gone);
        assert_eq!((told.verdict, told.reason), (Verdict::Problem, Some(Reason::BucketMissing)));
        assert_eq!(told.fix, Reason::BucketMissing.fix());
    }

    #[test]
    fn a_script_finds_the_words_of_the_catalogue() {
        let finding = Finding::ok(Matter::VCenter, "seen").because(Reason::VCenterPermission);
        let told = serde_json::to_value(&finding).unwrap_or_default();
        assert_eq!(told["reason"], "VCenterPermission");
        assert_eq!((&told["matter"], &told["verdict"]), (&"vcenter".into(), &"ok".into()));
    }
}
