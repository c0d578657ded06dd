//! Disks of all shapes: restic finds nothing wrong, gives them back byte for byte, and so do we.

use crate::judge::{CHUNK, KIB, MIB, Place, TestDisk, noise};
use repository::WriterOptions;

async fn there_and_back(disk: TestDisk) {
    let place = Place::new();
    let repository = place.initialised().await;
    let point = disk.back_up(&repository).await.unwrap();
    let reader = repository.reader(&point.id).await.unwrap();
    disk.assert_is_read(&reader).await;
    place.restic().check();
    let file = place.file("disk.raw");
    place.restic().dump(&point.id.to_string(), &file);
    disk.assert_is_file(&file);
}

fn text(length: usize) -> Vec<u8> {
    b"All happy disks are alike; each unhappy disk is unhappy in its own way. "
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_one_mib_comes_back() {
    there_and_back(TestDisk::random(MIB, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_last_extent_is_short_comes_back() {
    there_and_back(TestDisk::random(17 * MIB, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_ends_within_a_chunk_comes_back() {
    there_and_back(TestDisk::empty(3 * MIB + 512).with(3 * MIB + 511, vec![1])).await;
    there_and_back(TestDisk::random(20 * MIB + 512, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_disk_comes_back() {
    there_and_back(TestDisk::empty(64 * MIB)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_the_last_sector_alone_comes_back() {
    let size = 40 * MIB;
    there_and_back(TestDisk::empty(size).with(size - 512, noise(512, 4))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_points_restore_each_extent_separately() {
    // files with one inode and device would be hard links to restic: every extent would get the first one's content
    let disk = (0..5).fold(TestDisk::empty(80 * MIB), |disk, n| disk.with(n * 16 * MIB, text(1000 + n as usize)));
    let place = Place::new();
    let point = disk.back_up(&place.initialised().await).await.unwrap();
    let target = place.file("restored");
    place.restic().content(&["restore", &point.id.to_string(), "--target", target.to_str().unwrap()]);
    for n in 0..5 {
        let extent = std::fs::read(target.join(format!("extents/0000/{:08x}", n * 16 * MIB))).unwrap();
        assert_eq!(extent[..1000 + n as usize], text(1000 + n as usize));
        assert!(extent[1000 + n as usize..].iter().all(|byte| *byte == 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_disk_with_little_on_it_comes_back_and_takes_little() {
    let size = 1025 * MIB;
    let disk = TestDisk::empty(size)
        .with(0, noise(5 * MIB, 5))
        .with(300 * MIB + 4 * KIB, text(2 * MIB as usize))
        .with(700 * MIB, noise(5 * MIB, 5))
        .with(size - 4 * KIB, noise(4 * KIB, 6));
    let place = Place::new();
    let repository = place.initialised().await;
    let writer = repository.writer(disk.point(), WriterOptions::default()).await.unwrap();
    disk.put_into(&writer).await.unwrap();
    let point = writer.commit().await.unwrap();
    let stats = writer.stats();
    assert_eq!(stats.bytes_settled, size);
    assert!(stats.bytes_stored < 6 * MIB, "content that is there twice is stored once: {stats:?}");
    assert_eq!(stats.chunks_known, 10, "{stats:?}");
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
    place.restic().check();
    let file = place.file("disk.raw");
    place.restic().dump("latest", &file);
    disk.assert_is_file(&file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_stores_only_what_changed() {
    let disk = TestDisk::random(24 * MIB, 7);
    let place = Place::new();
    let repository = place.initialised().await;
    let first = disk.back_up(&repository).await.unwrap();
    let changed = disk.clone().with(10 * MIB, text(1000));
    // as another process would: nothing in memory
    let repository = repository::open(place.store(), &crate::judge::password()).await.unwrap();
    let writer = repository.writer(changed.point(), WriterOptions::default()).await.unwrap();
    changed.put_into(&writer).await.unwrap();
    let second = writer.commit().await.unwrap();
    assert_eq!(writer.stats().chunks_new, 1);
    assert!(writer.stats().bytes_stored < CHUNK + 64 * KIB, "{:?}", writer.stats());
    place.restic().check();
    for (point, disk) in [(first, disk), (second, changed)] {
        let file = place.file("disk.raw");
        let _ = std::fs::remove_file(&file);
        place.restic().dump(&point.id.to_string(), &file);
        disk.assert_is_file(&file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_chunk_sizes_restore_too() {
    for chunk_size in [256 * KIB, MIB] {
        let disk = TestDisk::random(5 * MIB, 8).clone();
        let place = Place::new();
        let repository = place.initialised().await;
        let options = WriterOptions { chunk_size, ..WriterOptions::default() };
        let writer = repository.writer(disk.point(), options).await.unwrap();
        disk.put_into(&writer).await.unwrap();
        let point = writer.commit().await.unwrap();
        let reader = repository.reader(&point.id).await.unwrap();
        assert_eq!(reader.chunk_size(), chunk_size);
        disk.assert_is_read(&reader).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_can_back_up_beside_us() {
    let disk = TestDisk::random(3 * MIB, 9);
    let place = Place::new();
    let repository = place.initialised().await;
    disk.back_up(&repository).await.unwrap();
    let file = place.file("a file of someone else");
    std::fs::write(&file, noise(3 * MIB, 10)).unwrap();
    place.restic().content(&["backup", file.to_str().unwrap()]);
    let point = disk.back_up(&repository).await.unwrap();
    place.restic().check();
    let points = repository.restore_points().await.unwrap();
    assert_eq!(points.len(), 2, "restic's own snapshot is not a restore point: {points:?}");
    disk.assert_is_read(&repository.reader(&point.id).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_after_forgetting_one_keeps_the_other_whole() {
    let (one, other) = (TestDisk::random(20 * MIB, 11), TestDisk::random(20 * MIB, 11).with(0, noise(9 * MIB, 12)));
    let place = Place::new();
    let repository = place.initialised().await;
    let first = one.back_up(&repository).await.unwrap();
    let second = other.back_up(&repository).await.unwrap();
    repository.forget(&first.id).await.unwrap();
    repository.forget(&first.id).await.unwrap(); // again is fine
    place.restic().content(&["prune", "--max-unused", "0"]);
    place.restic().check();
    // our index in memory still knows what restic has removed
    let reader = repository.reader(&second.id).await.unwrap();
    other.assert_is_read(&reader).await;
    let third = one.back_up(&repository).await.unwrap();
    one.assert_is_read(&repository.reader(&third.id).await.unwrap()).await;
    place.restic().check();
}
