#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;

fn read(yaml: &str) -> Result<Policies, Problem> {
    Policies::read("velero/policy", Some(&BTreeMap::from([("any-name".to_owned(), yaml.to_owned())])))
}

fn volume(spec: serde_json::Value) -> PersistentVolume {
    serde_json::from_value(json!({"metadata": {"name": "pv-1"}, "spec": spec})).unwrap()
}

fn vsphere() -> PersistentVolume {
    volume(json!({"capacity": {"storage": "15Gi"}, "storageClassName": "gold",
        "csi": {"driver": "csi.vsphere.vmware.com", "volumeHandle": "2b6d", "volumeAttributes": {"type": "vSphere CNS Block Volume"}}}))
}

fn nfs() -> PersistentVolume {
    volume(json!({"capacity": {"storage": "1Ti"}, "nfs": {"server": "filer", "path": "/export"}}))
}

fn claim() -> PersistentVolumeClaim {
    serde_json::from_value(
        json!({"metadata": {"name": "data-0", "labels": {"app": "web", "tier": "db"}}, "status": {"phase": "Bound"}}),
    )
    .unwrap()
}

#[test]
fn p17_each_condition_holds_for_the_volumes_velero_says() {
    let cases = [
        ("", true, true),
        ("capacity: '10Gi,20Gi'", true, false),
        ("capacity: '15Gi, 15Gi'", true, false),
        ("capacity: '20Gi,'", false, true),
        ("capacity: ',20Gi'", true, false),
        ("capacity: '0,100Gi'", true, false),
        ("capacity: ','", true, true),
        ("storageClass: [silver, gold]", true, false),
        ("storageClass: [silver]", false, false),
        ("storageClass: gold", true, false),
        ("csi: {}", true, false),
        ("csi: {driver: csi.vsphere.vmware.com}", true, false),
        ("csi: {driver: ebs.csi.aws.com}", false, false),
        ("csi: {driver: csi.vsphere.vmware.com, volumeAttributes: {type: vSphere CNS Block Volume}}", true, false),
        ("csi: {driver: csi.vsphere.vmware.com, volumeAttributes: {type: vSphere CNS File Volume}}", false, false),
        ("nfs: {}", false, true),
        ("nfs: {server: filer}", false, true),
        ("nfs: {server: filer, path: /other}", false, false),
        ("nfs: {path: /export}", false, true),
        ("volumeTypes: [csi, hostPath]", true, false),
        ("volumeTypes: [nfs]", false, true),
        ("pvcLabels: {app: web}", true, true),
        ("pvcLabels: {app: web, tier: cache}", false, false),
        ("pvcPhase: [Pending, Bound]", true, true),
        ("pvcPhase: [Pending]", false, false),
        ("storageClass: [gold], capacity: '20Gi,'", false, false),
        ("storageClass: null", true, true),
        ("moonPhase: [full]", false, false),
    ];
    for (conditions, ours, theirs) in cases {
        let yaml = format!("version: v1\nvolumePolicies:\n- conditions: {{{conditions}}}\n  action: {{type: skip}}\n");
        let policies = read(&yaml).unwrap();
        let skipped = |volume: &PersistentVolume| policies.action_for(Some(volume), Some(&claim())).is_some();
        assert_eq!((skipped(&vsphere()), skipped(&nfs())), (ours, theirs), "{conditions}");
    }
}

#[test]
fn p17_the_first_policy_that_matches_decides() {
    let policies = read(
        "
        version: v1
        includeExcludePolicy: {excludedClusterScopedResources: [x]}
        volumePolicies:
        - conditions: {storageClass: [gold]}
          action: {type: snapshot}
        - conditions: {csi: {}}
          action: {type: fs-backup}
        - conditions: {nfs: {}}
          action: {type: custom, parameters: {tool: ours}}
        - action: {type: skip}
        ",
    )
    .unwrap();
    let local = volume(json!({"local": {"path": "/d"}}));
    let silver = volume(json!({"storageClassName": "silver", "csi": {"driver": "d", "volumeHandle": "h"}}));
    let cases = [
        (Some(&vsphere()), Some(Action::Snapshot)),
        (Some(&silver), Some(Action::FsBackup)),
        (Some(&nfs()), Some(Action::Custom)),
        (Some(&local), Some(Action::Skip)),
        (None, Some(Action::Skip)),
    ]
    .map(|(volume, want)| (volume.cloned(), want));
    for (volume, want) in cases {
        assert_eq!(policies.action_for(volume.as_ref(), None).cloned(), want, "{volume:?}");
    }
    assert_eq!(read("version: v1").unwrap().action_for(Some(&vsphere()), None), None);
}

#[test]
fn a_claim_without_a_volume_can_be_matched_by_what_it_has() {
    let policies =
        read("version: v1\nvolumePolicies:\n- conditions: {pvcPhase: [Pending]}\n  action: {type: skip}\n").unwrap();
    let pending =
        PersistentVolumeClaim { status: serde_json::from_value(json!({"phase": "Pending"})).unwrap(), ..claim() };
    assert_eq!(policies.action_for(None, Some(&pending)), Some(&Action::Skip));
    assert_eq!(policies.action_for(None, Some(&claim())), None);
}

#[test]
fn a_mistake_in_a_policy_names_the_policy_and_the_condition() {
    let with = |condition: &str| {
        format!(
            "version: v1\nvolumePolicies:\n- action: {{type: skip}}\n- conditions: {{{condition}}}\n  action: {{type: skip}}\n"
        )
    };
    let cases = [
        ("version: v2".to_owned(), "version is `v2`"),
        ("volumePolicies: []".to_owned(), "version is ``"),
        ("version: v1\nvolumePolicies: [{conditions: {}}]".to_owned(), "action"),
        ("version: [".to_owned(), "line 1"),
        (with("capacity: '10Gi'"), "volume policy 2: condition `capacity`: `10Gi`"),
        (with("capacity: 'a,b'"), "`a,b`"),
        (with("capacity: '20Gi,10Gi'"), "`20Gi,10Gi`"),
        (with("pvcLabels: [a]"), "volume policy 2: condition `pvcLabels`"),
        (with("storageClass: {a: b}"), "condition `storageClass`"),
    ];
    for (yaml, says) in cases {
        let problem = read(&yaml).unwrap_err();
        assert_eq!(problem.reason, Reason::SettingsInvalid);
        assert!(problem.cause.contains("velero/policy") && problem.cause.contains(says), "{}", problem.cause);
    }
    let two = BTreeMap::from([("a".to_owned(), String::new()), ("b".to_owned(), String::new())]);
    for data in [Some(&two), None] {
        assert!(Policies::read("velero/policy", data).unwrap_err().cause.contains("exactly one key"));
    }
}
