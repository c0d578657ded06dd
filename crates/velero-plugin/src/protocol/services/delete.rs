//! `generated.DeleteItemAction`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Actions;
use crate::protocol::call::{Call, answer};
use crate::protocol::kinds::DeleteItemAction as Kind;
use crate::protocol::registry::Action;
use crate::protocol::wire::generated::delete_item_action_server::DeleteItemAction;
use crate::protocol::wire::generated::{
    DeleteItemActionAppliesToRequest, DeleteItemActionAppliesToResponse, DeleteItemActionExecuteRequest, Empty,
};

impl Actions {
    fn delete(&self, method: &'static str, name: String) -> Result<(Call, Arc<dyn Kind>), Status> {
        let call = Call::new("DeleteItemAction", method, name);
        let pick = |action: &Action| match action {
            Action::Delete(action) => Some(action.clone()),
            Action::Backup(_) | Action::Restore(_) | Action::VolumeSnapshotter(_) => None,
        };
        let action = call.action(&self.0, pick)?;
        Ok((call, action))
    }
}

#[tonic::async_trait]
impl DeleteItemAction for Actions {
    async fn applies_to(
        &self,
        request: Request<DeleteItemActionAppliesToRequest>,
    ) -> Result<Response<DeleteItemActionAppliesToResponse>, Status> {
        let (call, action) = self.delete("AppliesTo", request.into_inner().plugin)?;
        let selector = call.ask(async move { action.selector().await }).await?;
        answer(DeleteItemActionAppliesToResponse { resource_selector: Some(selector.into()) })
    }

    async fn execute(&self, request: Request<DeleteItemActionExecuteRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (call, action) = self.delete("Execute", request.plugin)?;
        let (item, backup) = (call.item(&request.item)?, call.run(&request.backup)?);
        call.work(async move { action.execute(item, &backup).await }).await?;
        answer(Empty {})
    }
}
