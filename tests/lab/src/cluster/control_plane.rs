//! How etcd, the API server and the controllers are started. Describes processes; starts none.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::facts::{Facts, write_private};
use crate::peer_process::launch;
use crate::processes::Launch;

/// Only what binds volumes, keeps namespaces and accounts, and collects garbage: the rest would act on nodes that have no
/// kubelet.
const CONTROLLERS: &str = "persistentvolume-binder-controller,persistentvolume-protection-controller,\
persistentvolumeclaim-protection-controller,namespace-controller,garbage-collector-controller,serviceaccount-controller";

const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// etcd without fsync: a lab's data may die with the machine.
pub(crate) fn etcd(program: PathBuf, lab: &Path, facts: &mut Facts) -> Result<Launch> {
    let client = format!("http://127.0.0.1:{}", facts.choose_port("etcd")?);
    let peer = format!("http://127.0.0.1:{}", facts.choose_port("etcd-peer")?);
    let args = [
        "--name=lab".to_owned(),
        format!("--data-dir={}", lab.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Ok(launch("etcd", program, lab, args))
}

/// The API server, with role-based access and an audit log.
pub(crate) fn api_server(program: PathBuf, lab: &Path, facts: &mut Facts) -> Result<Launch> {
    let port = facts.choose_port("kube-apiserver")?;
    let certificates = lab.join("certificates");
    let (key, public) = (certificates.join("accounts-key.pem"), certificates.join("accounts.pem"));
    let tokens = lab.join("tokens.csv");
    write_private(&tokens, &format!("{},admin,admin,\"system:masters\"\n", facts.admin_token))?;
    let policy = lab.join("audit-policy.yaml");
    std::fs::write(&policy, AUDIT_POLICY)?;
    let args = [
        format!("--etcd-servers=http://127.0.0.1:{}", facts.port("etcd")?),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // the address of the endpoint `kubernetes`, which a loopback address cannot be: nothing in a lab uses it
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", certificates.display()),
        format!("--tls-cert-file={}", certificates.join("server.pem").display()),
        format!("--tls-private-key-file={}", certificates.join("server-key.pem").display()),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", public.display()),
        format!("--service-account-signing-key-file={}", key.display()),
        format!("--token-auth-file={}", tokens.display()),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        // the second would mark new nodes as not ready until a controller says otherwise, which a lab has not
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", audit_log(lab).display()),
    ];
    Ok(launch("kube-apiserver", program, lab, args))
}

/// One JSON line for each call that the API server has answered.
pub(crate) fn audit_log(lab: &Path) -> PathBuf {
    lab.join("logs/audit.log")
}

/// The scheduler: a pod without a node waits for its volumes, as it does for users.
pub(crate) fn scheduler(program: PathBuf, lab: &Path, facts: &mut Facts) -> Result<Launch> {
    let certificates = lab.join("certificates");
    let args = [
        format!("--kubeconfig={}", lab.join("kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", facts.choose_port("kube-scheduler")?),
        format!("--tls-cert-file={}", certificates.join("server.pem").display()),
        format!("--tls-private-key-file={}", certificates.join("server-key.pem").display()),
    ];
    Ok(launch("kube-scheduler", program, lab, args))
}

/// The controllers that bind volumes.
pub(crate) fn controllers(program: PathBuf, lab: &Path) -> Launch {
    let args = [
        format!("--kubeconfig={}", lab.join("kubeconfig").display()),
        format!("--controllers={CONTROLLERS}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        // a claim that waits for its volume is looked at again this soon
        "--pvclaimbinder-sync-period=1s".to_owned(),
    ];
    launch("kube-controller-manager", program, lab, args)
}
