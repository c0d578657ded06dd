//! `DeleteItemAction`.

use async_trait::async_trait;
use serde_json::Value;

use super::{ActionError, Selector};
use crate::Item;

/// An action on the items of a backup that is being deleted, in no particular order.
///
/// The duty has to be in the cluster when `execute` returns: Velero logs an error and deletes the backup all the same
/// (P-14). What [`super::BackupItemAction`] says of processes and deadlines holds.
#[async_trait]
pub trait DeleteItemAction: Send + Sync {
    /// Which items it wants.
    async fn selector(&self) -> Result<Selector, ActionError>;

    /// Sees to it that what belongs to the item of this backup goes. `item` is what the backup holds.
    async fn execute(&self, item: Item, backup: &Value) -> Result<(), ActionError>;
}
