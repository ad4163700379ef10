use super::*;
use kiln_image::store::Stack;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["true"]},
    "rootfs":{"type":"layers","diff_ids":[]}}"#;

struct Bed {
    _dir: tempfile::TempDir,
    store: Store,
    image: Image,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.put_image(b"{}", "application/vnd.oci.image.manifest.v1+json", CONFIG).unwrap();
        let record = store.resolve(&id.to_string()).unwrap();
        let image = store.read_image(record).unwrap();
        Bed { _dir: dir, store, image }
    }

    fn containers(&self) -> Containers<'_> {
        Containers::open(&self.store).unwrap()
    }

    /// Creates a container without a monitor; returns its id.
    fn make(&self, name: &str, auto_remove: bool) -> String {
        let containers = self.containers();
        let options = RunOptions { name: Some(name.to_owned()), auto_remove, ..RunOptions::default() };
        containers.create(&self.image, "image", &options).unwrap().container.id
    }
}

fn ids(containers: &Containers<'_>) -> Vec<String> {
    containers.list().unwrap().iter().map(|one| one.id().to_owned()).collect()
}

/// Function that replaces a record with something else.
type Damage = fn(&Path, &[u8]);

fn damages() -> Vec<(&'static str, Damage)> {
    vec![
        ("empty", |path, _| fs::write(path, "").unwrap()),
        ("truncated", |path, record| fs::write(path, &record[..record.len() / 2]).unwrap()),
        ("zeros", |path, record| fs::write(path, vec![0; record.len()]).unwrap()),
        ("other JSON", |path, _| fs::write(path, "[1, {\"id\": null}]").unwrap()),
        ("deep JSON", |path, _| fs::write(path, "[".repeat(1 << 20)).unwrap()),
        ("no UTF-8", |path, record| fs::write(path, [record, b"\xff"].concat()).unwrap()),
        ("unknown state", |path, record| {
            let text = String::from_utf8(record.to_vec()).unwrap().replace("Created", "Frozen");
            fs::write(path, text).unwrap();
        }),
        ("another id", |path, record| {
            let text = String::from_utf8(record.to_vec()).unwrap();
            let id = text[7..71].to_owned();
            fs::write(path, text.replace(&id, &"0".repeat(64))).unwrap();
        }),
        ("a name that climbs", |path, record| {
            let text = String::from_utf8(record.to_vec()).unwrap();
            fs::write(path, text.replace("\"name\":\"torn", "\"name\":\"../torn")).unwrap();
        }),
        ("huge", |path, _| fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
        ("a directory", |path, _| fs::create_dir_all(path.join("x")).unwrap()),
        ("a link", |path, _| std::os::unix::fs::symlink("/etc/hostname", path).unwrap()),
        ("a link to itself", |path, _| std::os::unix::fs::symlink(path, path).unwrap()),
        ("a pipe", |path, _| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }),
        ("a socket", |path, _| {
            // Not with bind(2), which limits the length of paths.
            let kind = rustix::fs::FileType::Socket;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o600.into(), 0).unwrap();
        }),
    ]
}

#[test]
fn a_damaged_record_concerns_its_container_alone() {
    let bed = Bed::new();
    let containers = bed.containers();
    let good = bed.make("good", false);
    for (number, (what, damage)) in damages().into_iter().enumerate() {
        let id = bed.make(&format!("torn{number}"), false);
        let path = containers.path(&id).join("container.json");
        let record = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        damage(&path, &record);
        let listed = containers.list().unwrap();
        assert_eq!(listed.len(), 2, "{what}");
        let torn = listed.iter().find(|one| one.id() == id).unwrap();
        assert!(matches!(torn, Listed::Damaged(_)), "{what}");
        assert_eq!(torn.name(), format!("torn{number}"), "{what}");
        assert_eq!(containers.of_image(&bed.image.record.id).unwrap().len(), 1, "{what}");
        assert!(bed.store.root().join("pins").join(&id).exists(), "{what}: its layers stay");
        assert!(matches!(containers.find("good").unwrap(), Listed::Sound(_)), "{what}");
        containers.remove(&containers.find(&format!("torn{number}")).unwrap(), false).unwrap();
        assert_eq!(ids(&containers), [good.as_str()], "{what}");
        assert!(!bed.store.root().join("pins").join(&id).exists(), "{what}");
        assert_eq!(containers.names_of(&id), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn a_damaged_lock_concerns_its_container_alone() {
    let bed = Bed::new();
    let containers = bed.containers();
    let id = bed.make("torn", true);
    let lock = containers.path(&id).join("lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let listed = containers.find("torn").unwrap();
    assert!(matches!(listed, Listed::Damaged(_)));
    containers.remove(&listed, false).unwrap();
    assert_eq!(ids(&containers), Vec::<String>::new());
}

#[test]
fn records_of_newer_versions_with_more_fields_are_read() {
    let bed = Bed::new();
    let containers = bed.containers();
    let path = containers.path(&bed.make("new", false)).join("container.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('{', "{\"future\":{\"a\":[1]},", 1)).unwrap();
    assert!(matches!(containers.find("new").unwrap(), Listed::Sound(_)));
}

#[test]
fn what_is_no_container_is_left_alone() {
    let bed = Bed::new();
    let containers = bed.containers();
    let dir = containers.path("");
    fs::create_dir_all(dir.join("lost+found/x")).unwrap();
    fs::write(dir.join("note"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", dir.join("f".repeat(64))).unwrap();
    fs::create_dir(dir.join("closed")).unwrap();
    fs::set_permissions(dir.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(ids(&containers), Vec::<String>::new());
    for name in ["lost+found/x", "note", &"f".repeat(64), "closed"] {
        assert!(dir.join(name).symlink_metadata().is_ok(), "{name}");
    }
}

#[test]
fn what_dead_processes_left_goes() {
    let bed = Bed::new();
    let containers = bed.containers();
    let id = "a".repeat(64);
    for prefix in [".new-", ".dead-"] {
        fs::create_dir(containers.path(&format!("{prefix}{id}"))).unwrap();
        bed.store.pin(&id, &Stack::empty()).unwrap();
        std::os::unix::fs::symlink(&id, containers.path("names").join("ghost")).unwrap();
        assert_eq!(ids(&containers), Vec::<String>::new());
        assert!(!containers.path(&format!("{prefix}{id}")).exists());
        assert!(!bed.store.root().join("pins").join(&id).exists());
        assert_eq!(containers.names_of(&id), Vec::<String>::new());
    }
    // Name that points to an id without a directory.
    std::os::unix::fs::symlink(&id, containers.path("names").join("ghost")).unwrap();
    let ghost = bed.make("ghost", false);
    assert_eq!(containers.names_of(&ghost), ["ghost"]);
}

#[test]
fn containers_in_the_making_are_not_taken_for_dead() {
    let bed = Bed::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let containers = bed.containers();
                while !stop.load(Ordering::Relaxed) {
                    for listed in containers.list().unwrap() {
                        assert!(matches!(listed, Listed::Sound(_)));
                    }
                }
            });
        }
        let makers: Vec<_> = (0..2)
            .map(|number| {
                let bed = &bed;
                scope.spawn(move || {
                    let containers = bed.containers();
                    for turn in 0..200 {
                        let name = (turn % 2 == 0).then(|| format!("name{number}"));
                        let options =
                            RunOptions { name, auto_remove: turn % 3 == 0, ..RunOptions::default() };
                        let owned = containers.create(&bed.image, "image", &options).unwrap();
                        assert!(owned.dir().join("container.json").exists());
                        owned.remove().unwrap();
                    }
                })
            })
            .collect();
        for maker in makers {
            maker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(ids(&bed.containers()), Vec::<String>::new());
    assert_eq!(fs::read_dir(bed.containers().path("names")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(bed.store.root().join("pins")).unwrap().count(), 0);
}
