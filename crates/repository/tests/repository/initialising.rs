//! Making a repository: many at once, killed anywhere, wrong passwords. One sound repository, or a clear word.

use std::sync::Arc;

use repository::store::FaultyStore;
use repository::{ErrorKind, Repository};

use crate::judge::{MIB, Place, TestDisk, password};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_first_backups_at_once_end_in_one_sound_repository() {
    let place = Place::new();
    let makers: Vec<_> = (0..20)
        .map(|_| {
            let store = place.store();
            tokio::spawn(async move { repository::initialise(store, &password()).await })
        })
        .collect();
    let mut made: Vec<Repository> = Vec::new();
    for maker in makers {
        made.push(maker.await.unwrap().unwrap());
    }
    assert!(made.iter().all(|repository| repository.id() == made[0].id()));
    let disk = TestDisk::random(MIB, 1);
    let point = disk.back_up(&made[13]).await.unwrap();
    disk.assert_is_read(&made[7].reader(&point.id).await.unwrap()).await;
    // the last one to finish may have left a key of a rival that was still at it; every later initialise removes those
    repository::initialise(place.store(), &password()).await.unwrap();
    assert_eq!(place.objects("keys").len(), 1);
    place.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initialisation_killed_between_any_two_puts_is_finished_by_the_next() {
    for survived in 0..=2 {
        let place = Place::new();
        let store = FaultyStore::new(place.store());
        store.die_after_puts(survived);
        let first = repository::initialise(Arc::new(store), &password()).await;
        assert!(first.is_err(), "even a whole repository was not read back");
        let again = repository::initialise(place.store(), &password()).await.unwrap();
        TestDisk::random(MIB, 2).back_up(&again).await.unwrap();
        assert_eq!(place.objects("keys").len(), 1, "killed after {survived} puts");
        place.restic().check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_key_that_opens_nothing_is_removed_so_that_restic_can_open() {
    let place = Place::new();
    let elsewhere = Place::new();
    place.initialised().await;
    elsewhere.initialised().await;
    for key in elsewhere.objects("keys") {
        std::fs::copy(&key, place.repository().join("keys").join(key.file_name().unwrap())).unwrap();
    }
    assert_eq!(place.objects("keys").len(), 2);
    repository::open(place.store(), &password()).await.unwrap(); // we look further than the first key
    let repository = repository::initialise(place.store(), &password()).await.unwrap();
    assert_eq!(place.objects("keys").len(), 1);
    TestDisk::random(MIB, 3).back_up(&repository).await.unwrap();
    place.restic().check();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_other_passwords_stay_and_open_the_same_repository() {
    let place = Place::new();
    place.initialised().await;
    let file = place.file("second password");
    std::fs::write(&file, "another password").unwrap();
    place.restic().content(&["key", "add", "--new-password-file", file.to_str().unwrap()]);
    let same = repository::initialise(place.store(), &"another password".into()).await.unwrap();
    assert_eq!(same.id(), place.initialised().await.id());
    assert_eq!(place.objects("keys").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_never_makes_a_new_repository() {
    let place = Place::new();
    place.initialised().await;
    for attempt in [
        repository::open(place.store(), &"wrong".into()).await,
        repository::initialise(place.store(), &"wrong".into()).await,
    ] {
        assert_eq!(attempt.unwrap_err().kind(), ErrorKind::PasswordWrong);
    }
    // even where the config is lost, a key that does not open is someone's
    std::fs::remove_file(place.repository().join("config")).unwrap();
    let attempt = repository::initialise(place.store(), &"wrong".into()).await;
    assert_eq!(attempt.unwrap_err().kind(), ErrorKind::PasswordWrong);
    assert_eq!(place.objects("keys").len(), 1);
}

/// The Secret may be right: who is told that it is wrong looks in the wrong place.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_cannot_be_tried_is_named_with_why_where_the_key_seems_wrong() {
    let place = Place::new();
    place.initialised().await;
    let folder = place.repository().join("keys");
    let name = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let file = std::fs::read_to_string(folder.join(&name)).unwrap();
    let large = file.replace("\"N\":32768", "\"N\":524288");
    for (content, why) in [(large.as_str(), "512 MiB of memory"), ("", "EOF"), (&" ".repeat(1 << 20), "1048576 bytes")]
    {
        std::fs::remove_file(folder.join(&name)).unwrap();
        std::fs::write(folder.join(&name), content).unwrap();
        for attempt in [
            repository::open(place.store(), &password()).await,
            repository::initialise(place.store(), &password()).await,
        ] {
            let told = attempt.unwrap_err();
            assert_eq!(told.kind(), ErrorKind::PasswordWrong, "{told}");
            let words = told.to_string();
            assert!(words.contains(&format!("keys/{name} (")) && words.contains(why), "{words}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_where_nothing_is_says_so_and_makes_nothing() {
    let place = Place::new();
    assert_eq!(repository::open(place.store(), &password()).await.unwrap_err().kind(), ErrorKind::NotARepository);
    assert!(place.store().list("").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_without_config_and_keys_are_damage_and_not_an_empty_place() {
    let place = Place::new();
    TestDisk::random(MIB, 4).back_up(&place.initialised().await).await.unwrap();
    std::fs::remove_file(place.repository().join("config")).unwrap();
    assert_eq!(repository::initialise(place.store(), &password()).await.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(!place.repository().join("config").exists(), "another repository in the place of the lost one");
    for key in place.objects("keys") {
        std::fs::remove_file(key).unwrap();
    }
    assert_eq!(repository::initialise(place.store(), &password()).await.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(place.objects("keys").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_restic_made_is_used_as_it_is() {
    let place = Place::new();
    place.restic().content(&["init"]);
    let repository = place.initialised().await;
    let disk = TestDisk::random(5 * MIB, 5);
    let point = disk.back_up(&repository).await.unwrap();
    place.restic().check();
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_another_version_is_refused() {
    let place = Place::new();
    place.restic().content(&["init", "--repository-version", "1"]);
    assert_eq!(repository::open(place.store(), &password()).await.unwrap_err().kind(), ErrorKind::Unsupported);
}
