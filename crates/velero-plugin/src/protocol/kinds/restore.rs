//! `RestoreItemActionV2`.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::{ActionError, ItemReference, Progress, Selector};
use crate::Item;

/// Whether the item waits for those that it brought along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitForItems {
    /// It does not.
    #[default]
    No,
    /// Until [`RestoreItemAction::are_additional_items_ready`], at most as long as the server's resource timeout.
    Ready,
    /// The same, at most this long.
    ReadyWithin(Duration),
}

/// What a restore action made of an item.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The item as it is to be created.
    pub item: Item,
    /// Do not create it, ask no further action about it, restore none of its additional items.
    pub skip: bool,
    /// What of the backup has to be there before it.
    pub additional_items: Vec<ItemReference>,
    /// Whether it waits for those.
    pub wait: WaitForItems,
    /// The operation that goes on; recorded also when the item is skipped.
    pub operation: Option<String>,
}

impl Restored {
    /// The item, and nothing else.
    pub fn only(item: Item) -> Self {
        Self { item, skip: false, additional_items: Vec::new(), wait: WaitForItems::No, operation: None }
    }

    /// The item is not created.
    pub fn skipped(item: Item) -> Self {
        Self { skip: true, ..Self::only(item) }
    }
}

/// An action on items as they are restored. What [`super::BackupItemAction`] says of processes and deadlines holds.
#[async_trait]
pub trait RestoreItemAction: Send + Sync {
    /// Which items it wants; asked once at the beginning of every restore. An error fails the whole restore.
    async fn selector(&self) -> Result<Selector, ActionError>;

    /// Does its part for one item. Velero and earlier actions have taken things out of `item`, so identity and
    /// annotations are read from `from_backup` and changes go to `item` (P-13). The namespace is that of the backup. An
    /// error keeps the item from being restored.
    async fn execute(&self, item: Item, from_backup: &Item, restore: &Value) -> Result<Restored, ActionError>;

    /// Where the operation is; as in [`super::BackupItemAction::progress`].
    async fn progress(&self, operation: &str, restore: &Value) -> Result<Progress, ActionError> {
        let _ = restore;
        Err(ActionError::new(format!("this action has no operations, so none with the id `{operation}`")))
    }

    /// Stops the operation; Velero does not wait for it, nor look at the answer.
    async fn cancel(&self, operation: &str, restore: &Value) -> Result<(), ActionError> {
        let _ = restore;
        Err(ActionError::new(format!("this action has no operations, so none with the id `{operation}`")))
    }

    /// Whether the items that `execute` brought along are ready; asked every second.
    async fn are_additional_items_ready(&self, items: &[ItemReference], restore: &Value) -> Result<bool, ActionError> {
        let _ = (items, restore);
        Ok(true)
    }
}
