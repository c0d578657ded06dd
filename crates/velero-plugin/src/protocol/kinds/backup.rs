//! `BackupItemActionV2`.

use async_trait::async_trait;
use serde_json::Value;

use super::{ActionError, ItemReference, Progress, Selector};
use crate::Item;

/// What a backup action made of an item.
#[derive(Debug, Clone)]
pub struct BackedUp {
    /// The item as it is to be in the backup.
    pub item: Item,
    /// What else belongs into the backup, at once and before the item.
    pub additional_items: Vec<ItemReference>,
    /// The operation that goes on. Never while the backup is finalizing (P-12).
    pub operation: Option<String>,
    /// What is read again when all operations have ended. Never a claim, a volume or a pod (V-02).
    pub post_operation_items: Vec<ItemReference>,
}

impl BackedUp {
    /// The item, and nothing else.
    pub fn only(item: Item) -> Self {
        Self { item, additional_items: Vec::new(), operation: None, post_operation_items: Vec::new() }
    }
}

/// An action on items as they are backed up.
///
/// `execute` and the later `progress` and `cancel` run in different processes, maybe hours apart: an action keeps nothing
/// but what is in the cluster (P-03). Every network call has a deadline of its own; nobody else sets one.
#[async_trait]
pub trait BackupItemAction: Send + Sync {
    /// Which items it wants; asked once at the beginning of every backup. An error fails the whole backup.
    async fn selector(&self) -> Result<Selector, ActionError>;

    /// Does its part for one item. `backup` is the Backup as JSON, any field of which may be absent or null. An error
    /// loses the item; a line of the log at level error keeps it, and both make the backup PartiallyFailed.
    async fn execute(&self, item: Item, backup: &Value) -> Result<BackedUp, ActionError>;

    /// Where the operation is. An error is told as "still running" with the error in the description, since Velero gives
    /// up for good on a failed question (P-15); an operation that failed is [`super::Outcome::Failed`].
    async fn progress(&self, operation: &str, backup: &Value) -> Result<Progress, ActionError>;

    /// Stops the operation; Velero does not wait for it, nor look at the answer.
    async fn cancel(&self, operation: &str, backup: &Value) -> Result<(), ActionError>;
}
