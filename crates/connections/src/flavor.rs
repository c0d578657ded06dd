//! Looks for the vSphere CSI driver, which was told of what flavor the cluster is. `lifecycle::flavor` decides.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::{Api, Client};
use lifecycle::Problem;
use lifecycle::flavor::{CONTROLLER, CONTROLLERS, Controller, Found, Kind, Seen, Source, decides, detected};

use crate::from_kube;

/// How long what was found is not looked for again: what a CSI driver is told does not change while it runs.
const FOUND: Duration = Duration::from_secs(600);
/// The same where our account may not look somewhere: the right may be on its way.
const HIDDEN: Duration = Duration::from_secs(15);
/// How long what was known counts on after a look that failed, so that not everybody waits for an API server that does not answer.
const FAILED: Duration = Duration::from_secs(30);
/// How long a first look that failed is told to those who waited for it.
const NEVER_KNOWN: Duration = Duration::from_secs(2);

/// What counts since the last look.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The flavor, or why it was never found out.
    pub(crate) found: Result<Found, Problem>,
    until: Instant,
}

impl Looked {
    /// What counts after a look, where `before` counted. What a CSI driver has said stays when it cannot be seen: while it is installed
    /// anew, or for want of a right.
    pub(crate) fn after(before: Option<Found>, looked: Result<Found, Problem>) -> Self {
        let (found, counts_for) = match (before, looked) {
            (before, Ok(found)) => {
                let counts_for = match &found.source {
                    Source::Nothing(hidden) if !hidden.is_empty() => HIDDEN,
                    _ => FOUND,
                };
                let is_unseen = matches!(found.source, Source::Nothing(_));
                let said = before.filter(|before| is_unseen && matches!(before.source, Source::Driver(..)));
                (Ok(said.unwrap_or(found)), counts_for)
            }
            // an API server that is away keeps nobody from a vCenter that is known
            (Some(before), Err(_)) => (Ok(before), FAILED),
            (None, Err(problem)) => (Err(problem), NEVER_KNOWN),
        };
        Self { found, until: Instant::now() + counts_for }
    }

    /// Whether it need not be looked for anew.
    pub(crate) fn counts(&self) -> bool {
        Instant::now() < self.until
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use api::Reason;
    use lifecycle::flavor::Flavor;

    #[test]
    fn what_the_csi_driver_has_said_is_not_unsaid_by_a_look_that_saw_nothing() {
        let at = CONTROLLERS[0];
        let told = |flavor| Found { flavor, source: Source::Driver(at, None) };
        let unseen =
            |hidden: &[Controller]| Found { flavor: Flavor::Vanilla, source: Source::Nothing(hidden.to_vec()) };
        let away = || Err(Problem::passing(Reason::ClusterUnreachable, "away"));
        let (guest, vanilla) = (told(Flavor::Guest), told(Flavor::Vanilla));
        let cases = [
            ("first, and seen", None, Ok(guest.clone()), Ok(guest.clone()), FOUND),
            ("it was told anew", Some(&vanilla), Ok(guest.clone()), Ok(guest.clone()), FOUND),
            ("first, and there is none", None, Ok(unseen(&[])), Ok(unseen(&[])), FOUND),
            ("it is gone", Some(&guest), Ok(unseen(&[])), Ok(guest.clone()), FOUND),
            ("first, and nobody may look", None, Ok(unseen(&[at])), Ok(unseen(&[at])), HIDDEN),
            ("the right is gone", Some(&guest), Ok(unseen(&[at])), Ok(guest.clone()), HIDDEN),
            ("the API server is away", Some(&guest), away(), Ok(guest.clone()), FAILED),
            ("it is away from the start", None, away(), away(), NEVER_KNOWN),
        ];
        for (situation, before, looked, want, counts_for) in cases {
            let now = Looked::after(before.cloned(), looked);
            assert_eq!(now.found, want, "{situation}");
            assert!(now.counts() && now.until <= Instant::now() + counts_for, "{situation}");
            assert!(now.until > Instant::now() + counts_for - Duration::from_secs(1), "{situation}");
        }
    }
}
