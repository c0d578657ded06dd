//! One attempt at a transfer: claimed by its lease, and ended in order when it is asked to stop.

use std::time::Duration;

use api::{Reason, Timestamp};
use kube::{Api, Client, ResourceExt as _};
use lifecycle::Problem;
use lifecycle::transfer::{self, Holder, Node, Plan, Work};
use operator::{Error, Guard, Lease, Taken};
use tokio::time::Instant;

use crate::context::Context;
use crate::interrupt::{Interrupt, Why};
use crate::kind::Kind;

/// How long a copy that is asked to stop may take to close its disk and give its lock back. What takes longer is a call
/// to a server that does not answer; it is dropped.
const ENDS_WITHIN: Duration = Duration::from_secs(4);

/// How long the helper of an attempt that was dropped may take to go: it is given two seconds to end the access.
const HELPERS_GO_WITHIN: Duration = Duration::from_secs(10);

/// Pause before another attempt when the API server did not answer.
const CLUSTER_AGAIN: Duration = Duration::from_secs(2);
/// How long that is no attempt. A lease that cannot be renewed ends it sooner; this is for an API server that takes renewals
/// and answers nothing else.
const CLUSTER_AWAY: Duration = Duration::from_secs(120);

/// Why an attempt did not do what it was made for.
pub(crate) enum NotDone {
    /// It was stopped.
    Interrupted(Why),
    /// It failed.
    Failed(Problem),
}

impl From<Problem> for NotDone {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl NotDone {
    /// What a copy that stopped early says; the reason is the interrupt's.
    pub(crate) fn interrupted(interrupt: &Interrupt) -> Self {
        Self::Interrupted(interrupt.why().unwrap_or(Why::Shutdown))
    }
}

/// A transfer that this process works on: the lease is ours, and nobody has changed the object since.
pub(crate) struct Claimed<K> {
    /// The object; one that is copied says so already.
    pub(crate) object: K,
    /// The object as it was before.
    pub(crate) found: K,
    pub(crate) work: Work,
    pub(crate) lease: Lease,
}

/// Takes the lease and looks once more; `None` when somebody else has it or the work is not there any more.
pub(crate) async fn claim<K: Kind>(
    ctx: &Context,
    lease: &str,
    known: &K,
    planned: Work,
) -> Result<Option<Claimed<K>>, Error> {
    let Taken::Ours(lease) = ctx.leases.take(lease).await? else { return Ok(None) };
    match settle(ctx, known, planned).await {
        Ok(Some((object, found, work))) => Ok(Some(Claimed { object, found, work, lease })),
        Ok(None) => {
            lease.release().await;
            Ok(None)
        }
        Err(error) => {
            lease.release().await;
            Err(error)
        }
    }
}

/// The object as it is under our lease, as it was found, and what is to be done with it. A copy is begun on the object as
/// the watch shows it: the API server refuses that write if it has changed, so it needs no look of its own.
async fn settle<K: Kind>(ctx: &Context, known: &K, planned: Work) -> Result<Option<(K, K, Work)>, Error> {
    if let Work::Copy { .. } = planned
        && let Begun::Said(begun) = begin(ctx, known).await?
    {
        return Ok(Some((*begun, known.clone(), planned)));
    }
    let name = known.name_any();
    let objects: Api<K> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let found = objects.get_opt(&name).await.map_err(|e| Error::api(format!("read {} {name}", K::kind(&())), e))?;
    let Some(found) = found else { return Ok(None) };
    let node = Node { free_slots: 1, at_work: false, holder: Holder::Us };
    let Plan::Claim(work) = transfer::plan(&found.transfer(), &node, Timestamp::now()) else { return Ok(None) };
    if !has_room(planned, work) {
        return Ok(None);
    }
    let object = match work {
        Work::Copy { .. } => match begin(ctx, &found).await? {
            Begun::Said(begun) => *begun,
            Begun::AsItIs => found.clone(),
            Begun::Changed => return Ok(None), // the change comes as an event
        },
        Work::CleanUp | Work::Cancel => found.clone(),
    };
    Ok(Some((object, found, work)))
}

/// What became of the word that this node copies.
enum Begun<K> {
    /// It is written.
    Said(Box<K>),
    /// The object, as far as it is known, says so already.
    AsItIs,
    /// The object was changed or deleted meanwhile.
    Changed,
}

/// Says that this node copies.
async fn begin<K: Kind>(ctx: &Context, object: &K) -> Result<Begun<K>, Error> {
    let before = object.status().cloned().unwrap_or_default();
    let status = K::started(&before, &ctx.node, Timestamp::now());
    match ctx.publisher.publish(object, &status, Guard::Unchanged).await {
        Ok(Some(begun)) => Ok(Begun::Said(Box::new(begun))),
        Ok(None) => Ok(Begun::AsItIs),
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(Begun::Changed),
        Err(error) => Err(error),
    }
}

/// A copy has a slot only if it was planned as one; other work needs none.
fn has_room(planned: Work, work: Work) -> bool {
    matches!(planned, Work::Copy { .. }) || !matches!(work, Work::Copy { .. })
}

/// What may be the API server's fault.
pub(crate) trait Failure {
    /// What went wrong, if anything did.
    fn problem(&self) -> Option<&Problem>;
}

impl Failure for Problem {
    fn problem(&self) -> Option<&Problem> {
        Some(self)
    }
}

impl Failure for NotDone {
    fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed(problem) => Some(problem),
            Self::Interrupted(_) => None,
        }
    }
}

/// Makes attempts until one ends otherwise than because the API server does not answer: such a one says nothing of the disk
/// or the bucket, and must cost none of the object's. Nor does a refusal count before `is_ready` has said that the server is:
/// one that has just started refuses whatever its roles, which it has not read yet, will allow. That is narrower than
/// [`Problem::unanswered`]: a refusal that lasts and a fault of ours end the attempt at once, and the object backs off.
pub(crate) async fn once_the_cluster_answers<T, E, F, R>(
    is_ready: impl Fn() -> R,
    attempt: impl Fn() -> F,
) -> Result<T, E>
where
    E: Failure,
    F: Future<Output = Result<T, E>>,
    R: Future<Output = bool>,
{
    let begun = Instant::now();
    let mut was_ready = false;
    loop {
        let ended = attempt().await;
        let Some(problem) = ended.as_ref().err().and_then(Failure::problem) else { return ended };
        match problem.reason {
            _ if begun.elapsed() >= CLUSTER_AWAY => return ended,
            Reason::ClusterUnreachable => was_ready = false,
            Reason::ClusterForbidden if !was_ready => was_ready = is_ready().await,
            _ => return ended,
        }
        tracing::info!(problem = problem.cause, "waiting for the API server");
        tokio::time::sleep(CLUSTER_AGAIN).await;
    }
}

/// Whether the API server says that it is ready. Everybody may ask.
pub(crate) async fn is_ready(client: &Client) -> bool {
    match http::Request::get("/readyz").body(Vec::new()) {
        Ok(question) => client.request_text(question).await.is_ok(),
        Err(_) => false,
    }
}

/// Waits for `attempt`. Once interrupted, it is given a moment to stop by itself. When this returns no helper has the disk
/// open any more; the outcome counts only if the attempt was done and nobody minds.
pub(crate) async fn in_order<T>(
    interrupt: &Interrupt,
    attempt: impl Future<Output = Result<T, NotDone>>,
) -> Result<T, NotDone> {
    let mut attempt = Box::pin(attempt);
    tokio::select! {
        biased;
        () = interrupt.any.cancelled() => {}
        done = &mut attempt => return done,
    }
    let outcome = tokio::time::timeout(ENDS_WITHIN, attempt).await;
    interrupt.helpers.close();
    if tokio::time::timeout(HELPERS_GO_WITHIN, interrupt.helpers.wait()).await.is_err() {
        tracing::warn!("the disk's helper has not ended: it waits in the kernel");
    }
    match outcome {
        Ok(Ok(done)) if interrupt.why() == Some(Why::Shutdown) => Ok(done),
        _ => Err(NotDone::interrupted(interrupt)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    struct Asking {
        interrupt: Interrupt,
        asked: CancellationToken,
        shutdown: CancellationToken,
    }

    fn asking() -> Asking {
        let (asked, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let interrupt = Interrupt::new(asked.clone(), CancellationToken::new(), shutdown.clone());
        Asking { interrupt, asked, shutdown }
    }

    #[tokio::test]
    async fn a_copy_that_is_asked_to_stop_closes_what_it_opened() {
        let Asking { interrupt, asked, .. } = asking();
        let closed = std::cell::Cell::new(false);
        let attempt = async {
            asked.cancel();
            interrupt.any.cancelled().await;
            tokio::task::yield_now().await;
            closed.set(true);
            Ok(())
        };
        let outcome = in_order(&interrupt, attempt).await;
        assert!(
            matches!(outcome, Err(NotDone::Interrupted(Why::Asked))),
            "what was asked for, not the copy's own word"
        );
        assert!(closed.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_cannot_hold_up_the_end() {
        let Asking { interrupt, shutdown, .. } = asking();
        shutdown.cancel();
        let outcome = in_order(&interrupt, std::future::pending::<Result<(), NotDone>>()).await;
        assert!(matches!(outcome, Err(NotDone::Interrupted(Why::Shutdown))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_costs_no_attempt() {
        let made = std::cell::Cell::new(0);
        let attempt = || async {
            made.set(made.get() + 1);
            match made.get() {
                1..=3 => Err(NotDone::Failed(Problem::passing(Reason::ClusterUnreachable, "read a Secret"))),
                _ => Err::<(), _>(NotDone::Failed(Problem::passing(Reason::StoreUnreachable, "read the index"))),
            }
        };
        let ready = || async { true };
        let outcome = once_the_cluster_answers(ready, attempt).await;
        assert!(matches!(outcome, Err(NotDone::Failed(problem)) if problem.reason == Reason::StoreUnreachable));
        assert_eq!(made.get(), 4);

        let away = || async { Err::<(), _>(NotDone::Failed(Problem::passing(Reason::ClusterUnreachable, "read it"))) };
        let outcome = once_the_cluster_answers(ready, away).await;
        assert!(matches!(outcome, Err(NotDone::Failed(_))), "it is said at last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_once_the_api_server_is_ready() {
        let forbidden = || Err::<(), _>(NotDone::Failed(Problem::passing(Reason::ClusterForbidden, "read a Secret")));
        let (made, asked) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let starting = || async {
            asked.set(asked.get() + 1);
            asked.get() > 2
        };
        let attempt = || async {
            made.set(made.get() + 1);
            if made.get() < 4 { forbidden() } else { Ok(()) }
        };
        assert!(matches!(once_the_cluster_answers(starting, attempt).await, Ok(())));
        assert_eq!((made.get(), asked.get()), (4, 3));

        made.set(0);
        let never = || async {
            made.set(made.get() + 1);
            forbidden()
        };
        let outcome = once_the_cluster_answers(|| async { true }, never).await;
        assert!(matches!(outcome, Err(NotDone::Failed(problem)) if problem.reason == Reason::ClusterForbidden));
        assert_eq!(made.get(), 2, "the second one is meant");
    }

    #[tokio::test]
    async fn work_that_was_done_when_the_process_ends_is_not_thrown_away() {
        let Asking { interrupt, shutdown, .. } = asking();
        let attempt = async {
            shutdown.cancel();
            interrupt.any.cancelled().await;
            Ok(7)
        };
        assert!(matches!(in_order(&interrupt, attempt).await, Ok(7)));
    }

    #[tokio::test]
    async fn work_that_was_done_after_its_lease_was_lost_counts_for_nothing() {
        let lost = CancellationToken::new();
        let interrupt = Interrupt::new(CancellationToken::new(), lost.clone(), CancellationToken::new());
        let attempt = async {
            lost.cancel();
            interrupt.any.cancelled().await;
            Ok(7)
        };
        assert!(matches!(in_order(&interrupt, attempt).await, Err(NotDone::Interrupted(Why::LeaseLost))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_whose_lease_is_lost_writes_nothing_once_another_node_may_begin() {
        let lost = CancellationToken::new();
        let interrupt = Interrupt::new(CancellationToken::new(), lost.clone(), CancellationToken::new());
        let writes = std::cell::Cell::new(0);
        let attempt = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                writes.set(writes.get() + 1);
                if writes.get() == 10 {
                    lost.cancel();
                }
            }
        };
        let outcome = in_order::<()>(&interrupt, attempt).await; // a copy that does not mind being asked
        assert!(matches!(outcome, Err(NotDone::Interrupted(Why::LeaseLost))));
        // another node may begin 20 s after the loss
        assert!((10..200).contains(&writes.get()), "{} writes", writes.get());
    }
}
