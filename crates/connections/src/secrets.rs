//! Reading Secrets by name, the only way our accounts may.

use api::Reason;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lifecycle::Problem;
use secrecy::SecretString;

use crate::from_kube;
use crate::known::Known;

/// A Secret by name; `None` when there is none.
pub(crate) async fn secret(known: &Known, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
    let secrets: Api<Secret> = Api::namespaced(known.client(), namespace);
    known.get(&secrets, name).await.map_err(|e| from_kube(&format!("read Secret {namespace}/{name}"), &e))
}

/// A key of a Secret as text.
pub(crate) fn text(secret: &Secret, key: &str) -> Option<SecretString> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().map(SecretString::from)
}

/// A key of a Secret that a storage location names, as bytes. `what` says what it holds, for messages.
///
/// Whatever is wrong with it, somebody may mend it while we back off.
pub(crate) async fn of_location(
    known: &Known,
    namespace: &str,
    name: &str,
    key: &str,
    what: &str,
) -> Result<Vec<u8>, Problem> {
    let secrets: Api<Secret> = Api::namespaced(known.client(), namespace);
    let act = format!("read {what} from Secret {namespace}/{name}");
    let missing = |why: String| Problem::passing(Reason::RepositoryInvalid, format!("{act}: {why}"));
    let found = match known.get(&secrets, name).await {
        Ok(found) => found.ok_or_else(|| missing("there is none".to_owned()))?,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let fix = "Add its name to `storageSecrets` of the chart, so that the programs may read it.";
            return Err(missing("our account may not read it".to_owned()).with_fix(Some(fix.to_owned())));
        }
        Err(error) => return Err(from_kube(&act, &error)),
    };
    let bytes = found.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
    bytes.ok_or_else(|| missing(format!("it has no key `{key}`")))
}
