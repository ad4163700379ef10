use super::*;
use crate::config::{ImageConfig, RootFs};
use crate::digest::{DiffId, Digest};
use crate::json;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::reference::Reference;
use crate::store::{Store, StoreError};
use crate::tar::{Entry, EntryKind, Writer};
use crate::testing::needs_root;
use std::fs;
use std::io::Write;

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn entry(kind: EntryKind, name: &str, size: usize) -> Entry {
    Entry { mode: 0o755, size: size as u64, ..Entry::new(kind, name) }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        writer.begin(&entry(EntryKind::File, name, content.len())).unwrap();
        writer.content(content).unwrap();
    }
    writer.finish().unwrap()
}

fn config(layers: &[&[u8]]) -> (Vec<u8>, ImageId) {
    let diff_ids = layers.iter().map(|layer| DiffId(Digest::of(layer))).collect();
    ImageConfig { rootfs: RootFs { diff_ids, ..RootFs::default() }, ..ImageConfig::default() }.encode()
}

/// A docker-archive as other tools write it: different file names, and the second layer a link to the first.
fn docker_archive(layer: &[u8]) -> Vec<u8> {
    let (config, _) = config(&[layer, layer]);
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["some/name:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
    let mut writer = Writer::new(Vec::new());
    for (name, content) in
        [("c.json", config.as_slice()), ("./a/layer.tar", layer), ("manifest.json", manifest)]
    {
        writer.begin(&entry(EntryKind::File, name, content.len())).unwrap();
        writer.content(content).unwrap();
    }
    let mut link = entry(EntryKind::Symlink, "b/layer.tar", 0);
    link.link = b"../a/layer.tar".to_vec();
    writer.begin(&link).unwrap();
    writer.finish().unwrap()
}

/// A layer whose entries are in another order than that of our packer.
fn foreign_layer() -> Vec<u8> {
    tar(&[("z", b"last first"), ("a", b"first last")])
}

fn request(store: &Store, name: &str) -> SaveRequest {
    let name: Reference = name.parse().unwrap();
    SaveRequest::new(store.find(&name).unwrap().unwrap(), vec![name])
}

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn loaded_images_are_saved_unchanged() {
    needs_root!();
    let layer = foreign_layer();
    let (_root, first) = store();
    let loaded = load(&first, write(&docker_archive(&layer)).path()).unwrap();
    assert_eq!(loaded[0].image, config(&[&layer, &layer]).1);
    assert_eq!(loaded[0].names[0].familiar(), "some/name:1");

    let mut archive = Vec::new();
    save_tar(&first, &[request(&first, "some/name:1")], &mut archive).unwrap();
    let mut again = Vec::new();
    save_tar(&first, &[request(&first, "some/name:1")], &mut again).unwrap();
    assert_eq!(archive, again);

    let (_root, second) = store();
    let gzipped = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive).unwrap();
        gzip.finish().unwrap()
    };
    for bytes in [archive, gzipped] {
        let loaded_again = load(&second, write(&bytes).path()).unwrap();
        assert_eq!(loaded_again[0].image, loaded[0].image);
        assert_eq!(loaded_again[0].names, loaded[0].names);
    }
}

#[test]
fn saved_directories_are_oci_layouts() {
    needs_root!();
    let (root, first) = store();
    load(&first, write(&docker_archive(&foreign_layer())).path()).unwrap();
    let dir = root.path().join("layout");
    save_dir(&first, &[request(&first, "some/name:1")], &dir).unwrap();
    assert!(dir.join("oci-layout").exists() && !dir.join("manifest.json").exists());
    let again = save_dir(&first, &[request(&first, "some/name:1")], &dir);
    assert!(matches!(again, Err(ArchiveError::NotEmpty(_))), "{again:?}");

    let (_root, second) = store();
    let loaded = load(&second, &dir).unwrap();
    assert_eq!(loaded[0].names[0].familiar(), "some/name:1");
    assert_eq!(loaded[0].image, first.resolve("some/name:1").unwrap().id);
}

#[test]
fn names_move_to_loaded_images() {
    needs_root!();
    let (_root, store) = store();
    let name: Reference = "some/name:1".parse().unwrap();
    let (bytes, id) = config(&[]);
    let manifest = json::to_vec(&Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &bytes), vec![]));
    store.put_image(&manifest, media_type::OCI_MANIFEST, &bytes).unwrap();
    store.tag(&name, &id).unwrap();
    let loaded = load(&store, write(&docker_archive(&foreign_layer())).path()).unwrap();
    assert_eq!(loaded[0].renamed, [(name, id)]);
}

/// An archive must not replace an image by naming its own image like that image's id.
#[test]
fn names_that_look_like_ids_are_refused() {
    needs_root!();
    let (_root, store) = store();
    let victim = load(&store, write(&docker_archive(&foreign_layer())).path()).unwrap()[0].image.clone();
    let (bytes, own) = config(&[]);
    let hex = victim.0.hex();
    let manifest = json::to_vec(&Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &bytes), vec![]));
    let (config_blob, manifest_blob) =
        (format!("blobs/sha256/{}", own.0.hex()), format!("blobs/sha256/{}", Digest::of(&manifest).hex()));
    for name in [
        victim.to_string(),
        hex.to_owned(),
        format!("{hex}:latest"),
        format!("docker.io/library/sha256:{hex}"),
        "sha256:abc".to_owned(),
    ] {
        let list = format!(r#"[{{"Config":"c.json","RepoTags":["{name}"],"Layers":[]}}]"#);
        let docker = tar(&[("manifest.json", list.as_bytes()), ("c.json", &bytes)]);
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
        descriptor.annotations.insert("io.containerd.image.name".to_owned(), name.clone());
        let index = json::to_vec(&crate::manifest::Index::oci(vec![descriptor]));
        let layout = tar(&[
            ("index.json", index.as_slice()),
            (config_blob.as_str(), &bytes),
            (manifest_blob.as_str(), &manifest),
        ]);
        for archive in [docker, layout] {
            let error = load(&store, write(&archive).path()).unwrap_err();
            assert!(matches!(error, ArchiveError::Store(StoreError::Reference(_))), "{name}: {error:?}");
        }
        assert_eq!(store.resolve(&victim.to_string()).unwrap().id, victim);
        assert_eq!(store.resolve(hex).unwrap().id, victim);
    }
}

#[test]
fn broken_archives_are_refused() {
    needs_root!();
    let (_root, store) = store();
    let check = |bytes: &[u8], expected: &str| {
        let error = load(&store, write(bytes).path()).unwrap_err();
        let mut words = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            words.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        assert!(words.contains(expected), "{words}");
    };
    check(&tar(&[("a", b"b")]), "it is not an image archive");
    check(
        b"no tar at all, but long enough to have a first block of five hundred and twelve bytes",
        "archive",
    );
    check(&tar(&[("manifest.json", b"[{]")]), "`manifest.json` in the archive is malformed");
    let absent = br#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#;
    check(&tar(&[("manifest.json", absent)]), "`c.json` and does not contain it");
    let layer = foreign_layer();
    let (config, _) = config(&[&layer]);
    let other = tar(&[("other", b"content")]);
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["l"]}]"#;
    check(
        &tar(&[("manifest.json", manifest), ("c.json", &config), ("l", &other)]),
        "does not match its digest",
    );
    let outside = br#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#;
    check(&tar(&[("manifest.json", outside)]), "does not contain it");
    assert!(store.images().unwrap().is_empty());
    let leftovers = fs::read_dir(store.root().join("layers")).unwrap().flatten();
    assert_eq!(leftovers.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
}

/// The memory for an archive is bounded, however small it is compressed.
#[test]
fn archives_with_too_many_names_are_refused() {
    needs_root!();
    let (_root, store) = store();
    let compressed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let mut tar = Writer::new(compressed);
    let name = "n".repeat(1 << 19);
    for number in 0..260 {
        tar.begin(&Entry::new(EntryKind::File, format!("{name}{number}"))).unwrap();
    }
    let archive = tar.finish().unwrap().finish().unwrap();
    let refused = load_stream(&store, archive.as_slice());
    assert!(matches!(refused, Err(ArchiveError::TooManyFiles)), "{refused:?}");
}
