use super::*;
use crate::config::ImageConfig;
use crate::digest::{Algorithm, DiffId, Digest, ImageId};
use crate::json;
use crate::layer::ApplyError;
use crate::manifest::{Descriptor, Index as ManifestIndex, Manifest, media_type};
use crate::sys;
use crate::tar::{Entry, EntryKind, Writer};
use crate::testing::needs_root;
use oci_spec::runtime::Mount;

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let kind = if name.ends_with('/') { EntryKind::Directory } else { EntryKind::File };
        let entry = Entry { size: content.len() as u64, mode: 0o755, ..Entry::new(kind, *name) };
        writer.begin(&entry).unwrap();
        writer.content(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn unpack(store: &Store, files: &[(&str, &str)], below: &[DiffId]) -> Result<DiffId, StoreError> {
    let bytes = tar(files);
    let diff_id = DiffId(Digest::of(&bytes));
    store.unpack_layer(bytes.as_slice(), &diff_id, below, None).map(|_| diff_id)
}

/// Creates an image of the given layers under a tag.
fn image(store: &Store, name: &str, diff_ids: Vec<DiffId>) -> ImageId {
    let config = ImageConfig {
        rootfs: crate::config::RootFs { diff_ids, ..Default::default() },
        author: name.to_owned(),
        ..Default::default()
    };
    let (config, _) = config.encode();
    let manifest = json::to_vec(&Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &config), vec![]));
    let id = store.put_image(&manifest, media_type::OCI_MANIFEST, &config).unwrap();
    store.tag(&name.parse().unwrap(), &id).unwrap();
    id
}

fn options(mount: &Mount) -> Vec<String> {
    mount.options().clone().unwrap_or_default()
}

#[test]
fn images_are_found_by_name_id_and_prefix() {
    needs_root!();
    let (_root, store) = store();
    let layer = unpack(&store, &[("f", "x")], &[]).unwrap();
    let id = image(&store, "a:1", vec![layer]);
    let found = |name: &str| store.resolve(name).map(|image| image.id).map_err(|error| error.to_string());
    assert_eq!(found("a:1"), Ok(id.clone()));
    assert_eq!(found("docker.io/library/a:1"), Ok(id.clone()));
    assert_eq!(found(&id.to_string()), Ok(id.clone()));
    assert_eq!(found(&id.0.hex()[..5]), Ok(id.clone()));
    assert_eq!(found("a"), Err("No such image: a:latest".into()));
    assert_eq!(found("A"), Err("invalid reference format: repository name (A) must be lowercase".into()));
    assert_eq!(store.resolve("a:1").unwrap().size, 1);
}

#[test]
fn the_store_is_an_oci_layout() {
    needs_root!();
    let (root, store) = store();
    image(&store, "a:1", vec![]);
    let index: ManifestIndex =
        serde_json::from_slice(&fs::read(root.path().join("index.json")).unwrap()).unwrap();
    let names: Vec<_> =
        index.manifests.iter().map(|m| m.annotations["io.containerd.image.name"].clone()).collect();
    assert_eq!(names, ["docker.io/library/a:1"]);
    assert!(root.path().join("oci-layout").exists());
}

#[test]
fn snapshots_are_mounts_and_become_layers() {
    needs_root!();
    let (_root, store) = store();
    let base = unpack(&store, &[("d/", ""), ("d/f", "x")], &[]).unwrap();
    let stack = store.stack(&[base]).unwrap();
    let active = store.prepare().unwrap();
    let mount = store.active_mount(&stack, &active, &[]);
    assert_eq!(mount.typ().as_deref(), Some("overlay"));
    let text = options(&mount).join(",");
    assert!(text.contains("lowerdir+=") && text.contains("upperdir=") && text.contains("volatile"), "{text}");
    fs::write(active.upper().join("new"), "abc").unwrap();
    let layer = store.commit(active).unwrap();
    assert_eq!((layer.size, layer.empty, layer.diff_id.clone()), (3, false, None));
    let (diff_id, size) = store.diff_id(&(&layer).into()).unwrap();
    let mut tar = Vec::new();
    let layer = store.layer_of(&diff_id, &[]).unwrap();
    assert_eq!(store.write_layer_tar(&layer, &mut tar).unwrap(), size);
    assert_eq!(Digest::of(&tar), diff_id.0);
    assert_eq!(store.stack_on(&stack, &layer).len(), 2);
}

#[test]
fn empty_layers_are_not_stacked() {
    needs_root!();
    let (_root, store) = store();
    let stack = Stack::empty();
    let empty = store.commit(store.prepare().unwrap()).unwrap();
    assert!(empty.empty);
    let stack = store.stack_on(&stack, &empty);
    let view = store.view_mount(&stack, &[]);
    assert!(!options(&view).join(",").contains(&empty.id));
    let (diff_id, size) = store.diff_id(&(&empty).into()).unwrap();
    assert_eq!(size, 1024);
    assert_eq!(diff_id.0.hex(), "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn dropped_snapshots_are_removed() {
    needs_root!();
    let (root, store) = store();
    let active = store.prepare().unwrap();
    fs::create_dir_all(active.upper().join("a/b")).unwrap();
    drop(active);
    assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 0);
}

#[test]
fn layers_with_another_diff_id_are_refused() {
    needs_root!();
    let (root, store) = store();
    let bytes = tar(&[("f", "x")]);
    let wrong = DiffId(Digest::of(b"other"));
    let result = store.unpack_layer(bytes.as_slice(), &wrong, &[], None);
    assert!(matches!(result, Err(StoreError::DiffIdMismatch { .. })));
    assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 0);
    assert!(store.find_layer(&wrong, &[]).unwrap().is_none());
}

#[test]
fn parents_without_an_entry_come_from_below() {
    needs_root!();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (_root, store) = store();
    let base = {
        let mut writer = Writer::new(Vec::new());
        let dir = Entry { mode: 0o1777, uid: 7, mtime: 5, ..Entry::new(EntryKind::Directory, "d/") };
        writer.begin(&dir).unwrap();
        let bytes = writer.finish().unwrap();
        let id = DiffId(Digest::of(&bytes));
        store.unpack_layer(bytes.as_slice(), &id, &[], None).unwrap();
        id
    };
    let upper = unpack(&store, &[("d/new", "x")], std::slice::from_ref(&base)).unwrap();
    let layer = store.layer_of(&upper, std::slice::from_ref(&base)).unwrap();
    let metadata = fs::metadata(store.layer_path(&layer.id).join("d")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.mtime()), (0o1777, 7, 5));

    let file = unpack(&store, &[("x", "a file")], &[]).unwrap();
    let result = unpack(&store, &[("x/y", "")], &[file]);
    assert!(matches!(result, Err(StoreError::Apply(ApplyError::NotADirectory(_)))), "{result:?}");
}

#[test]
fn layers_of_an_earlier_boot_are_checked_once() {
    needs_root!();
    let (root, store) = store();
    let diff_id = unpack(&store, &[("f", "x")], &[]).unwrap();
    let layer = store.layer_of(&diff_id, &[]).unwrap();
    let old = LayerRecord { boot: Some("an earlier boot".into()), ..layer.clone() };
    store.index.put_layer(&old).unwrap();
    assert_eq!(store.layer_of(&diff_id, &[]).unwrap().id, layer.id);
    assert_eq!(store.index.layer(&layer.id).unwrap().unwrap().boot, None);

    store.index.put_layer(&old).unwrap();
    fs::write(store.layer_path(&layer.id).join("f"), "").unwrap();
    assert!(store.find_layer(&diff_id, &[]).unwrap().is_none(), "a torn layer is not believed");
    assert!(!root.path().join("layers").join(&layer.id).exists());
}

#[test]
fn removing_the_last_tag_removes_the_image_and_its_layers() {
    needs_root!();
    let (root, store) = store();
    let shared = unpack(&store, &[("f", "shared")], &[]).unwrap();
    let own = unpack(&store, &[("g", "own")], std::slice::from_ref(&shared)).unwrap();
    image(&store, "keep", vec![shared.clone()]);
    let id = image(&store, "go:1", vec![shared.clone(), own.clone()]);
    store.tag(&"go:2".parse().unwrap(), &id).unwrap();

    let removed = store.remove_reference(&"go:1".parse().unwrap()).unwrap();
    assert_eq!(removed, [Removed::Untagged("go:1".into())]);
    let removed = store.remove_reference(&"go:2".parse().unwrap()).unwrap();
    let expected = [
        Removed::Untagged("go:2".into()),
        Removed::Deleted(id.to_string()),
        Removed::Deleted(own.to_string()),
    ];
    assert_eq!(removed, expected);
    assert!(store.find_layer(&shared, &[]).unwrap().is_some());
    assert!(store.find_layer(&own, std::slice::from_ref(&shared)).unwrap().is_none());
    assert_eq!(store.blobs().list().unwrap().len(), 2);
    assert_eq!(
        fs::read_dir(root.path().join("layers"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().is_dir())
            .count(),
        1
    );
}

#[test]
fn layers_in_use_are_not_removed() {
    needs_root!();
    let (_root, store) = store();
    let layer = unpack(&store, &[("f", "x")], &[]).unwrap();
    let id = image(&store, "a", vec![layer.clone()]);
    let record = store.image(&id).unwrap().unwrap();
    let using = store.use_layers().unwrap();
    store.remove_image(&record, 9).unwrap();
    assert!(store.find_layer(&layer, &[]).unwrap().is_some(), "a build is running");
    drop(using);
    let stack = store.stack(std::slice::from_ref(&layer)).unwrap();
    store.pin("container", &stack).unwrap();
    store.prune_steps().unwrap();
    assert!(store.find_layer(&layer, &[]).unwrap().is_some(), "a container pins it");
    store.unpin("container").unwrap();
    store.prune_steps().unwrap();
    assert!(store.find_layer(&layer, &[]).unwrap().is_none());
}

#[test]
fn cache_records_without_their_layer_are_not_found() {
    needs_root!();
    let (_root, store) = store();
    let layer = store.commit(store.prepare().unwrap()).unwrap();
    let step = StepRecord {
        key: "k".into(),
        result: "r".into(),
        layer: Some(layer.id.clone()),
        created: 1,
        place: "Dockerfile RUN true".into(),
        inputs: "{}".into(),
    };
    store.put_steps(std::slice::from_ref(&step)).unwrap();
    assert_eq!(store.step("k").unwrap(), Some(step.clone()));
    assert_eq!(store.newest_step_at(&step.place).unwrap(), Some(step));
    sys::remove_path(&store.root.join("layers").join(&layer.id)).unwrap();
    assert_eq!(store.step("k").unwrap(), None);
}

/// Evicted results must stay known: the scheduler of builds treats only unknown keys as new.
#[test]
fn evicted_steps_are_known_until_all_are_pruned() {
    needs_root!();
    let (_root, store) = store();
    let layer = store.commit(store.prepare().unwrap()).unwrap();
    let step = |key: &str, layer: Option<String>| StepRecord {
        key: key.into(),
        result: key.into(),
        layer,
        created: 1,
        place: String::new(),
        inputs: "[]".into(),
    };
    store.put_steps(&[step("k", Some(layer.id.clone())), step("private", None)]).unwrap();
    assert!(!store.is_known_step("other").unwrap());
    assert!(store.is_known_step("private").unwrap() && store.step("private").unwrap().is_none());
    store.put_steps(&[step("k", None)]).unwrap();
    assert!(store.step("k").unwrap().is_some());
    store.evict_steps_of(&(&layer).into()).unwrap();
    assert!(store.is_known_step("k").unwrap() && store.step("k").unwrap().is_none());
    store.prune_steps().unwrap();
    assert!(!store.is_known_step("k").unwrap());
}

#[test]
fn several_processes_may_open_one_store() {
    needs_root!();
    let (root, first) = store();
    let second = Store::open(root.path()).unwrap();
    let id = image(&first, "a", vec![]);
    assert_eq!(second.resolve("a").unwrap().id, id);
    let lock = first.lock("x", || {}).unwrap();
    let handle = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut waited = false;
            let _lock = second.lock("x", || waited = true).unwrap();
            waited
        });
        // Whether the other thread waits already or not, it must not get the lock before its release.
        drop(lock);
        waiter.join().unwrap()
    });
    let _ = handle;
}

#[test]
fn foreign_layers_are_restored_after_a_crash() {
    needs_root!();
    let (root, store) = store();
    // The order differs from that of the packer.
    let bytes = tar(&[("z", "1"), ("a", "2")]);
    let diff_id = DiffId(Digest::of(&bytes));
    let unpacked = store.unpack(bytes.as_slice(), &diff_id, &[]).unwrap();
    let layer = store.keep_with_tar(unpacked, || Ok(bytes.as_slice())).unwrap();
    assert_eq!(layer.blob, Some(diff_id.0.clone()));
    // The host went down, and one file was not written to the disk.
    store.index.put_layer(&LayerRecord { boot: Some("before".to_owned()), ..layer.clone() }).unwrap();
    let file = store.layer_path(&layer.id).join("a");
    fs::write(&file, "").unwrap();
    assert!(store.find_layer(&diff_id, &[]).unwrap().is_some());
    assert_eq!(fs::read_to_string(&file).unwrap(), "2");
    let mut written = Vec::new();
    store.write_layer_tar(&layer, &mut written).unwrap();
    assert_eq!(written, bytes);
    drop(root);
}

/// Packs, stores and returns a layer of another tool.
fn foreign(store: &Store, files: &[(&str, &str)], below: &[DiffId]) -> LayerRecord {
    let bytes = tar(files);
    let unpacked = store.unpack(bytes.as_slice(), &DiffId(Digest::of(&bytes)), below).unwrap();
    store.keep_with_tar(unpacked, || Ok(bytes.as_slice())).unwrap()
}

#[test]
fn layers_with_implied_parents_are_restored_after_a_crash() {
    needs_root!();
    let (_root, store) = store();
    let base = unpack(&store, &[("opt/", ""), ("f", "")], &[]).unwrap();
    let below = std::slice::from_ref(&base);
    let layer = foreign(&store, &[("opt/app", "app")], below);
    assert_eq!(layer.below.as_deref(), Some(below));
    let other = unpack(&store, &[("opt/", ""), ("g", "")], &[]).unwrap();
    let diff_id = layer.diff_id.clone().unwrap();
    assert!(store.find_layer(&diff_id, &[other]).unwrap().is_none(), "it fits on its own layers alone");

    store.index.put_layer(&LayerRecord { boot: Some("before".to_owned()), ..layer.clone() }).unwrap();
    let file = store.layer_path(&layer.id).join("opt/app");
    fs::write(&file, "").unwrap();
    assert_eq!(store.layer_of(&diff_id, below).unwrap().below, layer.below);
    assert_eq!(fs::read_to_string(&file).unwrap(), "app");
    // A removed directory is recreated, too.
    sys::remove_path(&store.root.join("layers").join(&layer.id)).unwrap();
    store.layer_of(&diff_id, below).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "app");
}

#[test]
fn an_unknown_boot_differs_from_every_boot() {
    needs_root!();
    let (_root, mut store) = store();
    store.boot = String::new();
    let layer = store.commit(store.prepare().unwrap()).unwrap();
    let (diff_id, _) = store.diff_id(&(&layer).into()).unwrap();
    fs::write(store.layer_path(&layer.id).join("f"), "more than was written").unwrap();
    assert!(store.find_layer(&diff_id, &[]).unwrap().is_none());
}

#[test]
fn stores_of_the_first_schema_are_upgraded() {
    needs_root!();
    let (root, store) = store();
    let base = unpack(&store, &[("opt/", "")], &[]).unwrap();
    let layer = foreign(&store, &[("opt/app", "app")], std::slice::from_ref(&base));
    drop(store);
    let index = rusqlite::Connection::open(root.path().join("index.db")).unwrap();
    index
        .execute_batch("ALTER TABLE layer DROP COLUMN below; DROP TABLE meta; PRAGMA user_version = 1;")
        .unwrap();
    drop(index);
    let store = Store::open(root.path()).unwrap();
    let found = store.layer_of(layer.diff_id.as_ref().unwrap(), std::slice::from_ref(&base)).unwrap();
    assert_eq!(found.below.as_deref(), Some(std::slice::from_ref(&base)), "it was unpacked again");
}

/// Reopens the store as after a power cut: in another boot, without a record of what is on disk.
fn reboot(store: Store) -> Store {
    let root = store.root.clone();
    store.index.set_meta(&[(index::Meta::Boot, "before".to_owned())]).unwrap();
    for layer in store.index.layers().unwrap() {
        store.index.put_layer(&LayerRecord { boot: Some("before".to_owned()), ..layer }).unwrap();
    }
    drop(store);
    Store::open(&root).unwrap()
}

fn lose_index(store: Store) -> Store {
    let root = store.root.clone();
    drop(store);
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(root.join(name));
    }
    Store::open(&root).unwrap()
}

#[test]
fn a_lost_index_is_recreated_from_files() {
    needs_root!();
    let (root, store) = store();
    let base = unpack(&store, &[("opt/", ""), ("f", "1")], &[]).unwrap();
    let upper = foreign(&store, &[("opt/app", "app")], std::slice::from_ref(&base)).diff_id.unwrap();
    let id = image(&store, "a:1", vec![base.clone(), upper.clone()]);
    store.tag(&"other:2".parse().unwrap(), &id).unwrap();
    let digest = Digest::of(b"of a registry");
    store.add_repo_digest(&id, "docker.io/library/a", &digest).unwrap();
    let untagged = image(&store, "gone:1", vec![base.clone()]);
    store.untag("docker.io/library/gone:1").unwrap();
    let tags = store.tags().unwrap();
    let store = lose_index(store);
    let found = |store: &Store| {
        assert_eq!(store.tags().unwrap(), tags);
        assert_eq!(store.repo_digests(&id).unwrap(), [("docker.io/library/a".to_owned(), digest.clone())]);
        assert!(store.image(&untagged).unwrap().is_some());
        store.stack(&[base.clone(), upper.clone()]).unwrap();
        assert_eq!(store.index.layers().unwrap().len(), 2);
    };
    found(&store);
    // A damaged page makes one command fail, and the next recreates the index.
    drop(store);
    let path = root.path().join("index.db");
    let _ = fs::remove_file(root.path().join("index.db-wal"));
    fs::write(&path, vec![b'x'; 64 << 10]).unwrap();
    let store = Store::open(root.path()).unwrap();
    found(&store);
    // A power cut leaves an empty file.
    drop(store);
    fs::write(&path, "").unwrap();
    for name in ["index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(root.path().join(name));
    }
    found(&Store::open(root.path()).unwrap());
}

#[test]
fn an_index_older_than_the_layout_restores_its_references() {
    needs_root!();
    let (root, store) = store();
    let layer = unpack(&store, &[("f", "1")], &[]).unwrap();
    let id = image(&store, "old:1", vec![layer.clone()]);
    let copy = |to: &Path, from: &Path| {
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            fs::write(to.join(name), fs::read(from.join(name)).unwrap_or_default()).unwrap();
        }
    };
    let aside = tempfile::tempdir().unwrap();
    copy(aside.path(), root.path());
    let newer = unpack(&store, &[("g", "2")], &[]).unwrap();
    image(&store, "new:1", vec![layer, newer]);
    store.untag("docker.io/library/old:1").unwrap();
    drop(store);
    copy(root.path(), aside.path());
    let store = Store::open(root.path()).unwrap();
    let names: Vec<_> = store.tags().unwrap().into_iter().map(|tag| tag.reference).collect();
    assert_eq!(names, ["docker.io/library/new:1"]);
    assert!(store.image(&id).unwrap().is_some(), "its name alone was removed");
}

#[test]
fn incomplete_content_is_removed_after_a_power_cut() {
    needs_root!();
    let (root, store) = store();
    let layer = unpack(&store, &[("f", "content")], &[]).unwrap();
    let torn = unpack(&store, &[("g", "content")], &[]).unwrap();
    image(&store, "whole", vec![layer.clone()]);
    image(&store, "torn", vec![torn.clone()]);
    let id = image(&store, "no-config", vec![layer.clone()]);
    fs::write(store.layer_path(&store.layer_of(&torn, &[]).unwrap().id).join("g"), "").unwrap();
    fs::write(store.blobs.path(&id.0), "").unwrap();
    // Directories without a record: one is complete, one is not.
    let lost = store.commit(store.prepare().unwrap()).unwrap();
    store.index.remove_layer(&lost.id).unwrap();
    fs::create_dir_all(root.path().join("layers/half/fs")).unwrap();
    let store = reboot(store);
    let names: Vec<_> = store.tags().unwrap().into_iter().map(|tag| tag.reference).collect();
    assert_eq!(names, ["docker.io/library/whole:latest"]);
    assert!(!root.path().join("layers/half").exists());
    assert_eq!(store.index.layers().unwrap().len(), 1 + 1);
    assert_eq!(store.check(false).unwrap().problems, []);
}

#[test]
fn synced_layers_are_not_verified_again() {
    needs_root!();
    let (_root, store) = store();
    let diff_id = unpack(&store, &[("f", "1")], &[]).unwrap();
    assert!(store.layer_of(&diff_id, &[]).unwrap().boot.is_some());
    store.sync().unwrap();
    assert_eq!(store.layer_of(&diff_id, &[]).unwrap().boot, None);
}

#[test]
fn damaged_blobs_are_replaced() {
    needs_root!();
    let (_root, store) = store();
    let layer = foreign(&store, &[("z", "1"), ("a", "2")], &[]);
    let blob = layer.blob.clone().unwrap();
    fs::write(store.blobs.path(&blob), "").unwrap();
    assert!(!store.has_blob_of(&layer));
    assert_eq!(foreign(&store, &[("z", "1"), ("a", "2")], &[]).id, layer.id, "it gets its blob again");
    store.blobs.verify(&blob).unwrap();
    let digest = store.blobs.put(b"config").unwrap();
    fs::write(store.blobs.path(&digest), "cXnfig").unwrap();
    store.blobs.put(b"config").unwrap();
    store.blobs.verify(&digest).unwrap();
}

#[test]
fn removed_layers_are_unpacked_from_their_blobs() {
    needs_root!();
    let (_root, store) = store();
    let layer = foreign(&store, &[("z", "1"), ("a", "2")], &[]);
    let diff_id = layer.diff_id.clone().unwrap();
    sys::remove_path(&store.root.join("layers").join(&layer.id)).unwrap();
    store.index.remove_layer(&layer.id).unwrap();
    assert_eq!(store.layer_of(&diff_id, &[]).unwrap().blob, layer.blob);
    let damaged = foreign(&store, &[("y", "1"), ("b", "2")], &[]);
    store.index.remove_layer(&damaged.id).unwrap();
    let blob = damaged.blob.unwrap();
    fs::write(store.blobs.path(&blob), "").unwrap();
    let found = store.layer_of(damaged.diff_id.as_ref().unwrap(), &[]);
    assert!(matches!(found, Err(StoreError::LayerMissing(_))), "{found:?}");
    assert!(!store.blobs.contains(&blob), "a damaged blob does not stay under its name");
}

#[test]
fn killed_removals_are_no_damage() {
    needs_root!();
    let (_root, store) = store();
    let layer = foreign(&store, &[("f", "1")], &[]);
    sys::remove_path(&store.root.join("layers").join(&layer.id)).unwrap();
    assert_eq!(store.check(false).unwrap().problems, []);
    let pins = store.root.join("pins/container");
    fs::write(&pins, format!("[\"{}\"]", layer.id)).unwrap();
    assert_eq!(store.check(false).unwrap().problems.len(), 1);
    fs::remove_file(&pins).unwrap();
    store.prune_steps().unwrap();
    assert_eq!(store.index.layers().unwrap(), []);
}

#[test]
fn checks_find_and_repair_damage() {
    needs_root!();
    let (root, store) = store();
    let own = unpack(&store, &[("f", "1")], &[]).unwrap();
    let foreign = foreign(&store, &[("z", "1"), ("a", "2")], &[]);
    image(&store, "own", vec![own.clone()]);
    image(&store, "foreign", vec![foreign.diff_id.clone().unwrap()]);
    assert_eq!(store.check(true).unwrap().problems, []);
    fs::write(store.layer_path(&store.layer_of(&own, &[]).unwrap().id).join("f"), "2").unwrap();
    fs::write(store.layer_path(&foreign.id).join("z"), "2").unwrap();
    fs::create_dir(root.path().join("layers/half")).unwrap();
    fs::write(store.blobs.path(&Digest::of(b"x")), "y").unwrap();
    fs::write(root.path().join("index.json"), "{").unwrap();
    let what = |found: Checked| found.problems.into_iter().map(|it| it.what).collect::<Vec<_>>().join("\n");
    let found = what(store.check(false).unwrap());
    assert_eq!(found.lines().count(), 5, "{found}");
    let repaired = store.check(true).unwrap();
    assert!(repaired.problems.iter().all(|problem| problem.done.is_some()), "{repaired:?}");
    let names: Vec<_> = store.tags().unwrap().into_iter().map(|tag| tag.reference).collect();
    assert_eq!(names, ["docker.io/library/foreign:latest"], "the other cannot be made again");
    assert_eq!(store.check(false).unwrap().problems, []);
}

#[test]
fn lock_files_are_removed() {
    needs_root!();
    let (root, store) = store();
    drop(store.lock("a-step", || {}).unwrap());
    assert!(!root.path().join("locks/a-step").exists());
    let counter = std::sync::Mutex::new(0);
    let root = root.path();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let counter = &counter;
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                for _ in 0..200 {
                    let _lock = store.lock("busy", || {}).unwrap();
                    assert!(counter.try_lock().map(|mut count| *count += 1).is_ok(), "two have one lock");
                }
            });
        }
    });
    assert_eq!(*counter.lock().unwrap(), 800);
}

/// A tar may lack its final blocks; a layer with a single whiteout is not empty.
#[test]
fn a_layer_of_one_whiteout_is_not_empty() {
    needs_root!();
    let (_root, store) = store();
    let base = unpack(&store, &[("f", "1")], &[]).unwrap();
    let bytes = tar(&[(".wh.f", "")])[..512].to_vec();
    let diff_id = DiffId(Digest::of(&bytes));
    let layer = store.unpack_layer(bytes.as_slice(), &diff_id, std::slice::from_ref(&base), None).unwrap();
    assert!(!layer.empty);
    let stack = store.stack(&[base, diff_id]).unwrap();
    assert!(!stack.has_at_root("f").unwrap());
}

#[test]
fn layers_are_removed_with_their_images() {
    needs_root!();
    let (_root, store) = store();
    let upper = [("opt/app", "app")];
    let mut chains = Vec::new();
    for name in ["a", "b"] {
        let base = unpack(&store, &[("opt/", ""), (name, "")], &[]).unwrap();
        let layer = foreign(&store, &upper, std::slice::from_ref(&base));
        let chain = vec![base, layer.diff_id.clone().unwrap()];
        chains.push((image(&store, name, chain.clone()), chain, layer.id));
    }
    store.remove_image(&store.image(&chains[0].0).unwrap().unwrap(), 9).unwrap();
    assert!(store.index.layer(&chains[0].2).unwrap().is_none(), "no image has it on that base");
    store.stack(&chains[1].1).unwrap();
    // A torn pin could refer to any layer.
    fs::write(store.root.join("pins/torn"), "").unwrap();
    store.remove_image(&store.image(&chains[1].0).unwrap().unwrap(), 9).unwrap();
    assert!(store.index.layer(&chains[1].2).unwrap().is_some());
    store.unpin("torn").unwrap();
    store.prune_steps().unwrap();
    assert!(store.index.layer(&chains[1].2).unwrap().is_none());
}

#[test]
fn removed_images_stay_removed_when_the_index_is_lost() {
    needs_root!();
    let (_root, store) = store();
    let layer = unpack(&store, &[("f", "1")], &[]).unwrap();
    let id = image(&store, "a", vec![layer]);
    // The blobs of an image stay while a build runs.
    let using = store.use_layers().unwrap();
    store.remove_image(&store.image(&id).unwrap().unwrap(), 9).unwrap();
    drop(using);
    assert!(store.blobs.contains(&id.0));
    let store = lose_index(store);
    assert_eq!(store.images().unwrap(), []);
}

/// References always refer to existing images, whatever other processes remove.
#[test]
fn references_are_to_existing_images() {
    needs_root!();
    let (root, store) = store();
    let id = image(&store, "a", vec![]);
    let record = store.image(&id).unwrap().unwrap();
    store.tag(&"b".parse().unwrap(), &id).unwrap();
    assert!(matches!(store.remove_image(&record, 1), Err(StoreError::ManyTags(_))));
    assert_eq!(store.tags().unwrap().len(), 2);
    store.remove_image(&record, 2).unwrap();
    assert!(matches!(store.tag(&"b".parse().unwrap(), &id), Err(StoreError::NoSuchImage(_))));
    assert_eq!(store.tags().unwrap(), []);
    // Concurrent calls could leave references without an image, and images that lost their last reference.
    for _ in 0..20 {
        let id = image(&store, "a", vec![]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let other = Store::open(root.path()).unwrap();
                for number in 0..10 {
                    match other.tag(&format!("n:{number}").parse().unwrap(), &id) {
                        Ok(()) => {}
                        Err(StoreError::NoSuchImage(_)) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            let other = Store::open(root.path()).unwrap();
            for name in ["a", "n:0", "n:1", "n:2"] {
                match other.remove_reference(&name.parse().unwrap()) {
                    Ok(_) | Err(StoreError::NoSuchImage(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let tags = store.tags().unwrap();
        let images = store.images().unwrap();
        assert!(tags.iter().all(|tag| images.iter().any(|image| image.id == tag.image)), "{tags:?}");
        assert_eq!(images.is_empty(), tags.is_empty(), "{images:?} {tags:?}");
        if let Some(image) = images.first() {
            store.remove_image(image, 99).unwrap();
        }
    }
}

/// A config that is also a valid manifest is not adopted when the index is recreated.
#[test]
fn configs_are_not_adopted_as_manifests() {
    needs_root!();
    let (_root, store) = store();
    let layer = unpack(&store, &[("f", "1")], &[]).unwrap();
    let id = image(&store, "victim", vec![layer.clone()]);
    let victim = store.image(&id).unwrap().unwrap();
    let other = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"elsewhere"), 9);
    let polyglot = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]},
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, &store.blobs.read(&id.0).unwrap()),
        "layers": [other],
    });
    let config = json::to_vec(&polyglot);
    let manifest = json::to_vec(&Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &config), vec![]));
    store.put_image(&manifest, media_type::OCI_MANIFEST, &config).unwrap();
    fs::remove_file(store.root.join("index.json")).unwrap();
    let store = lose_index(store);
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(store.image(&id).unwrap().unwrap().manifest, victim.manifest);
}

/// Private layers are removed when their process has ended.
#[test]
fn private_layers_are_removed_with_their_process() {
    needs_root!();
    let (root, store) = store();
    let private = store.private_layers().unwrap();
    let active = store.prepare().unwrap();
    fs::write(active.upper().join("secret"), "x").unwrap();
    let layer = store.commit_private(active, &private).unwrap();
    let other = Store::open(root.path()).unwrap();
    assert!(other.layer(&(&layer).into()).unwrap().is_some(), "its maker lives");
    // As after a kill: nothing is dropped, and the locks are free.
    let copy = root.path().join("work/killed");
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join(format!("private-{}", layer.id)), "").unwrap();
    let other = Store::open(root.path()).unwrap();
    assert!(other.layer(&(&layer).into()).unwrap().is_none() && !copy.exists());
    assert!(!root.path().join("layers").join(&layer.id).exists());
    drop(private);
}

#[test]
fn layers_have_digests_of_any_algorithm() {
    needs_root!();
    let (_root, store) = store();
    let bytes = tar(&[("b", "1"), ("a", "2")]);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
        let mut hasher = crate::digest::Hasher::new(algorithm);
        hasher.update(&bytes);
        let diff_id = DiffId(hasher.finish());
        let unpacked = store.unpack(bytes.as_slice(), &diff_id, &[]).unwrap();
        let layer = store.keep_with_tar(unpacked, || Ok(bytes.as_slice())).unwrap();
        let mut written = Vec::new();
        store.write_layer_tar(&layer, &mut written).unwrap();
        assert!(written == bytes, "{diff_id}");
    }
}
