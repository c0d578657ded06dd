//! What our kinds have in common: group, version, scope, how they name themselves in JSON and what is read of their metadata.
//!
//! kube's derive puts everything under `spec` and always adds a status subresource; four of the seven kinds are not
//! like that, so all seven are described here in one way.

use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Metadata but for `managedFields`: which program wrote which field is of no use to us, and takes more memory than all the rest of an
/// object of which thousands are kept. Whoever writes an object back without them takes nothing away: the API server keeps its own.
pub(crate) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(ObjectMeta { managed_fields: None, ..ObjectMeta::deserialize(deserializer)? })
}

macro_rules! api_version {
    ($(#[$doc:meta])* $name:ident, $group:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name;

        impl $name {
            /// API group.
            pub const GROUP: &'static str = $group;
            /// The only version.
            pub const VERSION: &'static str = "v1alpha1";
            /// Group and version as they stand in an object.
            pub const API_VERSION: &'static str = concat!($group, "/v1alpha1");
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Self::API_VERSION)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde::de::IgnoredAny::deserialize(deserializer)?; // the address said which version it is
                Ok(Self)
            }
        }
    };
}

api_version! {
    /// `apiVersion` of the jobs a user asks for and of repositories.
    BackupDriverV1alpha1, "backupdriver.cnsdp.vmware.com"
}

api_version! {
    /// `apiVersion` of transfers.
    DatamoverV1alpha1, "datamover.cnsdp.vmware.com"
}

/// Implements kube's view of a kind, by its group and version as expressions.
macro_rules! resource {
    ($kind:ident, $group:expr, $version:expr, $plural:literal, $scope:ident) => {
        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = k8s_openapi::$scope;

            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &kube::core::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use resource;

/// Implements kube's view of a kind of ours.
macro_rules! kind {
    ($kind:ident, $api:ident, $plural:literal, $scope:ident) => {
        crate::resource::resource!(
            $kind,
            crate::resource::$api::GROUP,
            crate::resource::$api::VERSION,
            $plural,
            $scope
        );
    };
}
pub(crate) use kind;
