use super::*;
use crate::tar::{Entry, EntryKind, Reader, Writer};
use crate::testing::needs_root;
use crate::tree::merged::MergedDir;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

fn entry(kind: EntryKind, name: &str) -> Entry {
    Entry { mode: 0o755, mtime: 1_700_000_000, ..Entry::new(kind, name) }
}

fn dir(name: &str) -> (Entry, &'static [u8]) {
    (entry(EntryKind::Directory, name), b"")
}

fn file(name: &str, content: &'static [u8]) -> (Entry, &'static [u8]) {
    (Entry { size: content.len() as u64, mode: 0o644, ..entry(EntryKind::File, name) }, content)
}

fn link(kind: EntryKind, name: &str, target: &str) -> (Entry, &'static [u8]) {
    (Entry { link: target.as_bytes().to_vec(), ..entry(kind, name) }, b"")
}

fn tar(entries: &[(Entry, &'static [u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.begin(entry).unwrap();
        writer.content(content).unwrap();
    }
    writer.finish().unwrap()
}

fn unpack(entries: &[(Entry, &'static [u8])]) -> (tempfile::TempDir, Result<Applied, ApplyError>) {
    unpack_on(&[], entries)
}

/// Unpacks a layer above the layer directories `below`, the highest first.
fn unpack_on(
    below: &[&Path],
    entries: &[(Entry, &'static [u8])],
) -> (tempfile::TempDir, Result<Applied, ApplyError>) {
    let root = tempfile::tempdir().unwrap();
    let tree =
        || Some(MergedDir::root(below.iter().map(|path| crate::sys::open_dir(path).unwrap()).collect()));
    let applied = apply(tar(entries).as_slice(), root.path(), Below::Layers(&tree));
    (root, applied)
}

/// Kinds of all paths: `d`, `f content`, `l target`, `w` for a whiteout, `c`, `b`, `p`.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let shown = if kind.is_dir() {
                walk(&path, root, found);
                "d".to_owned()
            } else if kind.is_symlink() {
                format!("l {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_char_device() && metadata.rdev() == 0 {
                "w".to_owned()
            } else if kind.is_char_device() {
                "c".to_owned()
            } else if kind.is_fifo() {
                "p".to_owned()
            } else {
                format!("f {}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), shown);
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

fn expect_tree(root: &Path, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(path, kind)| ((*path).to_owned(), (*kind).to_owned())).collect();
    assert_eq!(tree(root), expected);
}

fn names(bytes: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(bytes);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.name).unwrap());
    }
    names
}

#[test]
fn a_layer_unpacks_and_packs_to_the_same_bytes() {
    needs_root!();
    let mut device = entry(EntryKind::CharDevice, "dev/null");
    (device.major, device.minor, device.mode) = (1, 3, 0o666);
    let mut special = file("bin/su", b"x");
    special.0.mode = 0o4755;
    special.0.uid = 12;
    special.0.gid = 34;
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    special.0.xattrs.insert(b"security.capability".to_vec(), capability);
    let entries = [
        dir("bin/"),
        file("bin/a", b"hello"),
        special,
        dir("dev/"),
        (device, b""),
        (entry(EntryKind::Fifo, "dev/pipe"), b""),
        link(EntryKind::HardLink, "hard", "bin/a"),
        link(EntryKind::Symlink, "soft", "/bin/a"),
    ];
    let mut entries = entries.to_vec();
    entries[6].0.mode = 0o644;
    entries[7].0.mode = 0o777;
    let (root, applied) = unpack(&entries);
    let applied = applied.unwrap();
    assert_eq!((applied.size, applied.asked_below), (12, false));
    assert_eq!(diff(root.path(), Vec::new()).unwrap(), tar(&entries));
    let metadata = fs::metadata(root.path().join("bin/su")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid()), (0o4755, 12, 34));
}

#[test]
fn whiteouts_are_converted_to_overlayfs_and_back() {
    needs_root!();
    let entries = [dir("a/"), file("a/.wh..wh..opq", b""), file("a/.wh.gone", b""), file("a/new", b"n")];
    let (root, applied) = unpack(&entries);
    assert!(!applied.unwrap().opaque_root);
    expect_tree(root.path(), &[("a", "d"), ("a/gone", "w"), ("a/new", "f n")]);
    let packed = diff(root.path(), Vec::new()).unwrap();
    assert_eq!(names(&packed), ["a/", "a/.wh..wh..opq", "a/.wh.gone", "a/new"]);
    let again = tempfile::tempdir().unwrap();
    apply(packed.as_slice(), again.path(), Below::Nothing).unwrap();
    assert_eq!(diff(again.path(), Vec::new()).unwrap(), packed);
}

#[test]
fn a_replaced_dir_hides_the_old_one() {
    needs_root!();
    let (root, applied) = unpack(&[file(".wh.d", b""), dir("d/"), file("d/x", b"")]);
    applied.unwrap();
    assert_eq!(names(&diff(root.path(), Vec::new()).unwrap()), ["d/", "d/.wh..wh..opq", "d/x"]);
    // A whiteout hides lower layers, wherever it is in the tar (image-spec, layer.md).
    let (root, applied) =
        unpack(&[file("d/x", b""), file(".wh.d", b""), file("f", b"1"), file(".wh.f", b"")]);
    applied.unwrap();
    assert_eq!(names(&diff(root.path(), Vec::new()).unwrap()), ["d/", "d/.wh..wh..opq", "d/x", "f"]);
    let (_root, applied) = unpack(&[file(".wh..wh..opq", b"")]);
    assert!(applied.unwrap().opaque_root);
}

#[test]
fn later_entries_replace_earlier_ones() {
    needs_root!();
    let (root, applied) = unpack(&[
        file("a", b"1"),
        file("a", b"2"),
        dir("b/"),
        file("b/x", b""),
        file("b", b"now a file"),
        link(EntryKind::Symlink, "c", "a"),
        dir("c/"),
    ]);
    applied.unwrap();
    expect_tree(root.path(), &[("a", "f 2"), ("b", "f now a file"), ("c", "d")]);
}

#[test]
fn metadata_missing_in_a_tar_comes_from_the_layers_below() {
    needs_root!();
    let mut sticky = dir("tmp/");
    (sticky.0.mode, sticky.0.uid, sticky.0.mtime) = (0o1777, 7, 5);
    let base = [
        sticky,
        dir("run/"),
        dir("var/"),
        link(EntryKind::Symlink, "var/run", "/run"),
        file("var/old", b"content"),
        link(EntryKind::Symlink, "var/l", "old"),
    ];
    let (lower, applied) = unpack(&base);
    assert!(!applied.unwrap().asked_below);
    let (root, applied) = unpack_on(
        &[lower.path()],
        &[
            file("tmp/a", b"1"),
            file("var/run/b", b"2"),
            link(EntryKind::HardLink, "c", "var/old"),
            link(EntryKind::HardLink, "d", "var/l"),
            file("e/f", b"3"),
        ],
    );
    assert!(applied.unwrap().asked_below);
    let expected = [
        ("c", "f content"),
        ("d", "l old"),
        ("e", "d"),
        ("e/f", "f 3"),
        ("run", "d"),
        ("run/b", "f 2"),
        ("tmp", "d"),
        ("tmp/a", "f 1"),
        ("var", "d"),
        ("var/l", "l old"),
        ("var/old", "f content"),
    ];
    expect_tree(root.path(), &expected);
    let metadata = fs::metadata(root.path().join("tmp")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.mtime()), (0o1777, 7, 5));
    let metadata = fs::metadata(root.path().join("e")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.mtime()), (0o755, 0, 0));
}

#[test]
fn tars_that_need_missing_layers_are_errors() {
    needs_root!();
    let missing = |entries: &[(Entry, &'static [u8])]| {
        let root = tempfile::tempdir().unwrap();
        let applied = apply(tar(entries).as_slice(), root.path(), Below::Layers(&|| None));
        assert!(matches!(applied, Err(ApplyError::NeedsBelow(_))), "{applied:?}");
    };
    missing(&[file("a/b", b"")]);
    missing(&[link(EntryKind::HardLink, "h", "a")]);
    let (_root, applied) = unpack(&[link(EntryKind::HardLink, "h", "a")]);
    assert!(matches!(applied, Err(ApplyError::MissingLink(_))), "{applied:?}");
    let (_root, applied) = unpack(&[dir("d/"), link(EntryKind::HardLink, "h", "d")]);
    assert!(matches!(applied, Err(ApplyError::DirectoryLink(_))), "{applied:?}");
    let (_root, applied) = unpack(&[file("a", b""), link(EntryKind::HardLink, "a", "a")]);
    assert!(matches!(applied, Err(ApplyError::MissingLink(_))), "{applied:?}");
}

/// Owner, mode and time of host files stay unchanged, although links of layers lead to them.
#[test]
fn links_of_a_layer_do_not_reach_the_host() {
    needs_root!();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "secret").unwrap();
    let stat = || {
        ["", "file"].map(|name| {
            let metadata = fs::symlink_metadata(host.path().join(name)).unwrap();
            (
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.ctime(),
                metadata.nlink(),
            )
        })
    };
    let before = stat();
    let target = host.path().to_str().unwrap().to_owned();
    let mut special = file("a/file", b"");
    (special.0.mode, special.0.uid) = (0o6777, 1234);
    let (lower, applied) = unpack(&[dir("a/"), special, link(EntryKind::Symlink, "out", &target)]);
    applied.unwrap();
    let (_root, applied) =
        unpack_on(&[lower.path()], &[file("a/file/x", b"1"), link(EntryKind::Symlink, "a", &target)]);
    assert!(matches!(applied, Err(ApplyError::NotADirectory(_))), "{applied:?}");
    let (_root, applied) = unpack_on(
        &[lower.path()],
        &[
            file("a/d/x", b"1"),
            link(EntryKind::Symlink, "a", &target),
            link(EntryKind::Symlink, "b", &target),
        ],
    );
    applied.unwrap();
    for stolen in ["out/file", "out"] {
        let (root, applied) = unpack_on(&[lower.path()], &[link(EntryKind::HardLink, "stolen", stolen)]);
        match applied {
            Err(ApplyError::MissingLink(_)) => {}
            Ok(_) => assert_eq!(tree(root.path())["stolen"], format!("l {target}")),
            Err(error) => panic!("{error}"),
        }
    }
    let (_root, applied) = unpack_on(&[lower.path()], &[file("out/new", b""), file("out/.wh.file", b"")]);
    applied.unwrap();
    assert_eq!(stat(), before);
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
}

#[test]
fn times_of_directories_do_not_follow_links() {
    needs_root!();
    let at = |name: &str, mtime: i64| {
        let mut entry = dir(name);
        entry.0.mtime = mtime;
        entry
    };
    let (root, applied) = unpack(&[at("a/", 5), at("b/", 7), link(EntryKind::Symlink, "a", "b")]);
    applied.unwrap();
    assert_eq!(fs::metadata(root.path().join("b")).unwrap().mtime(), 7);
}

/// As in the reference, an entry for the root has no effect.
#[test]
fn entries_for_the_root_have_no_effect() {
    needs_root!();
    let mut root_entry = dir("./");
    (root_entry.0.mode, root_entry.0.uid) = (0o700, 9);
    let (root, applied) = unpack(&[root_entry, file("f", b"")]);
    assert!(!applied.unwrap().asked_below);
    let metadata = fs::metadata(root.path()).unwrap();
    assert_eq!(metadata.uid(), 0);
    assert_eq!(names(&diff(root.path(), Vec::new()).unwrap()), ["f"]);
}

#[test]
fn paths_stay_inside() {
    needs_root!();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    let refused = |entries: &[(Entry, &'static [u8])]| {
        let (_root, applied) = unpack(entries);
        assert!(matches!(applied, Err(ApplyError::Outside(_) | ApplyError::Whiteout(_))), "{applied:?}");
    };
    refused(&[file("../evil", b"")]);
    refused(&[file("a/../../evil", b"")]);
    refused(&[link(EntryKind::HardLink, "h", "../../etc/passwd")]);
    refused(&[file(".wh...", b"")]);
    refused(&[file("a/.wh.", b"")]);

    // An absolute link is resolved inside the image: files written through it are created there.
    let (root, applied) = unpack(&[link(EntryKind::Symlink, "l", &target), file("l/evil", b"x")]);
    applied.unwrap();
    assert!(!outside.path().join("evil").exists());
    assert!(root.path().join(target.trim_start_matches('/')).join("evil").exists());

    let up = format!("{}{target}", "../".repeat(20));
    let (_root, applied) = unpack(&[link(EntryKind::Symlink, "l", &up), file("l/evil", b"x")]);
    applied.unwrap();
    let (_root, applied) = unpack(&[link(EntryKind::Symlink, "l", &target), file(".wh.l", b"")]);
    applied.unwrap();
    let (_root, applied) =
        unpack(&[link(EntryKind::Symlink, "l", &target), link(EntryKind::HardLink, "h", "l/secret")]);
    assert!(matches!(applied, Err(ApplyError::MissingLink(_))), "{applied:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(outside.path().join("secret").exists());
}

#[test]
fn link_loops_and_files_as_dirs_are_errors() {
    needs_root!();
    let (_root, applied) =
        unpack(&[link(EntryKind::Symlink, "a", "b"), link(EntryKind::Symlink, "b", "a"), file("a/x", b"")]);
    assert!(matches!(applied, Err(ApplyError::Call(_))), "{applied:?}");
    let (_root, applied) = unpack(&[file("a", b""), file("a/x", b"")]);
    assert!(matches!(applied, Err(ApplyError::NotADirectory(_))), "{applied:?}");
}

#[test]
fn overlay_attributes_in_tars_are_dropped() {
    needs_root!();
    let mut evil = file("f", b"");
    evil.0.xattrs.insert(b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec());
    evil.0.xattrs.insert(b"user.overlay.opaque".to_vec(), b"y".to_vec());
    let (root, applied) = unpack(&[evil]);
    applied.unwrap();
    let mut names = [0u8; 256];
    let length = rustix::fs::listxattr(root.path().join("f"), &mut names).unwrap();
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    assert!(!names.contains("overlay"), "{names:?}");
}

#[test]
fn long_runs_of_zeros_are_not_stored() {
    needs_root!();
    static ZEROS: [u8; 4 << 20] = [0; 4 << 20];
    let (root, applied) = unpack(&[file("zeros", &ZEROS)]);
    applied.unwrap();
    let metadata = fs::metadata(root.path().join("zeros")).unwrap();
    assert_eq!(metadata.len(), 4 << 20);
    assert!(metadata.blocks() < 64, "{} blocks", metadata.blocks());
}

#[test]
fn hard_links_are_preserved() {
    needs_root!();
    let root = tempfile::tempdir().unwrap();
    for (index, name) in ["b", "a", "d/c"].iter().enumerate() {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match index {
            0 => fs::write(&path, "x").unwrap(),
            _ => fs::hard_link(root.path().join("b"), &path).unwrap(),
        }
    }
    let bytes = diff(root.path(), Vec::new()).unwrap();
    let mut reader = Reader::new(bytes.as_slice());
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        seen.push((
            String::from_utf8(entry.name).unwrap(),
            entry.kind,
            String::from_utf8(entry.link).unwrap(),
        ));
    }
    let expected = [
        ("a".into(), EntryKind::File, String::new()),
        ("b".into(), EntryKind::HardLink, "a".into()),
        ("d/".into(), EntryKind::Directory, String::new()),
        ("d/c".into(), EntryKind::HardLink, "a".into()),
    ];
    assert_eq!(seen, expected);
}

struct Keep;

impl Change for Keep {
    fn change(&self, metadata: Metadata, _kind: rustix::fs::FileType) -> Metadata {
        metadata
    }
}

const ROOT_OWNED: Metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: (5, 0) };

/// Copies `name` of a source created by `make` to `destination` above a lower tree, and returns the layer.
fn copied(
    make: &dyn Fn(&Path),
    lower: &dyn Fn(&Path),
    name: &CStr,
    destination: &str,
) -> (tempfile::TempDir, Result<(), WriteError>) {
    let (source, below, upper) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(source.path());
    lower(below.path());
    let open = |path: &Path| crate::sys::open_dir(path).unwrap();
    let mut writer = LayerWriter::new(upper.path(), Some(open(below.path()))).unwrap();
    let source = open(source.path());
    let result = writer.copy(&CopyRequest {
        source: source.as_fd(),
        name,
        base: name.to_bytes(),
        destination: destination.as_bytes(),
        dirs: ROOT_OWNED,
        selection: &Everything,
        attributes: true,
        change: &Keep,
    });
    writer.finish().unwrap();
    (upper, result)
}

fn two_files(root: &Path) {
    fs::create_dir_all(root.join("d/sub")).unwrap();
    fs::write(root.join("d/f"), "f").unwrap();
    fs::write(root.join("d/sub/g"), "g").unwrap();
}

fn nothing(_root: &Path) {}

#[test]
fn the_destination_of_a_file_follows_copy() {
    needs_root!();
    let one = |root: &Path| fs::write(root.join("f"), "x").unwrap();
    let check = |destination: &str, lower: &dyn Fn(&Path), expected: &[(&str, &str)]| {
        let (layer, result) = copied(&one, lower, c"f", destination);
        result.unwrap();
        expect_tree(layer.path(), expected);
    };
    check("/a/b", &nothing, &[("a", "d"), ("a/b", "f x")]);
    check("/a/b/", &nothing, &[("a", "d"), ("a/b", "d"), ("a/b/f", "f x")]);
    check("/", &nothing, &[("f", "f x")]);
    let dir = |root: &Path| fs::create_dir_all(root.join("a/b")).unwrap();
    check("/a/b", &dir, &[("a", "d"), ("a/b", "d"), ("a/b/f", "f x")]);
    let linked = |root: &Path| {
        fs::create_dir_all(root.join("real")).unwrap();
        std::os::unix::fs::symlink("/real", root.join("l")).unwrap();
    };
    check("/l/x", &linked, &[("real", "d"), ("real/x", "f x")]);
    check("/l", &linked, &[("real", "d"), ("real/f", "f x")]);
    let dangling = |root: &Path| std::os::unix::fs::symlink("../../../z", root.join("l")).unwrap();
    check("/l", &dangling, &[("z", "f x")]);
}

#[test]
fn contents_of_a_directory_are_copied() {
    needs_root!();
    let (layer, result) = copied(&two_files, &nothing, c"d", "/x/y");
    result.unwrap();
    expect_tree(
        layer.path(),
        &[("x", "d"), ("x/y", "d"), ("x/y/f", "f f"), ("x/y/sub", "d"), ("x/y/sub/g", "f g")],
    );
}

#[test]
fn dirs_below_are_copied_up_with_their_metadata() {
    needs_root!();
    let lower = |root: &Path| {
        let dir = root.join("x");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        fs::File::open(&dir).unwrap().set_modified(time).unwrap();
    };
    let (layer, result) = copied(&two_files, &lower, c"d", "/x/new");
    result.unwrap();
    let metadata = fs::metadata(layer.path().join("x")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o1777, 1000));
}

#[test]
fn kinds_do_not_replace_each_other() {
    needs_root!();
    let blocked = |root: &Path| {
        fs::create_dir_all(root.join("x/f")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        fs::create_dir_all(root.join("y")).unwrap();
        fs::write(root.join("y/sub"), "").unwrap();
    };
    let (_layer, result) = copied(&two_files, &blocked, c"d", "/x");
    assert!(matches!(result, Err(WriteError::DirInTheWay(_))), "{result:?}");
    let (_layer, result) = copied(&two_files, &blocked, c"d", "/file");
    assert!(matches!(result, Err(WriteError::NotADir(_))), "{result:?}");
    let (_layer, result) = copied(&two_files, &blocked, c"d", "/y");
    assert!(matches!(result, Err(WriteError::NotADir(_))), "{result:?}");
}

#[test]
fn hard_links_within_a_copy_stay_linked() {
    needs_root!();
    let make = |root: &Path| {
        fs::create_dir_all(root.join("d/sub")).unwrap();
        fs::write(root.join("d/a"), "x").unwrap();
        fs::hard_link(root.join("d/a"), root.join("d/sub/b")).unwrap();
    };
    let (layer, result) = copied(&make, &nothing, c"d", "/t");
    result.unwrap();
    let inode = |path: &str| fs::metadata(layer.path().join(path)).unwrap().ino();
    assert_eq!(inode("t/a"), inode("t/sub/b"));
}

#[test]
fn contents_are_preserved_through_a_tar() {
    needs_root!();
    let (layer, result) = copied(&two_files, &nothing, c"d", "/x");
    result.unwrap();
    let bytes = diff(layer.path(), Vec::new()).unwrap();
    let again = tempfile::tempdir().unwrap();
    apply(bytes.as_slice(), again.path(), Below::Nothing).unwrap();
    assert_eq!(tree(layer.path()), tree(again.path()));
    let mut content = String::new();
    fs::File::open(again.path().join("x/sub/g")).unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "g");
}

/// Each directory is searched once, however many whiteouts it has.
#[test]
fn repeated_whiteouts_take_constant_time() {
    needs_root!();
    let mut entries = vec![dir("x/")];
    let names: Vec<String> = (0..2000).map(|number| format!("x/{number}/")).collect();
    entries.extend(names.iter().map(|name| dir(name)));
    entries.extend(
        (0..20_000).map(|number| file(if number % 2 == 0 { "x/.wh..wh..opq" } else { ".wh.x" }, b"")),
    );
    let (root, applied) = unpack(&entries);
    applied.unwrap();
    assert_eq!(fs::read_dir(root.path().join("x")).unwrap().count(), 2000);
}

/// A directory that exists only as the parent of an opaque whiteout is removed like any other.
#[test]
fn a_whiteout_deletes_a_directory_that_was_made_opaque() {
    needs_root!();
    let (below, applied) = unpack(&[file("d/x", b"x")]);
    applied.unwrap();
    let (root, applied) = unpack_on(&[below.path()], &[file("d/.wh..wh..opq", b""), file(".wh.d", b"")]);
    applied.unwrap();
    assert_eq!(tree(root.path()), BTreeMap::from([("d".to_owned(), "w".to_owned())]));
}

/// Neither handles nor time grow with the depth of a tree.
#[test]
fn the_order_of_entries_does_not_change_the_cost() {
    needs_root!();
    let deep = "d/".repeat(1500);
    let mut hopping = vec![dir(&deep)];
    let mut straight = hopping.clone();
    let names = |at: usize| [format!("{deep}f{at}"), format!("x{at}")];
    for at in 0..1000 {
        hopping.extend(names(at).iter().map(|name| file(name, b"")));
    }
    for which in [0, 1] {
        straight.extend((0..1000).map(|at| file(&names(at)[which], b"")));
    }
    let timed = |entries: &[(Entry, &'static [u8])]| {
        let begun = std::time::Instant::now();
        let (root, applied) = unpack(entries);
        applied.unwrap();
        let took = begun.elapsed();
        crate::sys::remove_path(root.path()).unwrap();
        took
    };
    let (straight, hopping) = (timed(&straight), timed(&hopping));
    assert!(hopping < straight * 10, "{hopping:?} {straight:?}");
}

#[test]
fn paths_longer_than_the_kernel_accepts_are_refused() {
    needs_root!();
    for name in ["d/".repeat(2048) + "f", "n".repeat(4096)] {
        let (_root, applied) = unpack(&[file(&name, b"")]);
        assert!(
            matches!(applied, Err(ApplyError::Call(error)) if error.errno == rustix::io::Errno::NAMETOOLONG)
        );
    }
    // Links expand short paths to long ones.
    let deep = "d/".repeat(1500);
    let (_root, applied) =
        unpack(&[dir(&deep), link(EntryKind::Symlink, "l", &deep), dir(&format!("l/{deep}"))]);
    assert!(matches!(applied, Err(ApplyError::Call(error)) if error.errno == rustix::io::Errno::NAMETOOLONG));
}

#[test]
fn too_large_attributes_are_reported() {
    needs_root!();
    let mut large = file("f", b"");
    large.0.xattrs.insert(b"user.large".to_vec(), vec![b'x'; 70_000]);
    let (_root, applied) = unpack(&[large]);
    let error = applied.unwrap_err();
    assert!(!error.is_full());
    let text = error.to_string();
    assert!(text.contains("`user.large` (70000 bytes) of `f`"), "{text}");
}

#[test]
fn replaced_directories_are_forgotten() {
    needs_root!();
    let (root, applied) = unpack(&[
        dir("a/b/c/"),
        file("a/b/c/f", b"1"),
        dir("a-b/"),
        file("a", b"2"),
        dir("a/"),
        file("a/b", b"3"),
        link(EntryKind::HardLink, "h", "a/b"),
        dir("a-b/c/"),
    ]);
    applied.unwrap();
    let expected = [("a", "d"), ("a-b", "d"), ("a-b/c", "d"), ("a/b", "f 3"), ("h", "f 3")];
    let expected: BTreeMap<String, String> =
        expected.map(|(path, kind)| (path.to_owned(), kind.to_owned())).into();
    assert_eq!(tree(root.path()), expected);
}
