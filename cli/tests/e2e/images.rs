//! Images and their names.

use crate::web_server::{Response, Server};

#[test]
fn images_are_pulled_tagged_listed_and_removed() {
    let fixture = fixture!();
    let out = fixture.ok("pull busybox");
    assert!(out.starts_with("latest: Pulling from library/busybox\n"), "{out}");
    assert!(
        out.ends_with(
            "Status: Downloaded newer image for busybox:latest\ndocker.io/library/busybox:latest\n"
        ),
        "{out}"
    );
    let again = fixture.ok("pull busybox");
    assert!(again.contains("Status: Image is up to date for busybox:latest"), "{again}");
    fixture.ok("tag busybox my/name:1");
    let list = fixture.kiln(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).out;
    assert_eq!(list, "busybox:latest\nmy/name:1\n");
    let table = fixture.ok("images");
    assert!(table.starts_with("REPOSITORY   TAG       IMAGE ID       CREATED"), "{table}");
    assert_eq!(fixture.ok("rmi my/name:1"), "Untagged: my/name:1\n");
    let removed = fixture.ok("rmi busybox");
    assert!(
        removed.starts_with("Untagged: busybox:latest\n") && removed.contains("Deleted: sha256:"),
        "{removed}"
    );
    assert_eq!(fixture.ok("images -q"), "");
    let missing = fixture.words("rmi busybox");
    let expected = "ERROR: No such image: busybox:latest\nhint: `kiln images` lists the images, `kiln pull` fetches others\n";
    assert_eq!((missing.code, missing.err.as_str()), (1, expected));
}

#[test]
fn inspect_and_history_describe_an_image() {
    let fixture = fixture!();
    let context = fixture.context(
        "c",
        "FROM busybox\nENV A=1\nLABEL who=me\nRUN echo content > /file\nEXPOSE 80\nCMD [\"echo\", \"hi\"]\n",
    );
    fixture.build("c", &context);
    let value = |template: &str| fixture.kiln(&["inspect", "-f", template, "c"]).out.trim_end().to_owned();
    assert_eq!(value("{{json .RepoTags}}"), r#"["c:latest"]"#);
    assert_eq!(value("{{json .Config.Cmd}}"), r#"["echo","hi"]"#);
    assert_eq!(value("{{index .Config.Env 1}} {{.Os}}"), "A=1 linux");
    assert_eq!(value("{{json .Config.ExposedPorts}}"), r#"{"80/tcp":{}}"#);
    assert_eq!(value("{{len .RootFS.Layers}}"), "2");
    assert!(fixture.ok("inspect c").starts_with("[\n    {\n        \"Id\": \"sha256:"));
    for (template, expected) in [
        ("{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.ExposedPorts}}", "[echo hi] [] map[80/tcp:{}]"),
        ("{{.Config.Healthcheck}} {{.Config.Shell}} {{.Config.Volumes}}|{{.Variant}}|", "<nil> [] map[]||"),
        (
            "{{json .Config.Healthcheck}} {{json .Config.OnBuild}} {{json .Config.Labels}}",
            "null null {\"who\":\"me\"}",
        ),
        ("{{.RootFS.Type}} {{.Config.Labels}} {{index .Config.Labels \"no\"}}|", "layers map[who:me] |"),
        ("{{if .Config.Healthcheck}}yes{{else}}no{{end}} {{.Config.ArgsEscaped}}", "no true"),
        ("{{.Id}}{{.ID}}", ""),
    ] {
        assert_eq!(value(template), expected, "{template}");
    }
    assert_eq!(value("{{.ID}}"), value("{{.Id}}"));
    let missing = fixture.words("inspect nothing");
    assert_eq!((missing.code, missing.out.as_str()), (1, "[]\n"));
    let expected = "ERROR: No such object: nothing\nhint: `kiln images`, `kiln ps -a`, `kiln network ls` and `kiln volume ls` list what there is\n";
    assert_eq!(missing.err, expected);

    let history = fixture
        .kiln(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", "c"])
        .out;
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines[0], r#"CMD ["echo" "hi"]|0B|buildkit.dockerfile.v0"#);
    assert_eq!(lines[1], "EXPOSE [80/tcp]|0B|buildkit.dockerfile.v0");
    assert_eq!(lines[2], "RUN /bin/sh -c echo content > /file # buildkit|8B|buildkit.dockerfile.v0");
    assert_eq!(lines[3], "LABEL who=me|0B|buildkit.dockerfile.v0");
    assert_eq!(lines[4], "ENV A=1|0B|buildkit.dockerfile.v0");
}

#[test]
fn unknown_flags_are_refused_with_advice() {
    let fixture = fixture!();
    let done = fixture.words("images --formt x");
    assert_eq!(done.code, 125);
    assert!(done.err.contains("unknown flag: --formt") && done.err.contains("--format"), "{}", done.err);
    let done = fixture.words("imags");
    assert_eq!(done.code, 1);
    assert!(done.err.contains("did you mean `kiln images`?"), "{}", done.err);
}

#[test]
fn damaged_blobs_are_named_as_damaged() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let blobs = std::fs::read_dir(fixture.root().join("blobs/sha256")).unwrap().flatten();
    let largest = blobs.max_by_key(|blob| blob.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(largest.path(), bytes).unwrap();
    let registry = Server::start(|request| match request.method.as_str() {
        "POST" => Response::new(202, "").header("Location", "/v2/x/blobs/uploads/1"),
        _ => Response::new(404, ""),
    });
    let name = format!("{}/x", registry.address);
    fixture.ok(&format!("tag busybox {name}"));
    let told = format!("blob sha256:{} in the store is damaged", largest.file_name().to_string_lossy());
    let saved = fixture.path("saved").display().to_string();
    for command in [["save", "-o", &saved, "busybox"].as_slice(), &["push", &name]] {
        let done = fixture.kiln(command);
        assert!(done.code == 1 && done.err.contains(&told), "{command:?}: {}", done.err);
        assert!(done.err.contains("hint: run `kiln system check --repair`"), "{}", done.err);
    }
}

/// The config of the only image in an OCI layout, changed; names of blobs follow.
fn change_config(layout: &std::path::Path, change: impl FnOnce(&mut serde_json::Value)) {
    use kiln_image::digest::Digest;
    let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
    let read = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let write = |value: &serde_json::Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = Digest::of(&bytes).to_string();
        std::fs::write(blob(&digest), &bytes).unwrap();
        (digest, bytes.len())
    };
    let mut index = read(&layout.join("index.json"));
    let mut manifest = read(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let mut config = read(&blob(manifest["config"]["digest"].as_str().unwrap()));
    change(&mut config);
    let (digest, size) = write(&config);
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = write(&manifest);
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    index["manifests"][0].as_object_mut().unwrap().remove("platform");
    std::fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn images_for_the_32_bit_mode_or_for_nothing_in_particular_are_built_upon_and_run() {
    let fixture = fixture!();
    let host = kiln_image::platform::Platform::host().architecture;
    let other = match host.as_str() {
        "amd64" => Some("386"),
        "arm64" => Some("arm"),
        _ => None,
    };
    let none = serde_json::Value::Null;
    let cases = [("empty", Some("".into())), ("null", Some(none.clone())), ("absent", None)];
    let cases = cases.into_iter().chain(other.map(|other| ("mode", Some(other.into()))));
    for (name, architecture) in cases {
        let layout = fixture.path(name);
        let context = fixture.context("c", "FROM busybox\nENV MARK=seen\n");
        let output = format!("type=oci,tar=false,dest={}", layout.display());
        let done = fixture.kiln(&[
            "build".as_ref(),
            "-o".as_ref(),
            std::ffi::OsStr::new(&output),
            context.as_os_str(),
        ]);
        assert_eq!(done.code, 0, "{}", done.err);
        change_config(&layout, |config| {
            let config = config.as_object_mut().unwrap();
            let keys: &[&str] = if name == "mode" { &["architecture"] } else { &["architecture", "os"] };
            for key in keys {
                match &architecture {
                    Some(value) => config.insert((*key).to_owned(), serde_json::Value::clone(value)),
                    None => config.remove(*key),
                };
            }
        });
        let loaded = fixture.kiln(&["load".as_ref(), "-i".as_ref(), layout.as_os_str()]);
        assert_eq!(loaded.code, 0, "{name}: {}", loaded.err);
        let id = loaded.out.trim().rsplit(' ').next().unwrap().to_owned();
        fixture.ok(&format!("tag {id} local/{name}"));
        let run = fixture.words(&format!("run --rm local/{name} echo ran"));
        assert_eq!((run.code, run.out.as_str()), (0, "ran\n"), "{name}: {}", run.err);
        let text = format!("FROM local/{name}\nRUN echo built $MARK\n");
        let progress = fixture.build("upon", &fixture.context("d", &text));
        assert!(progress.contains(" built seen\n"), "{name}: {progress}");
    }
}

/// `--platform` of a stage is for its base alone: --from takes the image for the target, and the only one that there is here.
#[test]
fn images_of_from_are_those_for_the_target() {
    let fixture = fixture!();
    let dockerfile =
        "FROM --platform=linux/s390x scratch AS base\nFROM base\nCOPY --from=busybox /bin/busybox /b\n";
    let context = fixture.context("c", dockerfile);
    let done = fixture.kiln(&["build".as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    // A stage on another stage is for that one's platform.
    let context =
        fixture.context("d", "FROM --platform=linux/s390x scratch AS base\nFROM base\nRUN [\"/x\"]\n");
    let plan = fixture.kiln(&["build".as_ref(), "--call=plan".as_ref(), context.as_os_str()]);
    assert!(plan.code == 0 && plan.out.contains(" for linux/s390x"), "{}{}", plan.out, plan.err);
}

#[test]
fn images_are_imported_from_tars() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("run --name web busybox touch /new");
    let tar = fixture.path("web.tar").display().to_string();
    fixture.ok(&format!("export -o {tar} web"));
    let id = fixture.kiln(&[
        "import",
        "-c",
        "CMD [\"ls\", \"/new\"]",
        "-c",
        "ENV A=b",
        "-m",
        "copied",
        &tar,
        "copy:1",
    ]);
    assert_eq!(id.out.trim().len(), "sha256:".len() + 64, "{}", id.err);
    assert_eq!(fixture.ok("run --rm copy:1"), "/new\n");
    let config = fixture.ok("inspect -f {{.Config.Env}}{{.Comment}} copy:1");
    assert_eq!(config, "[A=b]copied\n");
    // Compressed, from a pipe, for another platform; the same files are one layer.
    let gzip = std::process::Command::new("gzip").args(["-kn", &tar]).status();
    assert!(gzip.unwrap().success());
    let mut command = fixture.command(&["import", "--platform", "linux/arm64", "-", "copy:2"]);
    command.stdin(std::fs::File::open(format!("{tar}.gz")).unwrap());
    assert!(command.output().unwrap().status.success());
    let layers = |name: &str| fixture.ok(&format!("inspect -f {{{{.RootFS.Layers}}}} {name}"));
    assert_eq!(layers("copy:1"), layers("copy:2"));
    assert_eq!(fixture.ok("inspect -f {{.Architecture}} copy:2"), "arm64\n");
    assert!(fixture.ok("history --format {{.Comment}} copy:2").contains("Imported from -"));
    // Over the network.
    let bytes = std::fs::read(&tar).unwrap();
    let server = crate::web_server::Server::start(move |request| match request.path.as_str() {
        "/web.tar" => crate::web_server::Response::new(200, bytes.clone()),
        _ => crate::web_server::Response::new(404, ""),
    });
    fixture.ok(&format!("import {} copy:3", server.url("/web.tar")));
    assert_eq!(layers("copy:1"), layers("copy:3"));
    fixture.write("garbage", "no tar");
    let garbage = fixture.path("garbage").display().to_string();
    for (source, reason) in [
        (garbage.as_str(), "the tar stream ends in the middle of an entry"),
        ("/nosuch", "cannot open `/nosuch`: No such file or directory"),
        ("/tmp", "it is a directory"),
        (&server.url("/nosuch"), "invalid response status 404"),
    ] {
        let done = fixture.words(&format!("import {source} bad:1"));
        assert!(done.code == 1 && done.err.contains(reason), "{source}: {}", done.err);
    }
    assert_eq!(fixture.ok("images -q bad"), "");
    // A stream without an end that is no tar is refused at its begin.
    let endless = fixture.words("import /dev/urandom bad:1");
    assert!(endless.code == 1 && endless.err.contains("invalid tar header"), "{}", endless.err);
    let refused = fixture.kiln(&["import", "-c", "RUN x", &tar]);
    assert!(
        refused.code == 1 && refused.err.contains("RUN is not a valid change command"),
        "{}",
        refused.err
    );
    fixture.ok("rm web");
    assert!(fixture.ok("system check").ends_with("all are sound\n"));
}
