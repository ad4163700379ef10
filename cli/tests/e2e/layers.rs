//! Layers that other tools make, and hostile ones, through `kiln load` and `kiln run`.

use crate::fixture::Fixture;
use kiln_image::digest::Digest;
use kiln_image::json;
use kiln_image::tar::{Entry, EntryKind, Reader, Writer};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn entry(kind: EntryKind, name: &str) -> (Entry, Vec<u8>) {
    (Entry { mode: 0o755, ..Entry::new(kind, name) }, Vec::new())
}

pub fn dir(name: &str) -> (Entry, Vec<u8>) {
    entry(EntryKind::Directory, name)
}

pub fn file(name: &str, content: &str) -> (Entry, Vec<u8>) {
    let (file, _) = entry(EntryKind::File, name);
    (Entry { size: content.len() as u64, ..file }, content.as_bytes().to_vec())
}

fn link(kind: EntryKind, name: &str, target: &str) -> (Entry, Vec<u8>) {
    let (link, content) = entry(kind, name);
    (Entry { link: target.as_bytes().to_vec(), ..link }, content)
}

pub fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.begin(entry).unwrap();
        writer.content(content).unwrap();
    }
    writer.finish().unwrap()
}

/// The layer of the busybox image.
pub fn busybox(fixture: &Fixture) -> Vec<u8> {
    let path = fixture.path("busybox.tar");
    fixture.ok("pull -q busybox");
    fixture.ok(&format!("save -o {} busybox", path.display()));
    let read = |wanted: &str| {
        let mut reader = Reader::new(File::open(&path).unwrap());
        while let Some(entry) = reader.next_entry().unwrap() {
            if entry.name == wanted.as_bytes() {
                let mut bytes = Vec::new();
                reader.content().read_to_end(&mut bytes).unwrap();
                return bytes;
            }
        }
        panic!("the archive has no {wanted}");
    };
    let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    read(manifest[0]["Layers"][0].as_str().unwrap())
}

/// Writes a docker-archive of an image of these layers.
pub fn archive(path: &Path, name: &str, layers: &[Vec<u8>]) {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json::to_vec(&json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {"Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }));
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}.tar")).collect();
    let manifest = json::to_vec(&json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]));
    let mut members: Vec<(Entry, Vec<u8>)> = Vec::new();
    let files = names.iter().map(String::as_str).zip(layers.iter().cloned());
    for (name, bytes) in files.chain([("config.json", config), ("manifest.json", manifest)]) {
        let (member, _) = entry(EntryKind::File, name);
        members.push((Entry { size: bytes.len() as u64, ..member }, bytes));
    }
    fs::write(path, tar(&members)).unwrap();
}

pub fn load(fixture: &Fixture, name: &str, layers: &[Vec<u8>]) -> crate::fixture::Done {
    let path = fixture.path("image.tar");
    archive(&path, name, layers);
    fixture.kiln(&["load".as_ref(), "-q".as_ref(), "-i".as_ref(), path.as_os_str()])
}

#[track_caller]
pub fn loaded(fixture: &Fixture, name: &str, layers: &[Vec<u8>]) {
    let done = load(fixture, name, layers);
    assert_eq!(done.code, 0, "{}", done.err);
}

/// A layer that puts files below a file of a lower layer, and then makes a parent of them a link to the host.
#[test]
fn layers_change_no_file_of_the_host() {
    let fixture = fixture!();
    fixture.write("canary/file", "x");
    let canary = fixture.path("canary");
    fs::set_permissions(canary.join("file"), PermissionsExt::from_mode(0o600)).unwrap();
    let stat = || {
        [canary.clone(), canary.join("file")].map(|path| {
            let it = fs::metadata(path).unwrap();
            (it.mode(), it.uid(), it.gid(), it.mtime_nsec(), it.ctime_nsec(), it.nlink())
        })
    };
    let before = stat();
    let target = canary.to_str().unwrap();
    let mut special = file("a/file", "");
    (special.0.mode, special.0.uid, special.0.gid) = (0o6777, 1234, 1234);
    let lower = tar(&[dir("a/"), special]);
    let uppers = [
        tar(&[file("a/file/x", "1"), link(EntryKind::Symlink, "a", target)]),
        tar(&[file("a/b/x", "1"), link(EntryKind::Symlink, "a", target)]),
        tar(&[link(EntryKind::Symlink, "a", target), file("a/file", "2"), dir("a/")]),
        tar(&[link(EntryKind::Symlink, "l", target), link(EntryKind::HardLink, "h", "l/file")]),
        tar(&[link(EntryKind::Symlink, "l", target), file("l/.wh.file", ""), file("l/.wh..wh..opq", "")]),
    ];
    for (number, upper) in uppers.into_iter().enumerate() {
        load(&fixture, &format!("evil:{number}"), &[lower.clone(), upper]);
        assert_eq!(stat(), before, "archive {number}");
    }
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
}

/// A hard link that replaces a link of a lower layer.
#[test]
fn layers_read_no_file_of_the_host() {
    let fixture = fixture!();
    fixture.write("canary/secret", "TOP SECRET");
    let target = fixture.path("canary").display().to_string();
    let base = busybox(&fixture);
    for (number, stolen) in ["a/secret", "a", "a/../a/secret"].into_iter().enumerate() {
        let lower = tar(&[link(EntryKind::Symlink, "a", &target)]);
        let upper = tar(&[link(EntryKind::HardLink, "stolen", stolen)]);
        let name = format!("evil:{number}");
        if load(&fixture, &name, &[base.clone(), lower, upper]).code == 0 {
            let done = fixture.words(&format!("run --rm {name} cat /stolen /stolen/secret"));
            assert!(!done.out.contains("TOP SECRET"), "{}", done.out);
        }
    }
}

/// Missing parents and hard links are resolved in each image, although both have the same layer.
#[test]
fn a_layer_depends_on_the_layers_below() {
    let fixture = fixture!();
    let base = busybox(&fixture);
    let upper = tar(&[file("data/new", "n"), link(EntryKind::HardLink, "copy", "data/old")]);
    for (number, mode) in [(1, 0o700), (2, 0o1777)] {
        let mut data = dir("data/");
        data.0.mode = mode;
        let lower = tar(&[data, file("data/old", &format!("of image {number}"))]);
        loaded(&fixture, &format!("image:{number}"), &[base.clone(), lower, upper.clone()]);
    }
    let show = |number| {
        fixture.ok(&format!("run --rm image:{number} sh -c stat${{IFS}}-c%a${{IFS}}/data;cat${{IFS}}/copy"))
    };
    assert_eq!((show(1), show(2)), ("700\nof image 1".into(), "1777\nof image 2".into()));
    // A loaded image is saved with the same bytes.
    let saved = fixture.path("saved.tar");
    fixture.ok(&format!("save -o {} image:1", saved.display()));
    let other = fixture!();
    other.ok(&format!("load -i {}", saved.display()));
    assert_eq!(other.ok("run --rm image:1 cat /copy"), "of image 1");
}

#[test]
fn layers_write_below_links_of_lower_ones() {
    let fixture = fixture!();
    let base = busybox(&fixture);
    let lower = tar(&[dir("run/"), dir("var/"), link(EntryKind::Symlink, "var/run", "/run")]);
    let upper = tar(&[file("var/run/x", "found"), file("var/run/.wh.none", "")]);
    loaded(&fixture, "linked", &[base, lower, upper]);
    assert_eq!(fixture.ok("run --rm linked cat /run/x"), "found");
    assert_eq!(fixture.ok("run --rm linked readlink /var/run"), "/run\n");
}

/// Overlayfs refuses the same directory twice.
#[test]
fn images_have_one_layer_twice() {
    let fixture = fixture!();
    let base = busybox(&fixture);
    let (once, other) = (tar(&[file("f", "1")]), tar(&[file(".wh.f", "")]));
    loaded(&fixture, "twice", &[base, once.clone(), other, once]);
    assert_eq!(fixture.ok("run --rm twice cat /f"), "1");
    let context = fixture.context("c", "FROM twice AS t\nRUN cat /f\nFROM twice\nCOPY --from=t /f /g\n");
    fixture.build("built", &context);
    assert_eq!(fixture.ok("run --rm built cat /g"), "1");
    let saved = fixture.path("saved.tar");
    fixture.ok(&format!("save -o {} built", saved.display()));
    let elsewhere = fixture!();
    elsewhere.ok(&format!("load -i {}", saved.display()));
    assert_eq!(elsewhere.ok("run --rm built cat /f /g"), "11");
}

#[test]
fn whiteouts_hide_entries_of_lower_layers_only() {
    let fixture = fixture!();
    let base = busybox(&fixture);
    let lower = tar(&[dir("d/"), file("d/old", ""), file("f", "old")]);
    let upper = tar(&[dir("d/"), file("d/new", ""), file(".wh.d", ""), file("f", "new"), file(".wh.f", "")]);
    loaded(&fixture, "image", &[base, lower, upper]);
    assert_eq!(fixture.ok("run --rm image ls /d"), "new\n");
    assert_eq!(fixture.ok("run --rm image cat /f"), "new");
}

/// Files that a squashed image creates and deletes leave no trace; deleted files of its base leave whiteouts.
#[test]
fn squashed_layers_hold_no_whiteouts_of_nothing() {
    let fixture = fixture!();
    let dockerfile = "FROM busybox\nRUN mkdir /d && touch /d/f /g /h\nRUN rm -r /d /g /bin/yes\n";
    let context = fixture.context("c", dockerfile);
    fixture.ok(&format!("build -q --squash -t squashed {}", context.display()));
    let path = fixture.path("saved.tar");
    fixture.ok(&format!("save -o {} squashed", path.display()));
    let mut names = Vec::new();
    let mut reader = Reader::new(File::open(&path).unwrap());
    while let Some(entry) = reader.next_entry().unwrap() {
        let is_layer = entry.name.starts_with(b"blobs/") && entry.size > 1024 && entry.size % 512 == 0;
        if is_layer {
            let mut layer = Reader::new(reader.content());
            while let Ok(Some(member)) = layer.next_entry() {
                names.push(String::from_utf8_lossy(&member.name).into_owned());
            }
        }
    }
    let whiteouts: Vec<_> = names.iter().filter(|name| name.contains(".wh.")).collect();
    assert_eq!(whiteouts, ["bin/.wh.yes"]);
}

/// As in the reference: neither a step nor a tar changes owner or mode of the root.
#[test]
fn the_root_of_an_image_is_the_same_everywhere() {
    let fixture = fixture!();
    fixture.build(
        "c",
        &fixture
            .context("c", "FROM busybox\nRUN chmod 1711 / && chown 5:6 /\nRUN stat -c %a:%u:%g / >/seen\n"),
    );
    let mut root = dir("./");
    (root.0.mode, root.0.uid) = (0o711, 5);
    loaded(&fixture, "named", &[busybox(&fixture), tar(&[root, file("seen", "")])]);
    let saved = fixture.path("saved.tar");
    fixture.ok(&format!("save -o {} c named", saved.display()));
    let other = fixture!();
    other.ok(&format!("load -i {}", saved.display()));
    for fixture in [&fixture, &other] {
        assert_eq!(fixture.ok("run --rm c cat /seen"), "755:0:0\n");
        for name in ["c", "named"] {
            assert_eq!(fixture.ok(&format!("run --rm {name} stat -c %a:%u:%g /")), "755:0:0\n");
        }
    }
}

/// As in the reference: extended attributes are copied from images and archives, and not from files of the host.
#[test]
fn attributes_of_context_files_stay_behind() {
    use rustix::fs::{XattrFlags, setxattr};
    let fixture = fixture!();
    // cap_net_bind_service, permitted, version 2.
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let context = fixture.context(
        "c",
        "FROM busybox\nCOPY f d /a/\nCOPY --chown=1:1 f /b\nCOPY --link f /l\nADD f /e\nADD t.tar /t/\nCOPY --from=held f /held\n",
    );
    fixture.write("c/f", "x");
    fixture.write("c/d/g", "y");
    fixture.write("held/f", "z");
    for name in ["c/f", "c/d/g", "held/f"] {
        let set = setxattr(fixture.path(name), "security.capability", &capability, XattrFlags::empty());
        if set.is_err() {
            skip!("the file system keeps no capabilities");
        }
    }
    let packed = std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=security.*", "-cf"])
        .arg(fixture.path("c/t.tar"))
        .arg("-C")
        .arg(fixture.path("held"))
        .arg("f")
        .status()
        .unwrap();
    assert!(packed.success());
    let held = format!("--build-context=held={}", fixture.path("held").display());
    let words = ["build".as_ref(), held.as_ref(), "-t".as_ref(), "x".as_ref(), context.as_os_str()];
    let done = fixture.kiln(&words);
    assert_eq!(done.code, 0, "{}", done.err);
    let holders = |image: &str| {
        let layers = fixture.path(&format!("{image}.layers"));
        fixture.ok(&format!("save --format oci-dir -o {} {image}", layers.display()));
        let found = std::process::Command::new("grep")
            .args(["-rlaF", "SCHILY.xattr.security.capability"])
            .arg(layers.join("blobs"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&found.stdout).lines().count()
    };
    assert_eq!(holders("x"), 1, "the layer of the archive alone");
    // COPY from a stage keeps them.
    let context =
        fixture.context("s", "FROM x AS a\nFROM busybox\nCOPY --from=a /t /t\nCOPY --from=a /a /a\n");
    fixture.build("y", &context);
    assert_eq!(holders("y"), 1, "the layer with the archive's file alone");
}
