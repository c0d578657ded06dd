//! Which storage class a restored claim gets.
//!
//! Velero maps classes by the same ConfigMap before our action runs, so a class that differs from the backup's has been
//! mapped and is not mapped twice. Resource modifiers run after it (trap V-11): with one, the class is not final here,
//! and nothing is refused because of it. The driver takes the class of the claim that Velero creates in the end.

use api::{Reason, labels};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::Facts;
use crate::Problem;
use crate::velero::item;

/// Key in the mapping that stands for *no class*.
const NO_CLASS: &str = "com.vmware.cnsdp.emptystorageclass";
/// Annotation that named the class before there was a field for it.
pub(super) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Annotation on the class that claims get which name none.
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// The class of a restored claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Class {
    /// The class to write into the item; `None` leaves what is there.
    pub to_write: Option<String>,
    /// The class that the claim will have, as far as anybody knows by now.
    pub effective: Option<String>,
}

/// Chooses, and checks that the class can make a vSphere volume.
pub(super) fn choose(facts: &Facts<'_>) -> Result<Class, Problem> {
    let said = item::said(facts.item_from_backup);
    let mapped = mapped(facts)?;
    let current = class_of(facts.item).map(str::to_owned);
    let wanted = mapped.clone().or(current);
    let may_change = facts.restore.spec.resource_modifier.is_some();
    let problem = |reason: Reason, why: String| {
        let fix = format!(
            "Map the class in a ConfigMap with labels {} and {}=RestoreItemAction; `{NO_CLASS}` there stands for no class.",
            labels::PLUGIN_CONFIG,
            labels::CHANGE_STORAGE_CLASS
        );
        Problem::lasting(reason, format!("restore {said}: {why}")).with_fix(Some(fix))
    };
    let found = match wanted.as_deref() {
        Some(name) => facts.classes.iter().find(|class| class.metadata.name.as_deref() == Some(name)),
        None if item_refuses_classes(facts.item) => None,
        None => default_class(facts.classes),
    };
    if may_change {
        let known = found.and_then(|class| class.metadata.name.clone());
        return Ok(Class { to_write: mapped, effective: known.or(wanted) });
    }
    let Some(found) = found else {
        return Err(problem(
            Reason::StorageClassMissing,
            match &wanted {
                Some(name) => format!("storage class `{name}` does not exist here"),
                None => "it has no storage class, and there is no default one".to_owned(),
            },
        ));
    };
    let name = found.metadata.name.clone().unwrap_or_default();
    // a class of the in-tree driver's time is served by the CSI driver once that has taken over
    if ![labels::CSI_DRIVER, labels::IN_TREE_DRIVER].contains(&found.provisioner.as_str()) {
        let why = format!("storage class `{name}` makes volumes of `{}`, not of vSphere", found.provisioner);
        return Err(problem(Reason::ForeignDriver, why));
    }
    Ok(Class { to_write: mapped, effective: Some(name) })
}

/// What the mapping says about the class that the claim had, unless somebody has changed it by now.
fn mapped(facts: &Facts<'_>) -> Result<Option<String>, Problem> {
    let names = || facts.mappings.iter().map(|map| map.metadata.name.clone().unwrap_or_default());
    if facts.mappings.len() > 1 {
        let cause = format!(
            "read the mapping of storage classes: there is more than one ConfigMap with labels {} and {}: {}",
            labels::PLUGIN_CONFIG,
            labels::CHANGE_STORAGE_CLASS,
            names().collect::<Vec<_>>().join(", ")
        );
        let fix = "Keep one of them; Velero itself refuses to choose as well.".to_owned();
        return Err(Problem::lasting(Reason::SettingsInvalid, cause).with_fix(Some(fix)));
    }
    let before = class_of(facts.item_from_backup);
    if class_of(facts.item) != before {
        return Ok(None);
    }
    let mapping = facts.mappings.first().and_then(|map| map.data.as_ref());
    let class = mapping.and_then(|data| data.get(before.unwrap_or(NO_CLASS)));
    Ok(class.map(|class| class.trim().to_owned()).filter(|class| !class.is_empty()))
}

/// The class that a claim names.
fn class_of(item: &Value) -> Option<&str> {
    let named = item["spec"]["storageClassName"].as_str().or_else(|| item::annotation(item, BETA_CLASS));
    named.filter(|class| !class.is_empty())
}

/// Whether a claim says that it wants no class, which is not the same as saying nothing.
fn item_refuses_classes(item: &Value) -> bool {
    item["spec"]["storageClassName"].as_str() == Some("")
}

/// The class that claims get which name none: of several the newest, as Kubernetes takes it.
fn default_class(classes: &[StorageClass]) -> Option<&StorageClass> {
    let is_default = |class: &&StorageClass| {
        class.metadata.annotations.as_ref().and_then(|a| a.get(IS_DEFAULT)).is_some_and(|value| value == "true")
    };
    classes.iter().filter(is_default).max_by_key(|class| class.metadata.creation_timestamp.clone())
}
