//! What every transfer of this process shares.

use std::sync::Arc;

use connections::{Repositories, Vcenters};
use kube::Client;
use operator::{Leases, Pace, Publisher};
use tokio_util::sync::CancellationToken;

use crate::at_work::AtWork;
use crate::disks::Disks;
use crate::pacing::Pacing;

/// Shared by all transfers of one kind.
pub(crate) struct Context {
    /// The API server.
    pub(crate) client: Client,
    /// The Velero namespace.
    pub(crate) namespace: String,
    /// This node.
    pub(crate) node: String,
    /// Statuses and events.
    pub(crate) publisher: Publisher,
    /// Who works on what, across nodes.
    pub(crate) leases: Leases,
    /// Errors in a row, per object.
    pub(crate) pace: Pace,
    /// vCenter.
    pub(crate) vcenters: Vcenters,
    /// The bucket.
    pub(crate) repositories: Repositories,
    /// How fast they may be.
    pub(crate) pacing: Arc<Pacing>,
    /// Opens disks.
    pub(crate) disks: Disks,
    /// What this process is at work on.
    pub(crate) at_work: AtWork,
    /// The process ends.
    pub(crate) shutdown: CancellationToken,
}
