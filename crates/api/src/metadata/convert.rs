//! Between the messages on the wire and the claim as Kubernetes' types know it. Empty text on the wire is absent text
//! there, except where the wire itself tells the two apart.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::jiff::Timestamp;

use super::{Error, wire};

impl From<&core::PersistentVolumeClaim> for wire::PersistentVolumeClaim {
    fn from(claim: &core::PersistentVolumeClaim) -> Self {
        Self {
            metadata: (&claim.metadata).into(),
            spec: claim.spec.as_ref().map(Into::into).unwrap_or_default(),
            status: claim.status.as_ref().map(Into::into).unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::PersistentVolumeClaim> for core::PersistentVolumeClaim {
    type Error = Error;

    fn try_from(claim: wire::PersistentVolumeClaim) -> Result<Self, Error> {
        Ok(Self {
            metadata: claim.metadata.try_into()?,
            spec: Some(claim.spec.into()),
            status: Some(claim.status.try_into()?),
        })
    }
}

impl From<&meta::ObjectMeta> for wire::ObjectMeta {
    fn from(meta: &meta::ObjectMeta) -> Self {
        Self {
            name: text(&meta.name),
            generate_name: text(&meta.generate_name),
            namespace: text(&meta.namespace),
            self_link: text(&meta.self_link),
            uid: text(&meta.uid),
            resource_version: text(&meta.resource_version),
            generation: meta.generation.unwrap_or_default(),
            creation_timestamp: meta.creation_timestamp.as_ref().map(Into::into).unwrap_or_default(),
            deletion_timestamp: meta.deletion_timestamp.as_ref().map(Into::into),
            deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
            labels: text_entries(meta.labels.as_ref()),
            annotations: text_entries(meta.annotations.as_ref()),
            owner_references: each(meta.owner_references.as_ref()),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            managed_fields: each(meta.managed_fields.as_ref()),
        }
    }
}

impl TryFrom<wire::ObjectMeta> for meta::ObjectMeta {
    type Error = Error;

    fn try_from(meta: wire::ObjectMeta) -> Result<Self, Error> {
        let managed: Result<Vec<_>, Error> = meta.managed_fields.into_iter().map(TryInto::try_into).collect();
        Ok(Self {
            name: present(meta.name),
            generate_name: present(meta.generate_name),
            namespace: present(meta.namespace),
            self_link: present(meta.self_link),
            uid: present(meta.uid),
            resource_version: present(meta.resource_version),
            generation: Some(meta.generation).filter(|g| *g != 0),
            creation_timestamp: time(meta.creation_timestamp)?,
            deletion_timestamp: meta.deletion_timestamp.map(time).transpose()?.flatten(),
            deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
            labels: text_map(meta.labels),
            annotations: text_map(meta.annotations),
            owner_references: some(meta.owner_references.into_iter().map(Into::into).collect()),
            finalizers: some(meta.finalizers),
            managed_fields: some(managed?),
        })
    }
}

impl From<&meta::OwnerReference> for wire::OwnerReference {
    fn from(owner: &meta::OwnerReference) -> Self {
        Self {
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            api_version: owner.api_version.clone(),
            controller: owner.controller,
            block_owner_deletion: owner.block_owner_deletion,
        }
    }
}

impl From<wire::OwnerReference> for meta::OwnerReference {
    fn from(owner: wire::OwnerReference) -> Self {
        Self {
            api_version: owner.api_version,
            block_owner_deletion: owner.block_owner_deletion,
            controller: owner.controller,
            kind: owner.kind,
            name: owner.name,
            uid: owner.uid,
        }
    }
}

impl From<&meta::ManagedFieldsEntry> for wire::ManagedFieldsEntry {
    fn from(entry: &meta::ManagedFieldsEntry) -> Self {
        Self {
            manager: text(&entry.manager),
            operation: text(&entry.operation),
            api_version: text(&entry.api_version),
            time: entry.time.as_ref().map(Into::into),
            fields_type: text(&entry.fields_type),
            fields_v1: entry.fields_v1.as_ref().map(|f| wire::FieldsV1 { raw: Some(f.0.to_string().into_bytes()) }),
            subresource: text(&entry.subresource),
        }
    }
}

impl TryFrom<wire::ManagedFieldsEntry> for meta::ManagedFieldsEntry {
    type Error = Error;

    fn try_from(entry: wire::ManagedFieldsEntry) -> Result<Self, Error> {
        // who set which field is of no use in a restore, so unreadable JSON here loses nothing
        let fields = entry.fields_v1.and_then(|f| f.raw).and_then(|raw| serde_json::from_slice(&raw).ok());
        Ok(Self {
            api_version: present(entry.api_version),
            fields_type: present(entry.fields_type),
            fields_v1: fields.map(meta::FieldsV1),
            manager: present(entry.manager),
            operation: present(entry.operation),
            subresource: present(entry.subresource),
            time: entry.time.map(time).transpose()?.flatten(),
        })
    }
}

impl From<&core::PersistentVolumeClaimSpec> for wire::Spec {
    fn from(spec: &core::PersistentVolumeClaimSpec) -> Self {
        Self {
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            resources: spec.resources.as_ref().map(Into::into).unwrap_or_default(),
            volume_name: text(&spec.volume_name),
            selector: spec.selector.as_ref().map(Into::into),
            storage_class_name: spec.storage_class_name.clone(),
            volume_mode: spec.volume_mode.clone(),
            data_source: spec.data_source.as_ref().map(|r| wire::Reference {
                api_group: r.api_group.clone(),
                kind: r.kind.clone(),
                name: r.name.clone(),
            }),
            data_source_ref: spec.data_source_ref.as_ref().map(|r| wire::NamespacedReference {
                api_group: r.api_group.clone(),
                kind: r.kind.clone(),
                name: r.name.clone(),
                namespace: r.namespace.clone(),
            }),
            volume_attributes_class_name: spec.volume_attributes_class_name.clone(),
        }
    }
}

impl From<wire::Spec> for core::PersistentVolumeClaimSpec {
    fn from(spec: wire::Spec) -> Self {
        Self {
            access_modes: some(spec.access_modes),
            data_source: spec.data_source.map(|r| core::TypedLocalObjectReference {
                api_group: r.api_group,
                kind: r.kind,
                name: r.name,
            }),
            data_source_ref: spec.data_source_ref.map(|r| core::TypedObjectReference {
                api_group: r.api_group,
                kind: r.kind,
                name: r.name,
                namespace: r.namespace,
            }),
            resources: Some(core::VolumeResourceRequirements {
                limits: quantity_map(spec.resources.limits),
                requests: quantity_map(spec.resources.requests),
            }),
            selector: spec.selector.map(Into::into),
            storage_class_name: spec.storage_class_name,
            volume_attributes_class_name: spec.volume_attributes_class_name,
            volume_mode: spec.volume_mode,
            volume_name: present(spec.volume_name),
        }
    }
}

impl From<&core::VolumeResourceRequirements> for wire::Resources {
    fn from(resources: &core::VolumeResourceRequirements) -> Self {
        Self {
            limits: quantity_entries(resources.limits.as_ref()),
            requests: quantity_entries(resources.requests.as_ref()),
        }
    }
}

impl From<&meta::LabelSelector> for wire::LabelSelector {
    fn from(selector: &meta::LabelSelector) -> Self {
        let requirement = |r: &meta::LabelSelectorRequirement| wire::Requirement {
            key: r.key.clone(),
            operator: r.operator.clone(),
            values: r.values.clone().unwrap_or_default(),
        };
        Self {
            match_labels: text_entries(selector.match_labels.as_ref()),
            match_expressions: selector.match_expressions.iter().flatten().map(requirement).collect(),
        }
    }
}

impl From<wire::LabelSelector> for meta::LabelSelector {
    fn from(selector: wire::LabelSelector) -> Self {
        let requirement = |r: wire::Requirement| meta::LabelSelectorRequirement {
            key: r.key,
            operator: r.operator,
            values: some(r.values),
        };
        Self {
            match_expressions: some(selector.match_expressions.into_iter().map(requirement).collect()),
            match_labels: text_map(selector.match_labels),
        }
    }
}

impl From<&core::PersistentVolumeClaimStatus> for wire::Status {
    fn from(status: &core::PersistentVolumeClaimStatus) -> Self {
        Self {
            phase: text(&status.phase),
            access_modes: status.access_modes.clone().unwrap_or_default(),
            capacity: quantity_entries(status.capacity.as_ref()),
            conditions: each(status.conditions.as_ref()),
            allocated_resources: quantity_entries(status.allocated_resources.as_ref()),
            allocated_resource_statuses: text_entries(status.allocated_resource_statuses.as_ref()),
            current_volume_attributes_class_name: status.current_volume_attributes_class_name.clone(),
            modify_volume_status: status.modify_volume_status.as_ref().map(|m| wire::ModifyVolumeStatus {
                target_volume_attributes_class_name: m.target_volume_attributes_class_name.clone(),
                status: Some(m.status.clone()),
            }),
        }
    }
}

impl TryFrom<wire::Status> for core::PersistentVolumeClaimStatus {
    type Error = Error;

    fn try_from(status: wire::Status) -> Result<Self, Error> {
        let conditions: Result<Vec<_>, Error> = status.conditions.into_iter().map(TryInto::try_into).collect();
        Ok(Self {
            access_modes: some(status.access_modes),
            allocated_resource_statuses: text_map(status.allocated_resource_statuses),
            allocated_resources: quantity_map(status.allocated_resources),
            capacity: quantity_map(status.capacity),
            conditions: some(conditions?),
            current_volume_attributes_class_name: status.current_volume_attributes_class_name,
            modify_volume_status: status.modify_volume_status.map(|m| core::ModifyVolumeStatus {
                status: m.status.unwrap_or_default(),
                target_volume_attributes_class_name: m.target_volume_attributes_class_name,
            }),
            phase: present(status.phase),
        })
    }
}

impl From<&core::PersistentVolumeClaimCondition> for wire::Condition {
    fn from(condition: &core::PersistentVolumeClaimCondition) -> Self {
        Self {
            r#type: condition.type_.clone(),
            status: condition.status.clone(),
            last_probe_time: condition.last_probe_time.as_ref().map(Into::into).unwrap_or_default(),
            last_transition_time: condition.last_transition_time.as_ref().map(Into::into).unwrap_or_default(),
            reason: text(&condition.reason),
            message: text(&condition.message),
        }
    }
}

impl TryFrom<wire::Condition> for core::PersistentVolumeClaimCondition {
    type Error = Error;

    fn try_from(condition: wire::Condition) -> Result<Self, Error> {
        Ok(Self {
            last_probe_time: time(condition.last_probe_time)?,
            last_transition_time: time(condition.last_transition_time)?,
            message: present(condition.message),
            reason: present(condition.reason),
            status: condition.status,
            type_: condition.r#type,
        })
    }
}

impl From<&meta::Time> for wire::Time {
    fn from(time: &meta::Time) -> Self {
        Self { seconds: Some(time.0.as_second()), nanos: Some(0) }
    }
}

fn time(time: wire::Time) -> Result<Option<meta::Time>, Error> {
    let Some(seconds) = time.seconds else { return Ok(None) };
    Ok(Some(meta::Time(Timestamp::from_second(seconds).map_err(|_| Error::Time { seconds })?)))
}

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

fn present(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|l| !l.is_empty())
}

fn each<'v, T, U: From<&'v T>>(list: Option<&'v Vec<T>>) -> Vec<U> {
    list.into_iter().flatten().map(U::from).collect()
}

fn text_entries(map: Option<&BTreeMap<String, String>>) -> Vec<wire::TextEntry> {
    let entry = |(key, value): (&String, &String)| wire::TextEntry { key: key.clone(), value: value.clone() };
    map.into_iter().flatten().map(entry).collect()
}

fn text_map(entries: Vec<wire::TextEntry>) -> Option<BTreeMap<String, String>> {
    let map: BTreeMap<_, _> = entries.into_iter().map(|e| (e.key, e.value)).collect();
    Some(map).filter(|m| !m.is_empty())
}

fn quantity_entries(map: Option<&BTreeMap<String, Quantity>>) -> Vec<wire::QuantityEntry> {
    let entry = |(key, value): (&String, &Quantity)| wire::QuantityEntry {
        key: key.clone(),
        value: wire::Quantity { text: value.0.clone() },
    };
    map.into_iter().flatten().map(entry).collect()
}

fn quantity_map(entries: Vec<wire::QuantityEntry>) -> Option<BTreeMap<String, Quantity>> {
    let map: BTreeMap<_, _> = entries.into_iter().map(|e| (e.key, Quantity(e.value.text))).collect();
    Some(map).filter(|m| !m.is_empty())
}
