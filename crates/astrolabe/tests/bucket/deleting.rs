//! A deletion takes all of one backup and nothing of another.

use astrolabe::{Keys, Removed};

use crate::{Bucket, MIB, PREFIX, noise, snapshot};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_backup_leaves_nothing_and_takes_nothing_of_others() {
    let bucket = Bucket::new().await;
    let of = snapshot("disk:snap");
    let others = ["disk:snap2", "disk:sna", "disk2:snap", "disk:snap.data"];
    for other in others {
        bucket.lay(&Keys::new(PREFIX, &snapshot(other)), &noise(1), &[]).await;
    }
    let beside = ["ivd/data/ivd:disk:snap.data2/x", "ivd/peinfo/ivd:disk:snap.old", "velero/backups/x"];
    for key in beside {
        bucket.put(&format!("{PREFIX}/{key}"), "x").await;
    }
    let before = bucket.keys().await;
    assert!(!bucket.tree.holds(&of).await.unwrap(), "what others have is not its own");
    for prefix in ["by-hand", PREFIX] {
        bucket.lay(&Keys::new(prefix, &of), &noise(3), &[MIB]).await;
        assert!(bucket.tree.holds(&of).await.unwrap());
    }
    assert_eq!(bucket.tree.delete(&of).await.unwrap(), Removed { objects: 8, uploads: 0 });
    assert_eq!(bucket.keys().await, before);
    assert_eq!(bucket.tree.delete(&of).await.unwrap(), Removed::default(), "what is gone is fine");
    assert!(bucket.tree.open(&of).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn w42_what_was_never_finished_goes_too_with_the_uploads_that_were_begun() {
    let bucket = Bucket::new().await;
    let (of, other) = (Keys::new(PREFIX, &snapshot("disk:snap")), Keys::new(PREFIX, &snapshot("disk:snap2")));
    bucket.put(&format!("{}/000000-0000000000000000", of.data()), noise(1)).await;
    for key in [of.data(), other.data()] {
        for _ in 0..2 {
            let upload = bucket.store.begin_multipart(&format!("{key}/000001-0000000001048576")).await.unwrap();
            bucket.store.put_part(&upload, 1, noise(5).into()).await.unwrap();
        }
    }
    assert!(bucket.tree.holds(&snapshot("disk:snap")).await.unwrap(), "so that a deletion by hand removes it");
    let removed = bucket.tree.delete(&snapshot("disk:snap")).await.unwrap();
    assert_eq!(removed, Removed { objects: 1, uploads: 2 });
    assert!(bucket.keys().await.is_empty());
    assert!(!bucket.tree.holds(&snapshot("disk:snap")).await.unwrap(), "what is left is of another");
    let left = bucket.store.uploads("").await.unwrap();
    assert!(left.len() == 2 && left.iter().all(|upload| upload.key.starts_with(other.data())), "{left:?}");
}

/// A writer that was killed before its first object: its parts are paid for until somebody gives them up.
#[tokio::test(flavor = "multi_thread")]
async fn w42_an_upload_of_which_no_object_came_is_found_so_that_a_deletion_by_hand_removes_it() {
    let bucket = Bucket::new().await;
    let of = snapshot("disk:snap");
    for stream in [Keys::new("by-hand", &of).description(), Keys::new(PREFIX, &of).data()] {
        let upload = bucket.store.begin_multipart(&format!("{stream}/000000-0000000000000000")).await.unwrap();
        bucket.store.put_part(&upload, 1, noise(5).into()).await.unwrap();
        assert!(bucket.tree.holds(&of).await.unwrap(), "{stream}");
        assert!(!bucket.tree.holds(&snapshot("disk:sna")).await.unwrap(), "of another: {stream}");
        assert_eq!(bucket.tree.delete(&of).await.unwrap(), Removed { objects: 0, uploads: 1 });
        assert!(!bucket.tree.holds(&of).await.unwrap(), "{stream}");
    }
}
