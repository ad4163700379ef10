use super::*;
use crate::manifest::media_type;
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

/// An image of the given layers under a tag.
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
    let active = store.prepare(&stack).unwrap();
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
    let empty = store.commit(store.prepare(&stack).unwrap()).unwrap();
    assert!(empty.empty);
    let stack = store.stack_on(&stack, &empty);
    let view = store.view_mount(&stack, &[]);
    assert!(!options(&view).join(",").contains(&empty.id));
    let (diff_id, size) = store.diff_id(&(&empty).into()).unwrap();
    assert_eq!(size, 1024);
    assert_eq!(diff_id.0.hex(), "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn dropped_snapshots_leave_nothing() {
    needs_root!();
    let (root, store) = store();
    let active = store.prepare(&Stack::empty()).unwrap();
    fs::create_dir_all(active.upper().join("a/b")).unwrap();
    drop(active);
    assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 0);
}

#[test]
fn wrong_layers_are_refused() {
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
fn folders_that_a_tar_does_not_name_come_from_below() {
    needs_root!();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (_root, store) = store();
    let base = {
        let mut writer = Writer::new(Vec::new());
        let folder = Entry { mode: 0o1777, uid: 7, mtime: 5, ..Entry::new(EntryKind::Directory, "d/") };
        writer.begin(&folder).unwrap();
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
    store.remove_image(&record).unwrap();
    assert!(store.find_layer(&layer, &[]).unwrap().is_some(), "somebody is building");
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
fn cache_records_need_their_layer() {
    needs_root!();
    let (_root, store) = store();
    let layer = store.commit(store.prepare(&Stack::empty()).unwrap()).unwrap();
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
        // Whether the other thread is waiting already or not: it must not get the lock before it is free.
        drop(lock);
        waiter.join().unwrap()
    });
    let _ = handle;
}

#[test]
fn foreign_layers_survive_a_crash() {
    needs_root!();
    let (root, store) = store();
    // In an order that our packer would not choose.
    let bytes = tar(&[("z", "1"), ("a", "2")]);
    let diff_id = DiffId(Digest::of(&bytes));
    let unpacked = store.unpack(bytes.as_slice(), &diff_id, &[]).unwrap();
    let layer = store.keep_with_tar(unpacked, || Ok(bytes.as_slice())).unwrap();
    assert_eq!(layer.blob, Some(diff_id.0.clone()));
    // The machine went down, and one file did not make it to the disk.
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

/// Packs, keeps and returns a layer that another tool made.
fn foreign(store: &Store, files: &[(&str, &str)], below: &[DiffId]) -> LayerRecord {
    let bytes = tar(files);
    let unpacked = store.unpack(bytes.as_slice(), &DiffId(Digest::of(&bytes)), below).unwrap();
    store.keep_with_tar(unpacked, || Ok(bytes.as_slice())).unwrap()
}

#[test]
fn layers_without_named_parents_survive_a_crash() {
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
    // A directory that is gone is made again, too.
    sys::remove_path(&store.root.join("layers").join(&layer.id)).unwrap();
    store.layer_of(&diff_id, below).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "app");
}

#[test]
fn an_unknown_boot_is_never_the_same_boot() {
    needs_root!();
    let (_root, mut store) = store();
    store.boot = String::new();
    let layer = store.commit(store.prepare(&Stack::empty()).unwrap()).unwrap();
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
        .execute_batch(
            "ALTER TABLE layer DROP COLUMN below; ALTER TABLE layer DROP COLUMN names_root; PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(index);
    let store = Store::open(root.path()).unwrap();
    let found = store.layer_of(layer.diff_id.as_ref().unwrap(), std::slice::from_ref(&base)).unwrap();
    assert_eq!(found.below.as_deref(), Some(std::slice::from_ref(&base)), "it was unpacked again");
}
