//! `v2.RestoreItemAction`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Actions;
use crate::protocol::call::{Call, answer};
use crate::protocol::convert::duration;
use crate::protocol::kinds::{ItemReference, RestoreItemAction as Kind, Restored, WaitForItems};
use crate::protocol::registry::Action;
use crate::protocol::wire::v2::restore_item_action_server::RestoreItemAction;
use crate::protocol::wire::v2::{
    RestoreItemActionAppliesToRequest, RestoreItemActionAppliesToResponse, RestoreItemActionCancelRequest,
    RestoreItemActionExecuteRequest, RestoreItemActionExecuteResponse, RestoreItemActionItemsReadyRequest,
    RestoreItemActionItemsReadyResponse, RestoreItemActionProgressRequest, RestoreItemActionProgressResponse,
};

impl Actions {
    fn restore(&self, method: &'static str, name: String) -> Result<(Call, Arc<dyn Kind>), Status> {
        let call = Call::new("RestoreItemActionV2", method, name);
        let pick = |action: &Action| match action {
            Action::Restore(action) => Some(action.clone()),
            Action::Backup(_) | Action::Delete(_) | Action::VolumeSnapshotter(_) => None,
        };
        let action = call.action(&self.0, pick)?;
        Ok((call, action))
    }
}

#[tonic::async_trait]
impl RestoreItemAction for Actions {
    async fn applies_to(
        &self,
        request: Request<RestoreItemActionAppliesToRequest>,
    ) -> Result<Response<RestoreItemActionAppliesToResponse>, Status> {
        let (call, action) = self.restore("AppliesTo", request.into_inner().plugin)?;
        let selector = call.ask(async move { action.selector().await }).await?;
        answer(RestoreItemActionAppliesToResponse { resource_selector: Some(selector.into()) })
    }

    async fn execute(
        &self,
        request: Request<RestoreItemActionExecuteRequest>,
    ) -> Result<Response<RestoreItemActionExecuteResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.restore("Execute", request.plugin)?;
        let from_backup = call.item(&request.item_from_backup)?;
        let (item, restore) = (call.item(&request.item)?, call.run(&request.restore)?);
        answer(call.work(async move { action.execute(item, &from_backup, &restore).await }).await?)
    }

    async fn progress(
        &self,
        request: Request<RestoreItemActionProgressRequest>,
    ) -> Result<Response<RestoreItemActionProgressResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.restore("Progress", request.plugin)?;
        let (operation, restore) = (call.operation(request.operation_id)?, call.run(&request.restore)?);
        let progress = call.progress(async move { action.progress(&operation, &restore).await }).await?;
        answer(RestoreItemActionProgressResponse { progress: Some(progress) })
    }

    async fn cancel(&self, request: Request<RestoreItemActionCancelRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let (call, action) = self.restore("Cancel", request.plugin)?;
        let (operation, restore) = (call.operation(request.operation_id)?, call.run(&request.restore)?);
        answer(call.ask(async move { action.cancel(&operation, &restore).await }).await?)
    }

    async fn are_additional_items_ready(
        &self,
        request: Request<RestoreItemActionItemsReadyRequest>,
    ) -> Result<Response<RestoreItemActionItemsReadyResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.restore("AreAdditionalItemsReady", request.plugin)?;
        let restore = call.run(&request.restore)?;
        let items: Vec<ItemReference> = request.additional_items.into_iter().map(Into::into).collect();
        let ready = call.ask(async move { action.are_additional_items_ready(&items, &restore).await }).await?;
        answer(RestoreItemActionItemsReadyResponse { ready })
    }
}

impl From<Restored> for RestoreItemActionExecuteResponse {
    fn from(done: Restored) -> Self {
        let within = match done.wait {
            WaitForItems::ReadyWithin(longest) => Some(duration(longest)),
            WaitForItems::No | WaitForItems::Ready => None,
        };
        Self {
            item: done.item.into_bytes(), // also when it is skipped: the server decodes it all the same (P-10)
            additional_items: done.additional_items.into_iter().map(Into::into).collect(),
            skip_restore: done.skip,
            operation_id: done.operation.unwrap_or_default(),
            wait_for_additional_items: done.wait != WaitForItems::No,
            additional_items_ready_timeout: within,
        }
    }
}
