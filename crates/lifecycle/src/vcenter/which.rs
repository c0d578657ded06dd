//! Which of several vCenters has a disk. A disk that may be on one that is silent is not missing: what is missing is given up,
//! swept and forgotten, so only an answer of all of them makes it so.

use api::Reason;
use disk::DiskId;

use crate::{Again, Problem};

/// What one vCenter says of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it.
    Has,
    /// It knows no such disk.
    HasNot,
    /// It could not be asked, or does not say.
    Silent(Problem),
}

/// The vCenter that has the disk, by its place in `answers`; `None` while one of those that have not answered yet may have it.
///
/// # Errors
/// `DiskMissing` when all say that they know no such disk. Else the first problem of one that does not say: a deletion or a sweep
/// has to wait for it.
pub fn which(disk: &DiskId, answers: &[(String, Option<Answer>)]) -> Option<Result<usize, Problem>> {
    if let Some(at) = answers.iter().position(|(_, answer)| *answer == Some(Answer::Has)) {
        return Some(Ok(at));
    }
    let mut told = Vec::with_capacity(answers.len());
    let mut silent: Option<&Problem> = None;
    for (server, answer) in answers {
        match answer.as_ref()? {
            Answer::Has => {}
            Answer::HasNot => told.push(format!("{server} does not have it")),
            Answer::Silent(problem) => {
                silent = silent.or(Some(problem));
                told.push(format!("{server} does not say: {}", problem.cause));
            }
        }
    }
    let cause = format!("find the vCenter that has disk {disk}: {}", told.join("; "));
    Some(Err(match silent {
        // somebody may mend it, and a disk that may be there is not given up
        Some(problem) => Problem { cause, again: Again::Later, ..problem.clone() },
        None => Problem::lasting(Reason::DiskMissing, cause).with_fix(Some(
            "Check the volume handle of the PV, and that the vCenter Secret has a [VirtualCenter] section for each vCenter."
                .to_owned(),
        )),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn m7_10_a_disk_that_may_be_on_a_silent_vcenter_is_never_missing() {
        let has = || Some(Answer::Has);
        let not = || Some(Answer::HasNot);
        let away = || Some(Answer::Silent(Problem::passing(Reason::VCenterUnreachable, "connect to it")));
        let refused = || Some(Answer::Silent(Problem::lasting(Reason::VCenterLoginRefused, "log in")));
        let cases = [
            ("the first answers that it has it", vec![has(), None], Some(Ok(0))),
            ("the other one is silent", vec![away(), has()], Some(Ok(1))),
            ("the other one has not answered yet", vec![not(), None], None),
            ("one is silent, the other has not answered yet", vec![away(), None], None),
            ("nobody has it", vec![not(), not()], Some(Err(Reason::DiskMissing))),
            ("the silent one may have it", vec![not(), away()], Some(Err(Reason::VCenterUnreachable))),
            ("so may one that lets nobody in", vec![refused(), not()], Some(Err(Reason::VCenterLoginRefused))),
            ("none is there", vec![away(), away()], Some(Err(Reason::VCenterUnreachable))),
        ];
        let disk = "2b6d0f5e-1c3a-4a55-9d0e-8c5f6a1b2c3d".parse().unwrap();
        for (situation, answers, want) in cases {
            let answers: Vec<_> = ["vc-a", "vc-b"].map(str::to_owned).into_iter().zip(answers).collect();
            let found = which(&disk, &answers);
            assert_eq!(found.clone().map(|found| found.map_err(|problem| problem.reason)), want, "{situation}");
            if let Some(Err(problem)) = found {
                let lasts = problem.again == Again::Never;
                assert_eq!(lasts, problem.reason == Reason::DiskMissing, "{situation}: {problem}");
                assert!(
                    problem.cause.contains("vc-a does not") && problem.cause.contains("vc-b does not"),
                    "{problem}"
                );
            }
        }
    }
}
