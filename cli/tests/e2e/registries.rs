//! Registries and proxies: their answers and failures are reported as such.

use crate::fixture::{Done, Fixture};
use crate::web_server::{Request, Response, Server};
use kiln_image::digest::{Algorithm, Digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const OCI: &str = "application/vnd.oci.image.";

/// A registry with one repository.
#[derive(Clone, Default)]
struct Content {
    blobs: BTreeMap<String, Vec<u8>>,
    manifest: Value,
}

impl Content {
    fn descriptor(&mut self, kind: &str, bytes: &[u8], algorithm: Algorithm) -> Value {
        let digest = Digest::with(algorithm, bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// An image of one layer with the file `/hello`.
    fn image(algorithm: Algorithm) -> Content {
        let mut content = Content::default();
        let mut tar = vec![0u8; 2048];
        tar[..5].copy_from_slice(b"hello");
        tar[100..124].copy_from_slice(b"0000644\x000000000\x000000000\x00");
        tar[124..136].copy_from_slice(b"00000000003\x00");
        tar[136..148].copy_from_slice(b"00000000000\x00");
        tar[148..156].copy_from_slice(b"        ");
        tar[156] = b'0';
        tar[257..265].copy_from_slice(b"ustar\x0000");
        tar[512..515].copy_from_slice(b"hi\n");
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let config = json!({
            "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_string()]},
        });
        let config =
            content.descriptor(&format!("{OCI}config.v1+json"), config.to_string().as_bytes(), algorithm);
        let layer = content.descriptor(&format!("{OCI}layer.v1.tar"), &tar, algorithm);
        let kind = format!("{OCI}manifest.v1+json");
        content.manifest =
            json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        content
    }

    fn serve(self) -> Server {
        let manifest = self.manifest.to_string();
        Server::start(move |request: &Request| {
            let version = request.path.rsplit('/').next().unwrap_or_default();
            if request.path.contains("/manifests/") {
                let kind = self.manifest["mediaType"].as_str().unwrap();
                return match version.strip_prefix("sha256:") {
                    Some(hex) if hex != Digest::of(manifest.as_bytes()).hex() => Response::new(404, "{}"),
                    _ => Response::new(200, manifest.clone()).header("Content-Type", kind),
                };
            }
            match self.blobs.get(version) {
                Some(bytes) => Response::new(200, bytes.clone()),
                None => Response::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
            }
        })
    }
}

fn pull(fixture: &Fixture, server: &Server) -> Done {
    fixture.kiln(&["pull".to_owned(), format!("{}/x:1", server.address)])
}

fn fails(fixture: &Fixture, content: Content) -> String {
    let server = content.serve();
    let done = pull(fixture, &server);
    assert_eq!(done.code, 1, "{}{}", done.out, done.err);
    done.err.replace(&server.address, "HOST")
}

#[test]
fn artifacts_are_reported_as_artifacts() {
    let fixture = fixture!();
    let mut chart = Content::default();
    let kind = "application/vnd.cncf.helm.config.v1+json";
    let config = chart.descriptor(kind, b"{\"name\":\"c\"}", Algorithm::Sha256);
    let layer =
        chart.descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"x", Algorithm::Sha256);
    let manifest = format!("{OCI}manifest.v1+json");
    chart.manifest = json!({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer]});
    let err = fails(&fixture, chart.clone());
    assert!(err.contains(&format!("HOST/x:1 is a Helm chart (`{kind}`), not an image")), "{err}");
    assert!(err.contains("hint: "), "{err}");
    let server = chart.serve();
    let text = format!("FROM {}/x:1\n", server.address);
    let done = fixture.fails(&fixture.context("c", &text));
    assert!(done.err.contains("is a Helm chart"), "{}", done.err);
}

#[test]
fn digests_of_other_kinds_are_verified() {
    let fixture = fixture!();
    let content = Content::image(Algorithm::Sha512);
    let server = content.clone().serve();
    let done = pull(&fixture, &server);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    let name = format!("{}/x:1", server.address);
    assert!(fixture.ok(&format!("inspect {name}")).contains("\"/hello\""));
    fixture.ok(&format!("save -o {} {name}", fixture.path("saved").display()));
    fixture.ok("system check");
    fixture.ok(&format!("rmi {name}"));
    for part in ["config", "layer"] {
        let mut damaged = content.clone();
        let descriptor = match part {
            "config" => &damaged.manifest["config"],
            _ => &damaged.manifest["layers"][0],
        };
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let bytes = damaged.blobs.get_mut(&digest).unwrap();
        // In the middle of the file's content.
        let at = if part == "config" { bytes.len() - 1 } else { 513 };
        bytes[at] ^= 1;
        let err = fails(&fixture, damaged);
        assert!(err.contains("does not match its digest"), "{err}");
        assert!(part == "layer" || (err.contains("sha512:") && !err.contains("sha256:")), "{err}");
    }
}

#[test]
fn blobs_and_manifests_that_are_missing_are_named() {
    let fixture = fixture!();
    for (part, what) in [("config", "the config"), ("layer", "layer 1")] {
        let mut content = Content::image(Algorithm::Sha256);
        let descriptor = match part {
            "config" => &content.manifest["config"],
            _ => &content.manifest["layers"][0],
        };
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        content.blobs.remove(&digest);
        let err = fails(&fixture, content);
        let expected = format!("HOST/x:1: the registry has no blob {digest}, which is {what} of the image");
        assert!(err.contains(&expected), "{err}");
    }
    let zeros = format!("sha256:{}", "0".repeat(64));
    let entry = json!({"mediaType": format!("{OCI}manifest.v1+json"), "digest": zeros, "size": 2,
        "platform": {"os": "linux", "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }}});
    let kind = format!("{OCI}index.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]});
    let err = fails(&fixture, Content { manifest, ..Content::default() });
    assert!(
        err.contains(&format!(
            "the registry has no manifest {zeros}, which the image's index names for linux/"
        )),
        "{err}"
    );
}

#[test]
fn long_waits_are_reported_at_once_and_short_ones_as_they_pass() {
    let fixture = fixture!();
    let words =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit\u001b[2J."}]}"#;
    let server = Server::start(move |_| Response::new(429, words).header("Retry-After", "3600"));
    let begun = std::time::Instant::now();
    let done = pull(&fixture, &server);
    assert!(begun.elapsed().as_secs() < 60);
    assert_eq!(done.code, 1);
    assert!(
        done.err.contains("429: You have reached your limit^[[2J. (it asks to wait 1 h before"),
        "{}",
        done.err
    );
    assert!(done.err.contains("hint: try again later"), "{}", done.err);

    let content = Content::image(Algorithm::Sha256);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let manifest = content.manifest.to_string();
    let server = Server::start(move |request| {
        if asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            return Response::new(429, words).header("Retry-After", "2");
        }
        let version = request.path.rsplit('/').next().unwrap_or_default();
        match content.blobs.get(version) {
            Some(bytes) => Response::new(200, bytes.clone()),
            None => Response::new(200, manifest.clone()),
        }
    });
    let text = format!("FROM {}/x:1\n", server.address);
    let done = fixture.kiln(&["build".as_ref(), fixture.context("c", &text).as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    let expected = format!("[waiting] {} answers 429: You have reached your limit^[[2J.", server.address);
    assert!(done.err.contains(&expected) && done.err.contains("trying again in 2 s"), "{}", done.err);
}

#[test]
fn files_and_images_come_through_the_proxies_of_the_environment() {
    let fixture = fixture!();
    let proxy = Server::start(|request| match request.method.as_str() {
        "CONNECT" if request.path.starts_with("secret.") => Response::new(407, ""),
        "CONNECT" => Response::new(403, ""),
        _ => Response::new(200, "from the proxy\n"),
    });
    let address = format!("http://me:hush@{}", proxy.address);
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = fixture.command(arguments);
        Done::of(command.envs(variables.iter().copied()).output().unwrap())
    };
    let text =
        "FROM busybox\nADD http://files.example.test/x /x\nRUN cat /x; env | grep -i proxy || echo none\n";
    let context = fixture.context("c", text).display().to_string();
    for variable in ["HTTP_PROXY", "http_proxy"] {
        // The mirror of the base image is on loopback, which is asked directly.
        let done = run(&["build", "--no-cache", &context], &[(variable, &address)]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.err.contains("from the proxy") && done.err.contains(" none\n"), "{}", done.err);
    }
    let seen = proxy.requests();
    assert!(seen.iter().all(|request| request.path == "http://files.example.test/x"), "{seen:?}");
    assert!(
        seen.iter().all(|request| request.header("proxy-authorization") == "Basic bWU6aHVzaA=="),
        "{seen:?}"
    );
    let excepted = [("HTTP_PROXY", address.as_str()), ("NO_PROXY", "example.test")];
    assert_eq!(run(&["build", "--no-cache", &context], &excepted).code, 1);
    assert_eq!(proxy.requests().len(), seen.len());

    let done = run(&["pull", "registry.example.test/a/b"], &[("https_proxy", &address)]);
    let told = format!(
        "the proxy http://{} that https_proxy names refuses to connect to registry.example.test:443: 403",
        proxy.address
    );
    assert!(done.code == 1 && done.err.contains(&told) && !done.err.contains("hush"), "{}", done.err);
    assert!(done.err.contains("NO_PROXY=HOST"), "{}", done.err);
    assert_eq!(proxy.requests().last().unwrap().path, "registry.example.test:443");
    let done = run(&["pull", "secret.example.test/a"], &[("ALL_PROXY", &address)]);
    assert!(done.err.contains("does not accept the user and password"), "{}", done.err);
    let done = run(&["pull", "x.example.test/a"], &[("HTTPS_PROXY", "gopher://p")]);
    assert!(done.err.contains("the proxy that HTTPS_PROXY names cannot be used: its scheme"), "{}", done.err);
}

#[test]
fn repositories_come_through_the_proxies_of_the_environment() {
    let fixture = fixture!();
    let proxy = Server::start(|_| Response::new(503, ""));
    let context = fixture.context("c", "FROM scratch\nADD http://git.example.test/r.git /r\n");
    let mut command = fixture.command(&["build".as_ref(), context.as_os_str()]);
    let done = Done::of(command.env("HTTP_PROXY", format!("http://{}", proxy.address)).output().unwrap());
    assert_eq!(done.code, 1, "{}", done.err);
    let seen = proxy.requests();
    assert!(
        seen.first().is_some_and(|seen| seen.path.starts_with("http://git.example.test/r.git/")),
        "{seen:?}"
    );
    let context = fixture.context("l", "FROM scratch\nADD http://localhost:1/r.git /r\n");
    let mut command = fixture.command(&["build".as_ref(), context.as_os_str()]);
    command.env("HTTP_PROXY", format!("http://{}", proxy.address)).output().unwrap();
    assert_eq!(proxy.requests().len(), seen.len(), "loopback is asked directly");
}

#[test]
fn answers_that_cannot_be_written_are_errors() {
    let fixture = fixture!();
    fixture.ok("run --name one busybox true");
    let lists = [
        "images",
        "images -q",
        "ps -a",
        "history busybox",
        "inspect busybox",
        "inspect one",
        "inspect -f {{.Id}} busybox",
        "info",
        "version",
        "tag --help",
        "oci features",
        "run --rm busybox echo hi",
        "system check",
    ];
    for list in lists {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let words: Vec<&str> = list.split(' ').collect();
        let done = Done::of(fixture.command(&words).stdout(full).stderr(Stdio::piped()).output().unwrap());
        assert_eq!(done.code, 1, "kiln {list}: {}", done.err);
        assert!(
            done.err.contains("cannot write to standard output: No space left on device"),
            "{}",
            done.err
        );
    }
    // A reader that closes the pipe early is no error.
    let mut child = fixture.command(&["inspect", "busybox"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    fixture.ok("rm one");
}
