//! A backup of the original is read whole, or refused with the object that is wrong.

use astrolabe::Keys;
use disk::ByteRange;
use repository::store::Store as _;

use crate::{Bucket, MIB, PREFIX, noise, snapshot, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_segments_of_any_size_is_read_byte_for_byte() {
    let bucket = Bucket::new().await;
    let (of, disk) = (snapshot("disk:snap"), noise(6));
    bucket.lay(&Keys::new(PREFIX, &of), &disk, &[MIB, 4 * MIB + 512]).await;
    let opened = bucket.tree.open(&of).await.unwrap().unwrap();
    assert_eq!((opened.size(), opened.segments().iter().count()), (6 << 20, 3));
    for (offset, length) in [(0, 6 * MIB), (0, 1), (MIB - 1, 2), (MIB, 4 * MIB), (4 * MIB + 511, 2), (6 * MIB - 1, 1)] {
        let read = opened.read(ByteRange::new(offset as u64, length as u64)).await.unwrap();
        assert!(read == disk[offset..offset + length], "{length} bytes at {offset}");
    }
    assert!(
        bucket.tree.open(&snapshot("disk:sna")).await.unwrap().is_none(),
        "the beginning of its name is not its name"
    );
    assert!(bucket.tree.open(&snapshot("disk:snap2")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_below_a_folder_that_somebody_chose_is_found_first() {
    let bucket = Bucket::new().await;
    let of = snapshot("disk:snap");
    bucket.lay(&Keys::new(PREFIX, &of), &noise(1), &[]).await;
    bucket.lay(&Keys::new("by-hand", &of), &noise(2), &[]).await;
    assert_eq!(bucket.tree.open(&of).await.unwrap().unwrap().size(), 2 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_a_backup_that_is_not_whole_is_refused_and_never_read_as_zeroes() {
    let bucket = Bucket::new().await;
    let disk = noise(4);
    let at = |keys: &Keys, number: usize| format!("{}/{number:06}-{:016}", keys.data(), number * MIB);
    let situations = ["first", "middle", "last", "all", "cut", "longer", "stray", "description", "peinfo", "other"];
    for situation in situations {
        let of = snapshot(&format!("disk:{situation}"));
        let keys = Keys::new(PREFIX, &of);
        bucket.lay(&keys, &disk, &[MIB, 2 * MIB, 3 * MIB]).await;
        let description = format!("{}/000000-0000000000000000", keys.description());
        let gone = |numbers: &'static [usize]| {
            let keys = keys.clone();
            let store = bucket.store.clone();
            async move {
                for number in numbers {
                    store.delete(&at(&keys, *number)).await.unwrap();
                }
            }
        };
        let expected = match situation {
            "first" => {
                gone(&[0]).await;
                format!("`{}` is missing", at(&keys, 0))
            }
            "middle" => {
                gone(&[2]).await;
                format!("`{}` is missing: it should begin at byte 2097152", at(&keys, 2))
            }
            "last" => {
                gone(&[3]).await;
                format!("`{}`, the last one, ends at byte 3145728, expected 4194304", at(&keys, 2))
            }
            "all" => {
                gone(&[0, 1, 2, 3]).await;
                format!("`{}` is missing, and so are all", at(&keys, 0))
            }
            "cut" => {
                bucket.put(&at(&keys, 3), disk[..MIB - 1].to_vec()).await;
                format!("`{}`, the last one, ends at byte 4194303, expected 4194304", at(&keys, 3))
            }
            "longer" => {
                bucket.put(&at(&keys, 1), disk[..MIB + 1].to_vec()).await;
                format!("`{}` begins at byte 2097152 by its name, expected 2097153", at(&keys, 2))
            }
            "stray" => {
                bucket.put(&format!("{}/notes", keys.data()), "x").await;
                format!("`{}/notes` is no segment", keys.data())
            }
            "description" => {
                bucket.put(&description, "<metadata/>").await;
                format!("`{}` cannot be read: it has no metadata/", keys.description())
            }
            "peinfo" => {
                bucket.put(keys.peinfo(), "{").await;
                format!("`{}` cannot be read", keys.peinfo())
            }
            _ => {
                let other = Keys::new(PREFIX, &snapshot("disk:another"));
                bucket.put(keys.peinfo(), astrolabe::Peinfo::new(&other, "b", "h", "n").write()).await;
                "it is of `ivd:disk:another`, expected `ivd:disk:other`".to_owned()
            }
        };
        let error = bucket.tree.open(&of).await.unwrap_err();
        let told = told(&error);
        assert!(told.contains(&expected), "{situation}: {told}");
        assert!(matches!(error, astrolabe::Error::Broken { .. }), "{situation}: no retry mends it");
    }
}
