//! Pulls from a working registry, and from failing ones.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use kiln_image::digest::Digest;
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use kiln_registry::testing::{Faults, LayoutServer, PackOptions, pack};
use kiln_registry::{PullEvent, Pulled, Registry, RegistryError, Settings};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

macro_rules! needs_root {
    () => {
        if !is_root() {
            eprintln!("SKIPPED: needs root (layers hold owners and trusted attributes)");
            return;
        }
    };
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

struct Fixture {
    dir: tempfile::TempDir,
    server: LayoutServer,
}

impl Fixture {
    /// Registry with `library/base:1`, a layer of a few hundred kilobytes.
    fn new(faults: Faults) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/name"), "base").unwrap();
        // Marsaglia's xorshift: its output cannot be compressed.
        let mut state = 1u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        let noise: Vec<u8> = (0..400_000).map(|_| next()).collect();
        fs::write(root.join("noise"), noise).unwrap();
        let options = PackOptions {
            name: "docker.io/library/base:1".into(),
            cmd: vec!["sh".into()],
            created: "2024-01-01T00:00:00Z".into(),
        };
        pack(&root, &dir.path().join("layout"), &options).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = LayoutServer::start(listen, vec![dir.path().join("layout")], faults).unwrap();
        Fixture { dir, server }
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("store")).unwrap()
    }

    fn pull_with(&self, name: &str, progress: &(dyn Fn(PullEvent) + Sync)) -> Result<Pulled, RegistryError> {
        let mirrors = self.server.address().to_string().parse().unwrap();
        let patience = Some(Duration::from_millis(300));
        let registry = Registry::new(Settings { mirrors, patience, ..Settings::default() }).unwrap();
        let reference: Reference = name.parse().unwrap();
        registry.pull(&self.store(), &reference, &Platform::host(), progress)
    }

    fn pull(&self, name: &str) -> Result<Pulled, RegistryError> {
        self.pull_with(name, &|_| {})
    }

    fn blob_requests(&self) -> usize {
        self.server.requests().iter().filter(|request| request.contains("/blobs/")).count()
    }
}

#[test]
fn an_image_is_downloaded_only_once() {
    needs_root!();
    let fixture = Fixture::new(Faults::default());
    let events = Mutex::new(Vec::new());
    let pulled = fixture.pull_with("base:1", &|event| events.lock().unwrap().push(event)).unwrap();
    assert!(pulled.is_new);
    let events = events.into_inner().unwrap();
    assert!(matches!(events.first(), Some(PullEvent::Resolved(_, layers)) if layers.len() == 1));
    assert!(matches!(events.last(), Some(PullEvent::Complete(_))));
    let store = fixture.store();
    let image = store.resolve("base:1").unwrap();
    assert_eq!(image.id, pulled.image);
    assert_eq!(
        store.repo_digests(&image.id).unwrap(),
        [("docker.io/library/base".into(), pulled.digest.clone())]
    );
    let blobs = fixture.blob_requests();
    assert!(!fixture.pull("base:1").unwrap().is_new);
    assert_eq!(fixture.blob_requests(), blobs + 1, "the config again, but no layer");
    assert_eq!(fixture.pull(&format!("base@{}", pulled.digest)).unwrap().image, image.id);
}

#[test]
fn transient_failures_are_retried() {
    needs_root!();
    let fixture = Fixture::new(Faults { unavailable: 2, ..Faults::default() });
    fixture.pull("base:1").unwrap();
    for no_ranges in [false, true] {
        let fixture = Fixture::new(Faults { cut_first_blob: Some(1000), no_ranges, ..Faults::default() });
        fixture.pull("base:1").unwrap();
    }
    let fixture = Fixture::new(Faults { cut_first_blob: Some(100_000), ..Faults::default() });
    fixture.pull("base:1").unwrap();
    // Resumed as often as necessary while there is progress.
    let fixture = Fixture::new(Faults { cut_blobs: Some(20_000), ..Faults::default() });
    fixture.pull("base:1").unwrap();
    assert!(fixture.blob_requests() > 8, "{}", fixture.blob_requests());
    let fixture = Fixture::new(Faults { cut_blobs: Some(20_000), no_ranges: true, ..Faults::default() });
    assert!(matches!(fixture.pull("base:1"), Err(RegistryError::Incomplete { .. })));
}

#[test]
fn silent_registries_are_retried_and_given_up() {
    needs_root!();
    for no_ranges in [false, true] {
        let fixture = Fixture::new(Faults { stall_blobs: 2, no_ranges, ..Faults::default() });
        fixture.pull("base:1").unwrap();
    }
    let fixture = Fixture::new(Faults { stall_blobs: 1000, no_ranges: true, ..Faults::default() });
    let error = fixture.pull("base:1").unwrap_err();
    assert!(matches!(&error, RegistryError::Incomplete { received: 1000, expected: Some(_), .. }), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "the server sent nothing for 0.3 s");
    // The locks are free again.
    assert!(fixture.pull("base:1").is_err());
}

#[test]
fn tokens_are_fetched_once() {
    needs_root!();
    let fixture = Fixture::new(Faults { token: true, ..Faults::default() });
    fixture.pull("base:1").unwrap();
    let tokens = fixture.server.requests().iter().filter(|request| request.contains("/token")).count();
    assert_eq!(tokens, 1, "{:?}", fixture.server.requests());
}

#[test]
fn content_with_another_digest_is_refused() {
    needs_root!();
    let fixture = Fixture::new(Faults { corrupt_blobs: true, ..Faults::default() });
    let error = fixture.pull("base:1").unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    assert!(fixture.store().images().unwrap().is_empty());
    let wrong = format!("base@{}", Digest::of(b"other"));
    assert!(fixture.pull(&wrong).is_err());
}

#[test]
fn missing_images_are_reported() {
    needs_root!();
    let fixture = Fixture::new(Faults::default());
    let error = fixture.pull("base:2").unwrap_err();
    assert_eq!(error.to_string(), "manifest for base:2 not found: manifest unknown");
    let work: PathBuf = fixture.dir.path().join("store/work");
    assert_eq!(fs::read_dir(work).unwrap().count(), 0);
}
