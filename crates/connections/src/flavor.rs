//! Looks for the vSphere CSI driver, which was told of what flavor the cluster is. `lifecycle::flavor` decides.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::{Api, Client};
use lifecycle::Problem;
use lifecycle::flavor::{CONTROLLER, CONTROLLERS, Controller, Found, Kind, Seen, decides, detected};

use crate::from_kube;

/// Looks in all places until one says it: three small reads at most.
///
/// # Errors
/// When the API server does not answer. Where it does not allow it, nothing is seen.
pub(crate) async fn detect(client: &Client) -> Result<Found, Problem> {
    let mut seen = Vec::with_capacity(CONTROLLERS.len());
    for place in CONTROLLERS {
        seen.push(look(client, place).await?);
        if seen.last().is_some_and(decides) {
            break;
        }
    }
    Ok(detected(&seen))
}

async fn look(client: &Client, place: Controller) -> Result<Seen, Problem> {
    let found = match place.kind {
        Kind::Deployment => {
            let pods = |found: Deployment| found.spec.and_then(|spec| spec.template.spec);
            read(client, place.namespace, pods).await
        }
        Kind::StatefulSet => {
            let pods = |found: StatefulSet| found.spec.and_then(|spec| spec.template.spec);
            read(client, place.namespace, pods).await
        }
    };
    match found {
        Ok(pods) => Ok(pods.map_or(Seen::Absent, |pods| Seen::Pods(Box::new(pods)))),
        // an account from before there was this question
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Seen::Hidden),
        Err(error) => Err(from_kube(&format!("find out the flavor of the cluster: read {place}"), &error)),
    }
}

async fn read<K>(
    client: &Client,
    namespace: &str,
    pods: impl FnOnce(K) -> Option<PodSpec>,
) -> Result<Option<PodSpec>, kube::Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects: Api<K> = Api::namespaced(client.clone(), namespace);
    Ok(objects.get_opt(CONTROLLER).await?.and_then(pods))
}
