//! `v2.BackupItemAction`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Actions;
use crate::protocol::call::{Call, answer};
use crate::protocol::kinds::{BackedUp, BackupItemAction as Kind, ItemReference};
use crate::protocol::registry::Action;
use crate::protocol::wire::v2::backup_item_action_server::BackupItemAction;
use crate::protocol::wire::v2::{
    BackupItemActionAppliesToRequest, BackupItemActionAppliesToResponse, BackupItemActionCancelRequest,
    BackupItemActionProgressRequest, BackupItemActionProgressResponse, ExecuteRequest, ExecuteResponse,
};

impl Actions {
    fn backup(&self, method: &'static str, name: String) -> Result<(Call, Arc<dyn Kind>), Status> {
        let call = Call::new("BackupItemActionV2", method, name);
        let pick = |action: &Action| match action {
            Action::Backup(action) => Some(action.clone()),
            Action::Restore(_) | Action::Delete(_) | Action::VolumeSnapshotter(_) => None,
        };
        let action = call.action(&self.0, pick)?;
        Ok((call, action))
    }
}

#[tonic::async_trait]
impl BackupItemAction for Actions {
    async fn applies_to(
        &self,
        request: Request<BackupItemActionAppliesToRequest>,
    ) -> Result<Response<BackupItemActionAppliesToResponse>, Status> {
        let (call, action) = self.backup("AppliesTo", request.into_inner().plugin)?;
        let selector = call.ask(async move { action.selector().await }).await?;
        answer(BackupItemActionAppliesToResponse { resource_selector: Some(selector.into()) })
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.backup("Execute", request.plugin)?;
        let (item, backup) = (call.item(&request.item)?, call.run(&request.backup)?);
        drop(request.item); // the item is of many MiB at times
        answer(call.work(async move { action.execute(item, &backup).await }).await?)
    }

    async fn progress(
        &self,
        request: Request<BackupItemActionProgressRequest>,
    ) -> Result<Response<BackupItemActionProgressResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.backup("Progress", request.plugin)?;
        let (operation, backup) = (call.operation(request.operation_id)?, call.run(&request.backup)?);
        let progress = call.progress(async move { action.progress(&operation, &backup).await }).await?;
        answer(BackupItemActionProgressResponse { progress: Some(progress) })
    }

    async fn cancel(&self, request: Request<BackupItemActionCancelRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let (call, action) = self.backup("Cancel", request.plugin)?;
        let (operation, backup) = (call.operation(request.operation_id)?, call.run(&request.backup)?);
        answer(call.ask(async move { action.cancel(&operation, &backup).await }).await?)
    }
}

impl From<BackedUp> for ExecuteResponse {
    fn from(done: BackedUp) -> Self {
        Self {
            item: done.item.into_bytes(),
            additional_items: done.additional_items.into_iter().map(Into::into).collect(),
            operation_id: done.operation.unwrap_or_default(),
            post_operation_items: done
                .post_operation_items
                .into_iter()
                .filter(can_be_read_again)
                .map(Into::into)
                .collect(),
        }
    }
}

/// Velero's finalizer panics on a claim, a volume or a pod, tries again for ever, and the backup never ends (V-02).
fn can_be_read_again(item: &ItemReference) -> bool {
    let deadly = ["persistentvolumeclaims", "persistentvolumes", "pods"];
    !(item.group.is_empty() && deadly.contains(&item.resource.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::Item;

    /// V-02
    #[test]
    fn v02_no_claim_volume_or_pod_is_read_again_at_the_end_of_a_backup() {
        let named = |group: &str, resource: &str| ItemReference {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: "shop".to_owned(),
            name: "data-0".to_owned(),
        };
        let item = Item::parse(br#"{"kind":"PersistentVolumeClaim","apiVersion":"v1"}"#).unwrap();
        let asked = ["persistentvolumeclaims", "persistentvolumes", "pods", "configmaps"].map(|kind| named("", kind));
        let snapshot = named("backupdriver.cnsdp.vmware.com", "snapshots");
        let post_operation_items = asked.into_iter().chain([snapshot]).collect();
        let answer = ExecuteResponse::from(BackedUp { post_operation_items, ..BackedUp::only(item) });
        let kept: Vec<_> = answer.post_operation_items.iter().map(|item| item.resource.as_str()).collect();
        assert_eq!(kept, ["configmaps", "snapshots"]);
    }
}
