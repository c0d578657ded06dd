//! `generated.VolumeSnapshotter`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Actions;
use crate::protocol::call::{Call, answer};
use crate::protocol::kinds::{VolumeInfo, VolumeSnapshotter as Kind};
use crate::protocol::registry::Action;
use crate::protocol::wire::generated::volume_snapshotter_server::VolumeSnapshotter;
use crate::protocol::wire::generated::{
    CreateSnapshotRequest, CreateSnapshotResponse, CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest,
    Empty, GetVolumeIdRequest, GetVolumeIdResponse, GetVolumeInfoRequest, GetVolumeInfoResponse, SetVolumeIdRequest,
    SetVolumeIdResponse, VolumeSnapshotterInitRequest,
};

impl Actions {
    fn snapshotter(&self, method: &'static str, name: String) -> Result<(Call, Arc<dyn Kind>), Status> {
        let call = Call::new("VolumeSnapshotter", method, name);
        let pick = |action: &Action| match action {
            Action::VolumeSnapshotter(action) => Some(action.clone()),
            Action::Backup(_) | Action::Restore(_) | Action::Delete(_) => None,
        };
        let action = call.action(&self.0, pick)?;
        Ok((call, action))
    }
}

#[tonic::async_trait]
impl VolumeSnapshotter for Actions {
    async fn init(&self, request: Request<VolumeSnapshotterInitRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("Init", request.plugin)?;
        call.ask(async move { action.init(&request.config).await }).await?;
        answer(Empty {})
    }

    async fn create_volume_from_snapshot(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("CreateVolumeFromSnapshot", request.plugin)?;
        let info = VolumeInfo { volume_type: request.volume_type, iops: Some(request.iops).filter(|iops| *iops != 0) };
        let (snapshot, zone) = (request.snapshot_id, request.volume_az);
        let volume_id = call.work(async move { action.create_volume(&snapshot, &zone, &info).await }).await?;
        answer(CreateVolumeResponse { volume_id })
    }

    async fn get_volume_info(
        &self,
        request: Request<GetVolumeInfoRequest>,
    ) -> Result<Response<GetVolumeInfoResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("GetVolumeInfo", request.plugin)?;
        let info = call.ask(async move { action.volume_info(&request.volume_id, &request.volume_az).await }).await?;
        answer(GetVolumeInfoResponse { volume_type: info.volume_type, iops: info.iops.unwrap_or_default() })
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("CreateSnapshot", request.plugin)?;
        let (volume, zone, tags) = (request.volume_id, request.volume_az, request.tags);
        let snapshot_id = call.work(async move { action.create_snapshot(&volume, &zone, &tags).await }).await?;
        answer(CreateSnapshotResponse { snapshot_id })
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("DeleteSnapshot", request.plugin)?;
        call.work(async move { action.delete_snapshot(&request.snapshot_id).await }).await?;
        answer(Empty {})
    }

    async fn get_volume_id(
        &self,
        request: Request<GetVolumeIdRequest>,
    ) -> Result<Response<GetVolumeIdResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("GetVolumeID", request.plugin)?;
        let volume = call.item(&request.persistent_volume)?;
        let id = call.ask(async move { action.volume_id(&volume).await }).await?;
        answer(GetVolumeIdResponse { volume_id: id.unwrap_or_default() })
    }

    async fn set_volume_id(
        &self,
        request: Request<SetVolumeIdRequest>,
    ) -> Result<Response<SetVolumeIdResponse>, Status> {
        let request = request.into_inner();
        let (call, action) = self.snapshotter("SetVolumeID", request.plugin)?;
        let volume = call.item(&request.persistent_volume)?;
        let volume = call.ask(async move { action.set_volume_id(volume, &request.volume_id).await }).await?;
        answer(SetVolumeIdResponse { persistent_volume: volume.into_bytes() })
    }
}
