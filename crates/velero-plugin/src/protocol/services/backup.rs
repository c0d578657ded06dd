//! `v2.BackupItemAction`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Actions;
use crate::protocol::call::{Call, answer};
use crate::protocol::kinds::{BackedUp, BackupItemAction as Kind};
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
            post_operation_items: done.post_operation_items.into_iter().map(Into::into).collect(),
        }
    }
}
