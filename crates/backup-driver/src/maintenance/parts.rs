//! What ended well of runs that did not as a whole: when such a run is tried again, it repeats only what failed. A restart forgets it, and
//! repeats all.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use api::{BackupRepository, Timestamp};
use kube::ResourceExt;
use lifecycle::Problem;
use lifecycle::maintenance::Part;
use repository::Report;

/// Runs that ended well, by namespace.
#[derive(Debug, Default)]
pub(super) struct Done(BTreeMap<String, (Part, Report)>);

/// What became of a run in the repository of one namespace.
pub(super) enum Ran {
    /// It ended well.
    Well(Box<(Part, Report)>),
    /// There is no repository: nobody ever wrote there.
    Nothing,
    /// It failed, which says nothing of the others.
    Failed(Problem),
    /// The others would fail as well.
    FailedForAll(Problem),
}

impl Done {
    /// A run for each of the namespaces in which none is done.
    ///
    /// # Errors
    /// What the first that failed did by, or what keeps all others as well.
    pub(super) async fn run(
        &mut self,
        namespaces: &[&str],
        mut run: impl AsyncFnMut(&str) -> Ran,
    ) -> Result<(), Problem> {
        let mut first = None;
        for &namespace in namespaces {
            if self.0.contains_key(namespace) {
                continue;
            }
            match run(namespace).await {
                Ran::Well(done) => drop(self.0.insert(namespace.to_owned(), *done)),
                Ran::Nothing => {}
                Ran::Failed(problem) => drop(first.get_or_insert(problem)),
                Ran::FailedForAll(problem) => return Err(problem),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// What they found and did.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.0.values().map(|(_, report)| report)
    }

    /// When the first of them began.
    pub(super) fn began(&self) -> Option<Timestamp> {
        self.0.values().map(|(part, _)| part.began).min()
    }
}

/// What is kept for the next try, by the BackupRepository's uid.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<HashMap<String, Done>>);

impl Parts {
    /// Takes what counts still of the last run in one of these namespaces.
    pub(super) fn take(&self, of: &BackupRepository, counts: impl Fn(&Part) -> bool) -> Done {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = all.remove(&of.uid().unwrap_or_default()).unwrap_or_default();
        let namespaces = of.namespaces();
        done.0.retain(|namespace, (part, _)| namespaces.contains(&namespace.as_str()) && counts(part));
        done
    }

    /// Keeps it; forgets what belongs to a BackupRepository that is none of those `there`, by uid.
    pub(super) fn keep(&self, of: &BackupRepository, done: Done, there: &[String]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|uid, _| there.contains(uid));
        if !done.0.is_empty() {
            all.insert(of.uid().unwrap_or_default(), done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Reason;
    use lifecycle::maintenance::{Noted, Settings};

    fn well(began: Timestamp) -> Ran {
        let part = Part { began, noted: Noted::default(), settings: Settings::default(), next_due: None };
        Ran::Well(Box::new((part, Report::default())))
    }

    fn of(uid: &str, namespaces: &[&str]) -> BackupRepository {
        let mut described = BackupRepository::new("br-1");
        described.metadata.uid = Some(uid.to_owned());
        described.allowed_namespaces = namespaces.iter().map(|&name| name.to_owned()).collect();
        described
    }

    /// Runs those of one BackupRepository as a controller does, where `broken` fails; which were run, and how it ended.
    async fn attempt(parts: &Parts, described: &BackupRepository, broken: &str) -> (Vec<String>, Option<Reason>) {
        let (mut ran, mut done) = (Vec::new(), parts.take(described, |_| true));
        let namespaces = described.namespaces();
        let ended = done.run(&namespaces, async |namespace: &str| {
            ran.push(namespace.to_owned());
            match namespace == broken {
                true => Ran::Failed(Problem::passing(Reason::RepositoryDamaged, "free space")),
                false => well(Timestamp::UNIX_EPOCH),
            }
        });
        let failed = ended.await.err().map(|problem| problem.reason);
        if failed.is_some() {
            parts.keep(described, done, &["one".to_owned(), "two".to_owned()]);
        }
        (ran, failed)
    }

    #[tokio::test]
    async fn a_try_after_one_that_failed_reads_no_repository_again_that_was_maintained() {
        let (parts, described) = (Parts::default(), of("one", &["bar", "foo", "shop"]));
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let damaged = Some(Reason::RepositoryDamaged);
        assert_eq!(attempt(&parts, &described, "foo").await, (names(&["bar", "foo", "shop"]), damaged));
        assert_eq!(attempt(&parts, &described, "foo").await, (names(&["foo"]), damaged));
        let other = of("two", &["bar", "foo"]);
        assert_eq!(attempt(&parts, &other, "").await, (names(&["bar", "foo"]), None), "another BackupRepository");
        let wider = of("one", &["bar", "baz", "foo"]);
        assert_eq!(
            attempt(&parts, &wider, "").await,
            (names(&["baz", "foo"]), None),
            "it was mended, and has one more"
        );
        assert_eq!(attempt(&parts, &described, "").await.0.len(), 3, "the next one is a whole one again");
    }

    #[tokio::test]
    async fn what_keeps_all_of_them_is_not_met_once_for_each() {
        let mut done = Done::default();
        let mut asked = 0;
        let ended = done.run(&["bar", "foo"], async |_: &str| {
            asked += 1;
            Ran::FailedForAll(Problem::passing(Reason::StoreUnreachable, "open"))
        });
        assert_eq!(ended.await.map_err(|problem| problem.reason), Err(Reason::StoreUnreachable));
        assert_eq!((asked, done.began()), (1, None));
    }

    #[test]
    fn what_is_kept_of_a_repository_that_is_gone_goes() {
        let (parts, gone) = (Parts::default(), of("gone", &["bar"]));
        let kept = || {
            let Ran::Well(done) = well(Timestamp::UNIX_EPOCH) else { unreachable!("it ended well") };
            Done([("bar".to_owned(), *done)].into())
        };
        parts.keep(&gone, kept(), &["gone".to_owned()]);
        parts.keep(&of("one", &["bar"]), kept(), &["one".to_owned()]);
        assert_eq!(parts.take(&gone, |_| true).reports().count(), 0);
        assert_eq!(parts.take(&of("one", &["bar"]), |_| false).reports().count(), 0, "it does not count any more");
    }
}
