//! What tells an Upload from a Download; everything else about a transfer is the same for both.

use api::Timestamp;
use lifecycle::transfer::{Transfer, Work};
use operator::Reported;

use crate::at_work::Place;
use crate::attempt::Claimed;
use crate::context::Context;

/// A kind of transfer.
pub(crate) trait Kind: Reported + Send + Sync + 'static {
    /// The lease of the transfer with this name.
    fn lease(name: &str) -> String;

    /// What the decision about it needs to know.
    fn transfer(&self) -> Transfer;

    /// Whether it has ended for good.
    fn has_ended(&self) -> bool;

    /// Whether there is anything to do here for such work.
    fn knows(work: Work) -> bool;

    /// What its status says once a node has the lease and copies.
    fn started(status: &Self::Status, node: &str, now: Timestamp) -> Self::Status;

    /// What log lines of the work begin with.
    fn span(&self) -> tracing::Span;

    /// Does the work and gives the lease back; what went wrong is said in the object.
    fn perform(ctx: &Context, claimed: Claimed<Self>, place: &Place) -> impl Future<Output = ()> + Send;
}
