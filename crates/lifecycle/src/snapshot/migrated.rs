//! Volumes that the in-tree driver of Kubernetes made and the vSphere CSI driver has taken over. They say where their disk lies and
//! not which one it is; the CSI driver keeps a record of each, which says both.

use api::Reason;
use disk::DiskId;

use crate::Problem;

/// What a volume says of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// Which it is.
    Disk(DiskId),
    /// Where it lies: ask the records of the CSI driver.
    Migrated(Migrated),
}

/// A volume of the in-tree driver that the CSI driver has taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Its name.
    pub volume: String,
    /// Where its disk lies, `[datastore] folder/name.vmdk`.
    pub path: String,
}

/// A record of the CSI driver, of group `cns.vmware.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// `spec.volumepath`.
    pub path: String,
    /// `spec.volumeid`.
    pub disk: String,
}

impl Migrated {
    /// Which disk it is. `records` are all that there are; `None` where the cluster has no definition of them.
    ///
    /// Paths are compared letter for letter: on a datastore two may differ by a blank.
    ///
    /// # Errors
    /// `MigrationUnknown` unless exactly one disk is recorded for the path.
    pub fn disk(&self, records: Option<&[Migration]>) -> Result<DiskId, Problem> {
        let Self { volume, path } = self;
        let unknown = |why: String| {
            let cause = format!("find the disk of volume {volume}, which lies at `{path}`: {why}");
            Problem::lasting(Reason::MigrationUnknown, cause)
        };
        let Some(records) = records else {
            return Err(unknown("this cluster has no definition cnsvspherevolumemigrations.cns.vmware.com".to_owned()));
        };
        let mut disks: Vec<&str> = records.iter().filter(|r| r.path == *path).map(|r| r.disk.as_str()).collect();
        disks.sort_unstable();
        disks.dedup();
        match disks[..] {
            [] => Err(unknown(match records.iter().find(|r| is_near(&r.path, path)) {
                Some(near) => format!("no cnsvspherevolumemigration says exactly that; one says `{}`", near.path),
                None => format!("none of {} cnsvspherevolumemigrations says that", records.len()),
            })),
            [disk] => {
                disk.parse().map_err(|_| unknown(format!("it is recorded as `{disk}`, which is not the id of a disk")))
            }
            [..] => {
                let disks = disks.join(", ");
                Err(unknown(format!("cnsvspherevolumemigrations say different disks of it: {disks}")))
            }
        }
    }
}

/// Whether two paths are the same but for blanks and capitals.
fn is_near(one: &str, other: &str) -> bool {
    let letters =
        |path: &str| path.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect::<String>();
    letters(one) == letters(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "[vsan ds] kubevols/kubernetes-dynamic-pvc-1.vmdk";

    #[test]
    fn a_migrated_volume_is_the_disk_that_is_recorded_for_its_very_path_and_no_other() {
        let record = |path: &str, disk: &str| Migration { path: path.to_owned(), disk: disk.to_owned() };
        let other = record("[vsan ds] kubevols/kubernetes-dynamic-pvc-2.vmdk", "d2");
        let cases = [
            ("one of two", Some(vec![other.clone(), record(PATH, "d1")]), Ok("d1")),
            ("the same twice", Some(vec![record(PATH, "d1"), record(PATH, "d1")]), Ok("d1")),
            ("no definition", None, Err("no definition cnsvspherevolumemigrations.cns.vmware.com")),
            ("no record at all", Some(vec![]), Err("none of 0")),
            ("none of this volume", Some(vec![other]), Err("none of 1")),
            ("two of different disks", Some(vec![record(PATH, "d2"), record(PATH, "d1")]), Err("of it: d1, d2")),
            (
                "a blank more",
                Some(vec![record(&format!("{PATH} "), "d1")]),
                Err("one says `[vsan ds] kubevols/kubernetes-dynamic-pvc-1.vmdk `"),
            ),
            ("a blank less", Some(vec![record(&PATH.replace("] ", "]"), "d1")]), Err("one says `[vsan ds]kubevols")),
            ("other capitals", Some(vec![record(&PATH.to_uppercase(), "d1")]), Err("one says `[VSAN DS]")),
            ("no id", Some(vec![record(PATH, "")]), Err("recorded as ``")),
            ("a file share", Some(vec![record(PATH, "file:1")]), Err("recorded as `file:1`")),
        ];
        for (situation, records, want) in cases {
            let migrated = Migrated { volume: "pv-1".to_owned(), path: PATH.to_owned() };
            match (migrated.disk(records.as_deref()), want) {
                (Ok(disk), Ok(want)) => assert_eq!(disk.as_str(), want, "{situation}"),
                (Err(problem), Err(want)) => {
                    assert_eq!(problem.reason, Reason::MigrationUnknown, "{situation}");
                    let told = problem.message();
                    assert!(
                        told.contains(want) && told.contains("volume pv-1") && told.contains(PATH),
                        "{situation}: {told}"
                    );
                }
                (got, want) => panic!("{situation}: {got:?}, not {want:?}"),
            }
        }
    }
}
