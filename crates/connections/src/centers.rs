//! The vCenters of one Secret, each with a session of its own, and which of them has a disk. `lifecycle::vcenter` decides.
//!
//! With one vCenter nothing is asked: it is the one. Of several, the one that has a disk is remembered, asked first the next time, and
//! asked whether it has it still: so a call that follows goes to a vCenter that answered a moment ago. One that was silent is not asked
//! again for a while, so that work on the others' disks does not wait for it with each of its own.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Reason;
use disk::DiskId;
use lifecycle::Problem;
use lifecycle::vcenter::{Answer, which};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use vsphere::{ReasonKind, Vcenter};

use crate::from_vsphere;

/// Longest time for one of several vCenters to say whether it has a disk.
const WITHIN: Duration = Duration::from_secs(20);
/// How long one that was silent counts as such.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// The vCenters that one Secret, or the command line, names.
#[derive(Debug)]
pub struct Centers {
    all: Vec<Arc<Center>>,
    /// Secret and key that they stand in; `None` where the command line names them.
    source: Option<String>,
    /// Names in it that nobody reads and that are near known ones.
    slips: Vec<String>,
    /// Addresses with the file that `ca-file` names for them, where it cannot be read.
    unread: Vec<(String, PathBuf)>,
    /// Where disks were found last: one entry for each disk of the cluster at most.
    homes: Mutex<HashMap<DiskId, usize>>,
}

/// One vCenter.
#[derive(Debug)]
pub struct Center {
    /// `host:port`, for messages.
    server: String,
    /// The client; or what is wrong with its section.
    client: Result<Vcenter, Problem>,
    /// Whether it is the only one: then it is waited for, whatever it takes.
    is_only: bool,
    silent: Mutex<Option<Silence>>,
}

/// When one was silent last, and why.
#[derive(Debug)]
struct Silence {
    since: Instant,
    problem: Problem,
    /// Who gives it more time than this asks all the same.
    given: Duration,
}

impl fmt::Display for Center {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCenter {}", self.server)
    }
}

impl Centers {
    /// Those of a Secret, in its order: at least one. Each has its address, and a client or what is wrong with its section.
    pub(crate) fn new(sections: impl IntoIterator<Item = (String, Result<Vcenter, Problem>)>) -> Self {
        let sections: Vec<_> = sections.into_iter().collect();
        let is_only = sections.len() == 1;
        let center = |(server, client)| Arc::new(Center { server, client, is_only, silent: Mutex::default() });
        let all = sections.into_iter().map(center).collect();
        Self { all, source: None, slips: Vec::new(), unread: Vec::new(), homes: Mutex::default() }
    }

    /// The same, with the Secret and key that they stand in.
    pub(crate) fn read_from(self, source: String) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Secret and key that they stand in; `None` where the command line names them.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The same, with the names in the Secret that nobody reads.
    pub(crate) fn with_slips(self, slips: Vec<String>) -> Self {
        Self { slips, ..self }
    }

    /// Names in the Secret that nobody reads and that are near known ones, each with its line and the one that may be meant; and values in
    /// quotes that are none.
    pub fn slips(&self) -> &[String] {
        &self.slips
    }

    /// The same, with the files of `ca-file` that cannot be read, each with the address of its vCenter.
    pub(crate) fn with_unread(self, unread: Vec<(String, PathBuf)>) -> Self {
        Self { unread, ..self }
    }

    /// The file that `ca-file` names for a vCenter, where it is neither in the Secret nor where this program runs, and keeps the vCenter from
    /// being used here.
    pub fn unread(&self, center: &Center) -> Option<&Path> {
        let found = self.unread.iter().find(|(server, _)| *server == center.server);
        found.map(|(_, file)| file.as_path())
    }

    /// All of them, in the order of the Secret.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Center> {
        self.all.iter().map(|center| &**center)
    }

    /// The one vCenter, where there is no other.
    ///
    /// # Errors
    /// The inner one: what is wrong with its section of the Secret.
    pub fn only(&self) -> Option<Result<Vcenter, Problem>> {
        if let [only] = &self.all[..] { Some(only.client()) } else { None }
    }

    /// The vCenter that has a disk. Of several, it has said so just now.
    ///
    /// # Errors
    /// `DiskMissing` where every one says that it knows no such disk, which one alone is not asked. What keeps one from answering,
    /// where the disk may be there.
    pub async fn of_disk(&self, disk: &DiskId) -> Result<Vcenter, Problem> {
        if let Some(only) = self.only() {
            return only;
        }
        if let Some(home) = self.home(disk) {
            match self.all[home].has(disk).await {
                Answer::Has => return self.all[home].client(),
                Answer::HasNot => self.note(disk, None),
                Answer::Silent(problem) => return Err(problem),
            }
        }
        let found = self.find(disk).await?;
        self.note(disk, Some(found));
        self.all[found].client()
    }

    /// Asks all at once; the first that has it is taken without waiting for the others.
    async fn find(&self, disk: &DiskId) -> Result<usize, Problem> {
        let mut asking = JoinSet::new();
        for (at, center) in self.all.iter().enumerate() {
            let (center, disk) = (center.clone(), disk.clone());
            asking.spawn(async move { (at, center.has(&disk).await) });
        }
        let mut answers: Vec<_> = self.all.iter().map(|center| (center.to_string(), None)).collect();
        while let Some(answered) = asking.join_next().await {
            match answered {
                Ok((at, answer)) => answers[at].1 = Some(answer),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => break, // the process is about to end
                },
            }
            if let Some(found) = which(disk, &answers) {
                return found;
            }
        }
        Err(Problem::passing(Reason::VCenterUnreachable, format!("find the vCenter that has disk {disk}: stopped")))
    }

    /// Calls a thing of a vCenter by its id, such as `datastore-39`. Of several vCenters, two may use the same ids.
    pub fn id_of(&self, vcenter: &Vcenter, id: &str) -> String {
        if self.all.len() == 1 { id.to_owned() } else { format!("{id} of vCenter {}", vcenter.config().server()) }
    }

    /// Ends all sessions.
    pub(crate) async fn logout(&self) {
        let mut ending = JoinSet::new();
        for center in self.all.clone() {
            ending.spawn(async move {
                if let Ok(vcenter) = &center.client {
                    vcenter.logout().await;
                }
            });
        }
        ending.join_all().await;
    }

    fn home(&self, disk: &DiskId) -> Option<usize> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner).get(disk).copied()
    }

    fn note(&self, disk: &DiskId, home: Option<usize>) {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        match home {
            Some(home) => homes.insert(disk.clone(), home),
            None => homes.remove(disk),
        };
    }
}

impl Center {
    /// The client.
    ///
    /// # Errors
    /// What is wrong with its section of the Secret.
    pub fn client(&self) -> Result<Vcenter, Problem> {
        self.client.clone()
    }

    /// `host:port`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks it something. Where there are others, it is given `within` for the answer, and one that was silent a moment ago counts as
    /// silent still. A side question that gave it little time counts against others that give it no more.
    ///
    /// # Errors
    /// As it says, `act` being what was being done; or why it does not say.
    pub async fn ask<T, F>(
        &self,
        act: &str,
        within: Duration,
        question: impl FnOnce(Vcenter) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, vsphere::Error>>,
    {
        let vcenter = self.client()?;
        if self.is_only {
            return question(vcenter).await.map_err(|e| from_vsphere(act, &e));
        }
        if let Some(problem) = self.was_silent(within) {
            let cause = format!("{act}: a moment ago it was silent: {}", problem.cause);
            return Err(Problem { cause, ..problem });
        }
        let (problem, given) = match timeout(within, question(vcenter)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if concerns_one_object(&error) => return Err(from_vsphere(act, &error)),
            // of what was asked nothing is kept: the next question is another one
            Ok(Err(error)) => {
                (Problem { cause: Problem::chain(error.cause()), ..from_vsphere(act, &error) }, Duration::MAX)
            }
            Err(_) => {
                let cause = format!("no answer within {} s", within.as_secs());
                let given = if within < WITHIN { within } else { Duration::MAX };
                (Problem::passing(Reason::VCenterUnreachable, cause), given)
            }
        };
        self.note_silence(&problem, given);
        Err(Problem { cause: format!("{act}: {}", problem.cause), ..problem })
    }

    /// Whether it has a disk: by the catalog of disks, and where that denies it by the books of CNS.
    async fn has(&self, disk: &DiskId) -> Answer {
        let question = |vcenter: Vcenter| async move {
            match vcenter.retrieve_disk(disk).await {
                Err(error) if error.reason_kind() == ReasonKind::NotFound => {
                    vcenter.query_volume(disk).await.map(|volume| volume.is_some())
                }
                found => found.map(|_| true),
            }
        };
        match self.ask(&format!("ask {self} for disk {disk}"), WITHIN, question).await {
            Ok(true) => Answer::Has,
            Ok(false) => Answer::HasNot,
            Err(problem) => Answer::Silent(problem),
        }
    }

    /// Why it was silent a moment ago, for who gives it so much time.
    fn was_silent(&self, within: Duration) -> Option<Problem> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = silent.as_ref().filter(|noted| noted.since.elapsed() < SILENT_FOR && within <= noted.given)?;
        Some(noted.problem.clone())
    }

    /// Notes that it was silent. A side question takes nothing back of what a longer one has found.
    fn note_silence(&self, problem: &Problem, given: Duration) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.as_ref().is_none_or(|noted| noted.given <= given || noted.since.elapsed() >= SILENT_FOR) {
            *silent = Some(Silence { since: Instant::now(), problem: problem.clone(), given });
        }
    }
}

/// Whether the other objects of the same vCenter may still be asked for: with wrong credentials every further call would be one
/// refusal more.
pub(crate) fn concerns_one_object(error: &vsphere::Error) -> bool {
    !matches!(
        error.reason_kind(),
        ReasonKind::LoginRefused | ReasonKind::CertificateUntrusted | ReasonKind::Unreachable | ReasonKind::BadConfig
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_question_that_got_no_answer_keeps_nobody_from_asking_who_gives_more_time() {
        let problem = Problem::passing(Reason::VCenterUnreachable, "no answer");
        let client = Err(problem.clone());
        let center = Center { server: "vc-a:443".to_owned(), client, is_only: false, silent: Mutex::default() };
        let (shortly, told) = (WITHIN / 5, Some(problem.clone()));
        assert_eq!(center.was_silent(shortly), None);
        center.note_silence(&problem, shortly);
        assert_eq!((center.was_silent(shortly), center.was_silent(WITHIN)), (told.clone(), None));
        center.note_silence(&problem, Duration::MAX);
        center.note_silence(&problem, shortly);
        assert_eq!(center.was_silent(WITHIN), told, "a side question takes nothing back");
    }
}
