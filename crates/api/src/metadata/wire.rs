//! The messages as they lie on the wire. `required` fields are written even when empty, as the original's generator
//! does; maps are lists of entries because an empty value in an entry must be written too.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct PersistentVolumeClaim {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub(super) spec: Spec,
    #[prost(message, required, tag = "3")]
    pub(super) status: Status,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ObjectMeta {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(string, required, tag = "2")]
    pub(super) generate_name: String,
    #[prost(string, required, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, required, tag = "4")]
    pub(super) self_link: String,
    #[prost(string, required, tag = "5")]
    pub(super) uid: String,
    #[prost(string, required, tag = "6")]
    pub(super) resource_version: String,
    #[prost(int64, required, tag = "7")]
    pub(super) generation: i64,
    #[prost(message, required, tag = "8")]
    pub(super) creation_timestamp: Time,
    #[prost(message, optional, tag = "9")]
    pub(super) deletion_timestamp: Option<Time>,
    #[prost(int64, optional, tag = "10")]
    pub(super) deletion_grace_period_seconds: Option<i64>,
    #[prost(message, repeated, tag = "11")]
    pub(super) labels: Vec<TextEntry>,
    #[prost(message, repeated, tag = "12")]
    pub(super) annotations: Vec<TextEntry>,
    #[prost(message, repeated, tag = "13")]
    pub(super) owner_references: Vec<OwnerReference>,
    #[prost(string, repeated, tag = "14")]
    pub(super) finalizers: Vec<String>,
    #[prost(message, repeated, tag = "17")]
    pub(super) managed_fields: Vec<ManagedFieldsEntry>,
}

/// Nothing inside when unset; otherwise both fields, nanos always 0.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Time {
    #[prost(int64, optional, tag = "1")]
    pub(super) seconds: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(super) nanos: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TextEntry {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, required, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QuantityEntry {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(message, required, tag = "2")]
    pub(super) value: Quantity,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Quantity {
    #[prost(string, required, tag = "1")]
    pub(super) text: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OwnerReference {
    #[prost(string, required, tag = "1")]
    pub(super) kind: String,
    #[prost(string, required, tag = "3")]
    pub(super) name: String,
    #[prost(string, required, tag = "4")]
    pub(super) uid: String,
    #[prost(string, required, tag = "5")]
    pub(super) api_version: String,
    #[prost(bool, optional, tag = "6")]
    pub(super) controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(super) block_owner_deletion: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ManagedFieldsEntry {
    #[prost(string, required, tag = "1")]
    pub(super) manager: String,
    #[prost(string, required, tag = "2")]
    pub(super) operation: String,
    #[prost(string, required, tag = "3")]
    pub(super) api_version: String,
    #[prost(message, optional, tag = "4")]
    pub(super) time: Option<Time>,
    #[prost(string, required, tag = "6")]
    pub(super) fields_type: String,
    #[prost(message, optional, tag = "7")]
    pub(super) fields_v1: Option<FieldsV1>,
    #[prost(string, required, tag = "8")]
    pub(super) subresource: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FieldsV1 {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) raw: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Spec {
    #[prost(string, repeated, tag = "1")]
    pub(super) access_modes: Vec<String>,
    #[prost(message, required, tag = "2")]
    pub(super) resources: Resources,
    #[prost(string, required, tag = "3")]
    pub(super) volume_name: String,
    #[prost(message, optional, tag = "4")]
    pub(super) selector: Option<LabelSelector>,
    #[prost(string, optional, tag = "5")]
    pub(super) storage_class_name: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub(super) volume_mode: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(super) data_source: Option<Reference>,
    #[prost(message, optional, tag = "8")]
    pub(super) data_source_ref: Option<NamespacedReference>,
    #[prost(string, optional, tag = "9")]
    pub(super) volume_attributes_class_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resources {
    #[prost(message, repeated, tag = "1")]
    pub(super) limits: Vec<QuantityEntry>,
    #[prost(message, repeated, tag = "2")]
    pub(super) requests: Vec<QuantityEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelSelector {
    #[prost(message, repeated, tag = "1")]
    pub(super) match_labels: Vec<TextEntry>,
    #[prost(message, repeated, tag = "2")]
    pub(super) match_expressions: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Requirement {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, required, tag = "2")]
    pub(super) operator: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Reference {
    #[prost(string, optional, tag = "1")]
    pub(super) api_group: Option<String>,
    #[prost(string, required, tag = "2")]
    pub(super) kind: String,
    #[prost(string, required, tag = "3")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamespacedReference {
    #[prost(string, optional, tag = "1")]
    pub(super) api_group: Option<String>,
    #[prost(string, required, tag = "2")]
    pub(super) kind: String,
    #[prost(string, required, tag = "3")]
    pub(super) name: String,
    #[prost(string, optional, tag = "4")]
    pub(super) namespace: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, required, tag = "1")]
    pub(super) phase: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) access_modes: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) capacity: Vec<QuantityEntry>,
    #[prost(message, repeated, tag = "4")]
    pub(super) conditions: Vec<Condition>,
    #[prost(message, repeated, tag = "5")]
    pub(super) allocated_resources: Vec<QuantityEntry>,
    #[prost(message, repeated, tag = "7")]
    pub(super) allocated_resource_statuses: Vec<TextEntry>,
    #[prost(string, optional, tag = "8")]
    pub(super) current_volume_attributes_class_name: Option<String>,
    #[prost(message, optional, tag = "9")]
    pub(super) modify_volume_status: Option<ModifyVolumeStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Condition {
    #[prost(string, required, tag = "1")]
    pub(super) r#type: String,
    #[prost(string, required, tag = "2")]
    pub(super) status: String,
    #[prost(message, required, tag = "3")]
    pub(super) last_probe_time: Time,
    #[prost(message, required, tag = "4")]
    pub(super) last_transition_time: Time,
    #[prost(string, required, tag = "5")]
    pub(super) reason: String,
    #[prost(string, required, tag = "6")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModifyVolumeStatus {
    #[prost(string, optional, tag = "1")]
    pub(super) target_volume_attributes_class_name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) status: Option<String>,
}
