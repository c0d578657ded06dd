//! Waiting for a task of vCenter: polled at growing intervals, under the operation's deadline.
//!
//! Polling is dull on purpose: it survives lost sessions and lost connections, and there are tens of tasks at most.

use std::time::Duration;

use crate::error::Cause;
use crate::fault::{Fault, FaultKind, Raised};
use crate::pace::Pace;
use crate::transport::{Endpoint, bad_reply};
use crate::vcenter::Vcenter;
use crate::xml::{Element, Reference, Request};

/// Longest pause between two looks at a task.
const LONGEST_POLL: Duration = Duration::from_secs(5);

/// The service that runs a task; each is asked in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// A `Task` of the inventory.
    Vim,
    /// A `VslmTask`.
    Vslm,
    /// A `Task` begun by CNS.
    Cns,
}

impl Vcenter {
    /// Waits for the end of `task` and returns its result, where it has one.
    pub(crate) async fn finish_task(
        &self,
        task: &Reference,
        runs: Runs,
        pace: &Pace,
    ) -> Result<Option<Element>, Cause> {
        let mut polls = pace.nested(self.shared.config.deadlines.task_poll, LONGEST_POLL);
        loop {
            match self.look_at_task(task, runs, pace).await {
                Ok(info) => match info.text_of("state").as_deref() {
                    Some("success") => return self.result_of(task, runs, info, pace).await,
                    Some("error") => return Err(fault_of(&info)),
                    Some("queued" | "running") => {}
                    other => return Err(bad_reply(format!("a task is in the state {other:?}"))),
                },
                Err(cause) if cause.is_transient() => {}
                Err(cause) => return Err(cause),
            }
            if !polls.pause().await {
                return Err(Cause::DeadlinePassed { after: pace.within(), waiting_for: "a task of vCenter" });
            }
        }
    }

    async fn look_at_task(&self, task: &Reference, runs: Runs, pace: &Pace) -> Result<Element, Cause> {
        match runs {
            Runs::Vslm => {
                let look = |_: &_| Request::new("VslmQueryInfo", task);
                self.call(Endpoint::Vslm, true, Some(pace), look).await?.value()
            }
            Runs::Vim | Runs::Cns => {
                let endpoint = if runs == Runs::Vim { Endpoint::Vim } else { Endpoint::CnsTasks };
                let reply = self.call(endpoint, true, Some(pace), |session| {
                    Request::new("RetrievePropertiesEx", &session.property_collector)
                        .group("specSet", |spec| {
                            spec.group("propSet", |set| set.text("type", "Task").text("pathSet", "info"))
                                .group("objectSet", |set| set.reference("obj", task))
                        })
                        .group("options", |none| none)
                });
                task_info(reply.await?.value()?)
            }
        }
    }

    /// Some servers leave the result out of what they say about the task.
    async fn result_of(
        &self,
        task: &Reference,
        runs: Runs,
        info: Element,
        pace: &Pace,
    ) -> Result<Option<Element>, Cause> {
        if let Some(result) = info.child("result") {
            return Ok(Some(result.clone()));
        }
        if runs != Runs::Vslm {
            return Ok(None);
        }
        let ask = |_: &_| Request::new("VslmQueryTaskResult", task);
        match self.call(Endpoint::Vslm, true, Some(pace), ask).await?.value() {
            Ok(result) => Ok(Some(result)),
            Err(Cause::BadReply { .. }) => Ok(None), // a task without a result
            Err(cause) => Err(cause),
        }
    }
}

fn task_info(properties: Element) -> Result<Element, Cause> {
    let object = properties.child("objects").ok_or_else(|| bad_reply("nothing is said about the task"))?;
    if let Some(missing) = object.at(&["missingSet", "fault"]) {
        return Err(Fault::from_localized(missing, Raised::AtOnce).into());
    }
    let info = object.at(&["propSet", "val"]).cloned();
    info.ok_or_else(|| bad_reply("nothing is said about the task"))
}

fn fault_of(info: &Element) -> Cause {
    match info.child("error") {
        Some(error) => Fault::from_localized(error, Raised::InTask).into(),
        None => bad_reply("a task failed without saying why"),
    }
}

impl Cause {
    /// Whether asking the same again soon may get an answer.
    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ReplyLost { .. } | Self::DeadlinePassed { .. } => true,
            Self::HttpStatus { status, .. } => *status >= 500,
            Self::Fault(fault) => matches!(fault.kind, FaultKind::NotAuthenticated | FaultKind::System),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config::Deadlines;

    #[tokio::test(start_paused = true)]
    async fn w20_a_task_is_looked_at_again_after_a_tenth_of_a_second_and_in_the_end_every_five() {
        let minute = Duration::from_secs(60);
        let operation = Pace::new(minute, minute, minute);
        let mut polls = operation.nested(Deadlines::default().task_poll, LONGEST_POLL);
        for nominal in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] {
            let before = Instant::now();
            assert!(polls.pause().await, "a minute is time enough");
            let pause = before.elapsed().as_secs_f64();
            assert!((nominal * 0.74..nominal * 1.26).contains(&pause), "{pause} s in place of {nominal} s");
        }
    }
}
