//! Claims of README, CHANGELOG and `--help` that have no test in the other modules.

use crate::attacks::tar_header;
use crate::fixture::{Done, Fixture};
use crate::flags::registry;
use crate::hosts::on_changed;
use crate::web_server::{Response, Server};
use kiln_image::digest::Digest;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a command with variables in its environment.
fn with(fixture: &Fixture, variables: &[(&str, &str)], arguments: &[&str]) -> Done {
    Done::of(fixture.command(arguments).envs(variables.iter().copied()).output().unwrap())
}

/// Runs a command that reads `input`.
fn piped(fixture: &Fixture, arguments: &[&str], input: &[u8]) -> Done {
    let mut command = fixture.command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Done::of(child.wait_with_output().unwrap())
}

/// Compresses bytes with a program of the host.
fn packed(fixture: &Fixture, program: &str, bytes: &[u8]) -> Vec<u8> {
    fs::write(fixture.path("plain"), bytes).unwrap();
    let input = fs::File::open(fixture.path("plain")).unwrap();
    let done = Command::new(program).arg("-c").stdin(input).output().unwrap();
    assert!(done.status.success(), "{program}");
    done.stdout
}

/// Asserts success and returns the output.
#[track_caller]
fn ok(done: Done) -> String {
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    done.out
}

const CONTENT: &str = "FROM busybox\nRUN echo content > /f\nCMD [\"cat\", \"/f\"]\n";

fn context(fixture: &Fixture, name: &str, dockerfile: &str) -> String {
    fixture.context(name, dockerfile).display().to_string()
}

#[test]
fn a_project_is_built_where_it_lies() {
    let fixture = fixture!();
    let project = fixture.context("project", CONTENT);
    let mut command = fixture.command(&["build", "-t", "name", "-t", "other:1", "--label", "a=b", "."]);
    ok(Done::of(command.current_dir(project).output().unwrap()));
    assert_eq!(fixture.ok("run --rm name"), "content\n");
    assert_eq!(fixture.ok("images -q other:1"), fixture.ok("images -q name"));
    let labels = fixture.kiln(&["inspect", "-f", "{{json .Config.Labels}}", "name"]);
    assert_eq!(labels.out, "{\"a\":\"b\"}\n");
}

#[test]
fn explain_names_the_reason_of_each_step() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nARG A=1\nRUN echo $A > /a\nCOPY f /f\n");
    let why = |flag: &str| {
        let done = fixture.kiln(&["build", "--explain", flag, &dir]);
        assert_eq!(done.code, 0, "{}", done.err);
        let lines = done.err.lines().filter_map(|line| line.split_once(" why: "));
        lines.map(|(_, why)| why.to_owned()).collect::<Vec<_>>()
    };
    fixture.write("c/f", "one");
    assert_eq!(why("--label=a=b"), ["no earlier build of this Dockerfile is known"; 2]);
    assert_eq!(why("--label=a=b"), Vec::<String>::new());
    fixture.write("c/f", "two");
    assert_eq!(why("--label=a=b"), ["file f changed"]);
    let changed = "the build argument A changed from `1` to `2`";
    assert_eq!(
        why("--build-arg=A=2"),
        [changed.to_owned(), format!("`RUN echo 2 > /a` before it: {changed}")]
    );
}

#[test]
fn values_come_from_the_environment() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nARG A\nRUN echo $A > /a\n");
    let variables = [("A", "from here"), ("SOURCE_DATE_EPOCH", "1500000000")];
    ok(with(&fixture, &variables, &["build", "-q", "-t", "c", "--build-arg=A", &dir]));
    assert_eq!(fixture.ok("run --rm c cat /a"), "from here\n");
    assert_eq!(fixture.ok("inspect -f {{.Created}} c"), "2017-07-14T02:40:00Z\n");
    let verified = fixture.words("verify c");
    assert_eq!(verified.code, 0, "the values are remembered: {}{}", verified.out, verified.err);
    // The flag takes precedence over the variable.
    ok(with(&fixture, &variables, &["build", "-q", "-t", "c", "--source-date-epoch=1600000000", &dir]));
    assert_eq!(fixture.ok("inspect -f {{.Created}} c"), "2020-09-13T12:26:40Z\n");

    fixture.write("variables", "# a comment\nA=of the file\nB\nC=of the file\n");
    let file = fixture.path("variables").display().to_string();
    let show = "echo $A, $B, $C, $D";
    let run =
        ["run", "--rm", "--env-file", &file, "-e", "C=of the flag", "-e", "D", "busybox", "sh", "-c", show];
    let out = ok(with(&fixture, &[("B", "from here"), ("C", "from here"), ("D", "from here")], &run));
    assert_eq!(out, "of the file, from here, of the flag, from here\n");
}

#[test]
fn secrets_of_variables_that_are_not_set_are_errors_where_that_is_wanted() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nRUN --mount=type=secret,id=s,env=S echo ${#S} letters\n");
    let secret = "--secret=id=s,env=A_SECRET";
    let set = with(&fixture, &[("A_SECRET", "four-and-more")], &["build", secret, &dir]);
    assert!(set.code == 0 && set.err.contains(" 13 letters\n"), "{}", set.err);
    let lenient = fixture.kiln(&["build", "--no-cache", secret, &dir]);
    assert!(lenient.code == 0 && lenient.err.contains("the variable A_SECRET is not set"), "{}", lenient.err);
    let strict = fixture.kiln(&["build", "--no-cache", "--strict", secret, &dir]);
    assert!(strict.code == 1 && strict.err.contains("the variable A_SECRET is not set"), "{}", strict.err);
}

#[test]
fn containers_are_isolated_unasked() {
    let fixture = fixture!();
    let kinds = ["pid", "mnt", "ipc", "uts", "net", "cgroup"];
    let show = format!(
        "for kind in {}; do readlink /proc/self/ns/$kind; done; grep CapEff /proc/self/status; \
         cat /proc/keys /proc/timer_list 2>/dev/null | wc -c; \
         (: > /proc/sys/kernel/hostname) 2>/dev/null || echo read-only",
        kinds.join(" ")
    );
    let out = ok(fixture.kiln(&["run", "--rm", "busybox", "sh", "-c", &show]));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), kinds.len() + 3, "{out}");
    for (kind, inside) in kinds.iter().zip(&lines) {
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        assert_ne!(outside, *inside, "{out}");
    }
    assert_eq!(lines[kinds.len()..], ["CapEff:\t00000000a80425fb", "0", "read-only"]);
}

#[test]
fn flags_of_run_reach_the_container() {
    let fixture = fixture!();
    assert_eq!(fixture.ok("run --rm -h box busybox hostname"), "box\n");
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(fixture.ok("run --rm --network host busybox readlink /proc/self/ns/net"), format!("{own}\n"));
    fixture.build("fails", &fixture.context("c", "FROM busybox\nENTRYPOINT [\"false\"]\n"));
    assert_eq!(fixture.words("run --rm fails").code, 1);
    assert_eq!(ok(fixture.kiln(&["run", "--rm", "--entrypoint", "", "fails", "echo", "runs"])), "runs\n");
    fixture.ok("run --name labelled -l a=b --network none busybox true");
    let labels = fixture.kiln(&["inspect", "-f", "{{json .Config.Labels}}", "labelled"]);
    assert_eq!(labels.out, "{\"a\":\"b\"}\n");
    fixture.ok("rm labelled");
}

/// An orphan becomes a child of the init process, which must reap it.
#[test]
fn a_first_process_waits_for_orphans() {
    let fixture = fixture!();
    let orphan = "(true & echo $! > /orphan); tries=0; \
                  while test -d /proc/$(cat /orphan) && test $tries -lt 200; do tries=$((tries+1)); sleep 0.05; done; \
                  test -d /proc/$(cat /orphan) || echo reaped";
    assert_eq!(
        ok(fixture.kiln(&["run", "--rm", "--init", "debian:bookworm", "sh", "-c", orphan])),
        "reaped\n"
    );
}

/// Flags of Docker. Those that are not in the help are refused, and nothing runs.
#[test]
fn flags_that_are_not_there_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let flags = [
        "--cap-add=ALL",
        "--cpus=1",
        "--detach",
        "--device=/dev/null",
        "--dns=10.1.2.3",
        "--gpus=all",
        "--log-driver=none",
        "--memory=64m",
        "--mount=type=tmpfs,target=/a",
        "--pid=host",
        "--platform=linux/amd64",
        "--privileged",
        "--publish=80:80",
        "--read-only",
        "--restart=always",
        "--userns=host",
        "--volume=/a:/b",
        "--no-flag-at-all",
    ];
    let known = fixture.ok("run --help");
    for flag in flags {
        let name = flag.split('=').next().unwrap();
        if known.split_whitespace().any(|word| word == name) {
            continue;
        }
        let done = fixture.kiln(&["run", "--rm", flag, "busybox", "echo", "runs"]);
        assert_eq!((done.code, done.out.as_str()), (125, ""), "{flag}: {}", done.err);
        assert!(done.err.contains(&format!("unknown flag: {name}")), "{flag}: {}", done.err);
    }
}

#[test]
fn settings_have_an_order() {
    let fixture = fixture!();
    let place = |name: &str| fixture.path(name).display().to_string();
    let write = |name: &str, root: &str| {
        let lint = "\"lint\":{\"UnpinnedBaseImage\":\"off\"},\"registry-mirrors\":[\"127.0.0.1:1\"]";
        fixture.write(name, &format!("{{\"root\":\"{}\",{lint}}}", place(root)));
    };
    write("home/.config/kiln/config.json", "of-home");
    write("xdg/kiln/config.json", "of-xdg");
    write("etc/kiln/config.json", "of-etc");
    write("one.json", "of-one");
    let asked = |flags: &[&str], variables: &[(&str, &str)], template: &str| {
        let words: Vec<&str> = flags.iter().copied().chain(["info", "--format", template]).collect();
        let mut command = fixture.command(&words);
        command.env_remove("KILN_ROOT").env_remove("KILN_CONFIG").env_remove("KILN_REGISTRY_MIRROR");
        command.env("HOME", fixture.path("home")).envs(variables.iter().copied());
        ok(Done::of(command.output().unwrap())).trim_end().to_owned()
    };
    let root = "{{.DockerRootDir}}";
    let (xdg, one, variable, flag) = (place("xdg"), place("one.json"), place("variable"), place("flag"));
    assert_eq!(asked(&[], &[], root), place("of-home"));
    assert_eq!(asked(&[], &[("XDG_CONFIG_HOME", xdg.as_str())], root), place("of-xdg"));
    assert_eq!(asked(&[], &[("KILN_CONFIG", one.as_str())], root), place("of-one"));
    let both = [("KILN_CONFIG", one.as_str()), ("KILN_ROOT", variable.as_str())];
    assert_eq!(asked(&[], &both, root), variable);
    assert_eq!(asked(&["--root", &flag], &both, root), flag);
    // The host's file, for images without one.
    let change = format!(
        "unset KILN_ROOT KILN_CONFIG && mount -t overlay none -o lowerdir={}:/etc /etc",
        place("etc")
    );
    assert_eq!(ok(on_changed(&fixture, &change, "info --format {{.DockerRootDir}}")).trim(), place("of-etc"));

    let mirrors = "{{.RegistryMirrors}}";
    assert_eq!(asked(&[], &[], mirrors), "[http://127.0.0.1:1/]");
    assert_eq!(asked(&[], &[("KILN_REGISTRY_MIRROR", "127.0.0.1:2")], mirrors), "[http://127.0.0.1:2/]");

    let dockerfile = context(&fixture, "c", "FROM busybox\n") + "/Dockerfile";
    let lint = |flags: &[&str]| {
        let words: Vec<&str> = ["lint"].iter().chain(flags).copied().chain([dockerfile.as_str()]).collect();
        with(&fixture, &[("KILN_CONFIG", one.as_str())], &words).code
    };
    assert_eq!((lint(&[]), lint(&["--rule=UnpinnedBaseImage=warning"])), (0, 1));
    assert_eq!(fixture.kiln(&["lint", &dockerfile]).code, 1);

    let silent = with(&fixture, &[("KILN_NETWORK_TIMEOUT", "soon")], &["images"]);
    assert!(silent.code == 1 && silent.err.contains("invalid KILN_NETWORK_TIMEOUT"), "{}", silent.err);
}

#[test]
fn credentials_are_where_docker_has_them() {
    let fixture = fixture!();
    let server = Server::start(|request| match request.header("authorization") {
        "Basic dXNlcjpwYXNz" => Response::new(404, ""),
        _ => Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let name = format!("{}/x", server.address);
    let file = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dXNlcjpwYXNz\"}}}}}}", server.address);
    fixture.write("config/config.json", &file);
    fixture.write("home/.docker/config.json", &file);
    let place = |name: &str| fixture.path(name).display().to_string();
    let (home, config, path) = (place("home"), place("config"), place("config/config.json"));
    let refused = "pull access denied";
    let missing = "manifest unknown";
    let pull = |variables: &[(&str, &str)], expected: &str| {
        let done = with(&fixture, variables, &["pull", &name]);
        assert!(done.code == 1 && done.err.contains(expected), "{variables:?}: {}", done.err);
    };
    pull(&[], refused);
    pull(&[("HOME", home.as_str())], missing);
    pull(&[("DOCKER_CONFIG", config.as_str())], missing);
    pull(&[("REGISTRY_AUTH_FILE", path.as_str())], missing);
    pull(&[("DOCKER_AUTH_CONFIG", file.as_str())], missing);
    let dir = context(&fixture, "c", &format!("FROM {name}\n"));
    let without = fixture.kiln(&["build", &dir]);
    assert!(without.code == 1 && without.err.contains(refused), "{}", without.err);
    let given = fixture.kiln(&["build", "--authfile", &path, &dir]);
    assert!(given.code == 1 && given.err.contains(missing), "{}", given.err);
}

#[test]
fn registries_are_asked_when_that_is_wanted() {
    let fixture = fixture!();
    let server = Server::start(|_| Response::new(404, ""));
    let name = format!("{}/x:1", server.address);
    fixture.ok("pull -q busybox");
    fixture.ok(&format!("tag busybox {name}"));
    let dir = context(&fixture, "c", &format!("FROM {name}\n"));
    fixture.ok(&format!("run --rm {name} true"));
    fixture.ok(&format!("run --rm --pull=never {name} true"));
    fixture.ok(&format!("build {dir}"));
    assert_eq!(server.requests().len(), 0, "the store has the image");
    assert_eq!(fixture.words(&format!("build --pull {dir}")).code, 1);
    let asked = server.requests().len();
    assert_ne!(asked, 0);
    assert_eq!(fixture.words(&format!("run --rm --pull=always {name} true")).code, 125);
    assert_ne!(server.requests().len(), asked);
    let asked = server.requests().len();
    let done = fixture.words(&format!("run --rm --pull=never {}/y true", server.address));
    assert!(done.code == 125 && done.err.contains("No such image"), "{}", done.err);
    assert_eq!(server.requests().len(), asked);
}

#[test]
fn images_are_pulled_by_digest() {
    let fixture = fixture!();
    assert_eq!(fixture.ok("pull -q busybox"), "docker.io/library/busybox:latest\n");
    let digest = fixture.kiln(&["inspect", "-f", "{{index .RepoDigests 0}}", "busybox"]).out;
    let digest = digest.trim();
    fixture.ok("rmi busybox");
    assert_eq!(fixture.ok(&format!("pull -q {digest}")), format!("docker.io/library/{digest}\n"));
    assert_eq!(fixture.ok("images --format {{.Repository}}:{{.Tag}}"), "busybox:<none>\n");
    assert_eq!(fixture.ok(&format!("run --rm {digest} echo runs")), "runs\n");
}

#[test]
fn memory_and_cpu_limits_apply_to_steps() {
    let fixture = fixture!();
    let controllers = fixture.kiln(&["info", "--format", "{{json .CgroupControllers}}"]).out;
    if ["\"cpu\"", "\"cpuset\"", "\"memory\""].iter().any(|name| !controllers.contains(*name)) {
        skip!("needs the cgroup controllers cpu, cpuset and memory");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first: String = allowed.trim().chars().take_while(char::is_ascii_digit).collect();
    let files = "cat memory.max memory/memory.limit_in_bytes cpu.max cpu*/cpu.cfs_quota_us 2>/dev/null";
    let dir = context(&fixture, "c", &format!("FROM busybox\nRUN cd /sys/fs/cgroup; {files}; nproc\n"));
    let processor = format!("--cpuset-cpus={first}");
    let build = |flags: &[&str]| {
        let words = ["build", "--no-cache"].iter().chain(flags).copied().chain([dir.as_str()]);
        let done = fixture.kiln(&words.collect::<Vec<_>>());
        assert_eq!(done.code, 0, "{}", done.err);
        done.err
    };
    let progress = build(&["-m", "64m", "--cpu-quota=50000", "--cpu-period=100000", &processor]);
    for line in [" 67108864\n", " 1\n"] {
        assert!(progress.contains(line), "{line}: {progress}");
    }
    assert!(progress.contains(" 50000 100000\n") || progress.contains(" 50000\n"), "{progress}");
    assert!(build(&["--resource=memory=64m"]).contains(" 67108864\n"));
}

#[test]
fn results_are_archives_that_load() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", CONTENT);
    for kind in ["docker", "oci"] {
        let file = fixture.path(kind).display().to_string();
        let output = format!("type={kind},dest={file}");
        ok(fixture.kiln(&["build", "-q", "-t", &format!("c:{kind}"), "-o", &output, &dir]));
        let other = fixture!();
        assert_eq!(other.ok(&format!("load -i {file}")), format!("Loaded image: c:{kind}\n"));
        assert_eq!(other.ok(&format!("run --rm c:{kind}")), "content\n");
    }
    let saved = fixture.command(&["save", "c:docker", "busybox"]).output().unwrap();
    assert!(saved.status.success(), "{saved:?}");
    let loaded = "Loaded image: c:docker\nLoaded image: busybox:latest\n";
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let other = fixture!();
        assert_eq!(
            ok(piped(&other, &["load"], &packed(&fixture, program, &saved.stdout))),
            loaded,
            "{program}"
        );
        assert_eq!(other.ok("run --rm c:docker"), "content\n");
    }
}

#[test]
fn results_go_to_registries() {
    let fixture = fixture!();
    let (server, kept) = registry();
    let dir = context(&fixture, "c", CONTENT);
    let name = format!("{}/team/app:2", server.address);
    ok(fixture.kiln(&["build", "-q", "-o", &format!("type=registry,name={name}"), &dir]));
    assert!(kept.lock().unwrap().contains_key("/v2/team/app/manifests/2"));
    let other = fixture!();
    assert_eq!(other.ok(&format!("run --rm -q {name}")), "content\n");
}

#[test]
fn archives_of_other_bytes_are_not_loaded() {
    let fixture = fixture!();
    let dir = fixture.path("layout");
    fixture.ok("pull -q busybox");
    fixture.ok(&format!("save --format oci-dir -o {} busybox", dir.display()));
    let blobs = fs::read_dir(dir.join("blobs/sha256")).unwrap().flatten();
    let layer = blobs.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let other = fixture!();
    let done = other.words(&format!("load -i {}", dir.display()));
    assert!(done.code == 1 && done.err.contains("does not match its digest"), "{}", done.err);
    assert_eq!(other.ok("images -q"), "");
}

#[test]
fn headers_of_archives_are_bounded() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nADD a.tar /x/\n");
    // A file without the header of an archive is copied.
    let check = |header: &[u8], reason: &str| {
        let good = tar_header("good", b'0', 0);
        let bytes = [good.as_slice(), header, &tar_header("f", b'0', 0), &[0u8; 1024]].concat();
        fs::write(context.join("a.tar"), bytes).unwrap();
        let done = fixture.fails(&context);
        assert!(done.err.contains("cannot unpack") && done.err.contains(reason), "{}", done.err);
    };
    let mut record = b"18 uid=4294967296\n".to_vec();
    let length = record.len() as u64;
    record.resize(512, 0);
    check(&[tar_header("pax", b'x', length), record].concat(), "uid or gid out of range");
    let long = 2 << 20;
    check(
        &[tar_header("pax", b'x', long), vec![0; long as usize]].concat(),
        "extended header of more than 1 MiB",
    );
}

#[test]
fn layers_that_explode_are_refused_when_they_are_pulled() {
    let fixture = fixture!();
    // Members of a gzip stream are one stream.
    let zeros = packed(&fixture, "gzip", &vec![0; 1 << 24]).repeat(66);
    let layer = [packed(&fixture, "gzip", &tar_header("big", b'0', 66 << 24)), zeros].concat();
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{}\"]}},\"history\":[]}}",
        "0".repeat(64)
    );
    let (layer_digest, config_digest) =
        (Digest::of(&layer).to_string(), Digest::of(config.as_bytes()).to_string());
    let kind = "application/vnd.oci.image";
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{kind}.manifest.v1+json\",\
         \"config\":{{\"mediaType\":\"{kind}.config.v1+json\",\"digest\":\"{config_digest}\",\"size\":{}}},\
         \"layers\":[{{\"mediaType\":\"{kind}.layer.v1.tar+gzip\",\"digest\":\"{layer_digest}\",\"size\":{}}}]}}",
        config.len(),
        layer.len()
    );
    let server = Server::start(move |request| match request.path.rsplit('/').next().unwrap_or_default() {
        "latest" => Response::new(200, manifest.clone())
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
        digest if digest == layer_digest => Response::new(200, layer.clone()),
        digest if digest == config_digest => Response::new(200, config.clone()),
        _ => Response::new(404, ""),
    });
    let done = fixture.words(&format!("pull {}/bomb", server.address));
    assert!(done.code == 1 && done.err.contains("250 times"), "{}", done.err);
    assert_eq!(fixture.ok("images -q"), "");
}

#[test]
fn pushed_images_have_the_media_types_of_the_format() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", CONTENT);
    let (server, kept) = registry();
    for (format, expected) in
        [("docker", "vnd.docker.distribution.manifest.v2"), ("oci", "vnd.oci.image.manifest.v1")]
    {
        let name = format!("{}/{format}", server.address);
        fixture.ok(&format!("build -q --push --format {format} -t {name} {dir}"));
        let manifest = kept.lock().unwrap()[&format!("/v2/{format}/manifests/latest")].clone();
        assert!(String::from_utf8_lossy(&manifest).contains(expected), "{format}");
    }
}

/// Devices are described in /etc/cdi, which the test lays over the host's directory for its own mount namespace.
#[test]
fn granted_devices_are_the_only_ones_that_open() {
    let fixture = fixture!();
    if !std::path::Path::new("/dev/kmsg").exists() {
        skip!("needs /dev/kmsg");
    }
    let device = |name: &str, more: &str| {
        format!(
            "{{\"name\":\"{name}\",\"containerEdits\":{{{more}\"deviceNodes\":[{{\"path\":\"/dev/{name}\"}}]}}}}"
        )
    };
    let devices = [device("kmsg", "\"env\":[\"GRANTED=yes\"],"), device("full", "")].join(",");
    let cdi = format!("{{\"cdiVersion\":\"0.6.0\",\"kind\":\"kiln.test/d\",\"devices\":[{devices}]}}");
    fixture.write("etc/cdi/kiln.json", &cdi);
    // The number of /dev/kmsg is 1, 11.
    let text = "FROM busybox\n\
                RUN --device=kiln.test/d=kmsg (: > /dev/kmsg) && echo granted $GRANTED\n\
                RUN --device=kiln.test/d=full mknod /other c 1 11 && ! (: > /other) 2>/dev/null && echo sh''ut\n\
                RUN test ! -e /dev/kmsg && ! (: > /other) 2>/dev/null && echo sh''ut\n";
    let dir = context(&fixture, "c", text);
    let change = format!("mount -t overlay none -o lowerdir={}:/etc /etc", fixture.path("etc").display());
    let refused = on_changed(&fixture, &change, &format!("build --allow device=kiln.test/d=full {dir}"));
    assert!(refused.code == 1 && refused.err.contains("device is not allowed"), "{}", refused.err);
    let done = on_changed(&fixture, &change, &format!("build --allow device {dir}"));
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains(" granted yes\n"), "{}", done.err);
    assert_eq!(done.err.matches(" shut\n").count(), 2, "{}", done.err);
}

/// When a description names another path on the host, the step gets the device at that path.
#[test]
fn a_granted_device_is_that_of_the_path_on_the_host() {
    let fixture = fixture!();
    let cdi = "{\"cdiVersion\":\"0.6.0\",\"kind\":\"kiln.test/d\",\"devices\":[{\"name\":\"x\",\"containerEdits\":\
               {\"deviceNodes\":[{\"path\":\"/dev/loop-control\",\"hostPath\":\"/dev/full\"},\
               {\"path\":\"/dev/granted\",\"hostPath\":\"/dev/zero\"}]}}]}";
    fixture.write("etc/cdi/kiln.json", cdi);
    let text = "FROM busybox\nRUN --device=kiln.test/d=x stat -c %t,%T /dev/loop-control /dev/granted && \
                ! (echo x > /dev/loop-control) 2>/dev/null && head -c 1 /dev/granted | wc -c\n";
    let dir = context(&fixture, "c", text);
    let change = format!("mount -t overlay none -o lowerdir={}:/etc /etc", fixture.path("etc").display());
    let done = on_changed(&fixture, &change, &format!("build --allow device {dir}"));
    assert_eq!(done.code, 0, "{}", done.err);
    let lines: Vec<&str> =
        done.err.lines().filter_map(|line| line.split_once(' ')?.1.split(' ').next_back()).collect();
    let at = lines.iter().position(|line| *line == "1,7").unwrap_or_else(|| panic!("{}", done.err));
    assert_eq!(lines[at..at + 3], ["1,7", "1,5", "1"], "{}", done.err);
}

#[test]
fn dockerfiles_are_checked_and_laid_out_from_standard_input() {
    let fixture = fixture!();
    let text = b"FROM busybox\nCMD a\n";
    let all = piped(&fixture, &["lint", "-"], text);
    assert!(
        all.out.contains("[UnpinnedBaseImage]") && all.out.contains("[JSONArgsRecommended]"),
        "{}",
        all.out
    );
    let reference = piped(&fixture, &["lint", "--reference", "-"], text);
    assert_eq!(reference.code, 1);
    assert!(!reference.out.contains("[UnpinnedBaseImage]"), "{}", reference.out);
    assert!(reference.out.contains("[JSONArgsRecommended]"), "{}", reference.out);
    let never = piped(&fixture, &["lint", "--fail-on=never", "-"], text);
    assert_eq!((never.code, never.out), (0, all.out));
    let skip = "# check=skip=JSONArgsRecommended\n";
    for skipping in [format!("{skip}FROM busybox:1\nCMD a\n"), format!("FROM busybox:1\n{skip}CMD a\n")] {
        let done = piped(&fixture, &["lint", "-"], skipping.as_bytes());
        assert_eq!((done.code, done.out.as_str()), (0, ""), "{skipping}");
    }
    assert_eq!(ok(piped(&fixture, &["fmt", "-"], b"from   busybox\n")), "FROM busybox\n");
}

#[test]
fn the_readme_has_the_number_of_rules() {
    let fixture = fixture!();
    let sarif = piped(&fixture, &["lint", "--format=sarif", "-"], b"FROM busybox:1\n").out;
    let log: serde_json::Value = serde_json::from_str(&sarif).unwrap();
    let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    // One rule of the reference builder has no page.
    let is_reference =
        |rule: &&serde_json::Value| rule["helpUri"].is_string() || rule["id"] == "InvalidBaseImagePlatform";
    let reference = rules.iter().filter(is_reference).count();
    let readme = fs::read_to_string(crate::fixture::project().join("README.md")).unwrap();
    let said = format!("the reference builder's {reference} rules and {} more", rules.len() - reference);
    assert!(readme.contains(&said), "{said}");
}

#[test]
fn lists_honour_filters_and_formats() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("tag busybox a:1");
    fixture.ok("tag busybox a:2");
    assert_eq!(fixture.ok("images a --format {{.Tag}}"), "1\n2\n");
    assert_eq!(fixture.ok("images a:2 --format {{.Tag}}"), "2\n");
    let ids = fixture.ok("images -q");
    assert_eq!((ids.lines().count(), ids.lines().nth(1)), (3, ids.lines().next()), "one id for each name");
    assert_eq!(fixture.ok("images 'a*' -q").lines().count(), 0, "there is no shell");
    assert_eq!(fixture.ok("images a* -q").lines().count(), 2);
    let id = fixture.ok("images -q --no-trunc busybox");
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    let digests = fixture.ok("images --digests busybox");
    assert!(digests.contains(" DIGEST ") && digests.contains(" sha256:"), "{digests}");
    let size = fixture.ok("history --human=false --format {{.Size}} busybox");
    assert!(size.lines().all(|line| line.parse::<u64>().is_ok()), "{size}");
    assert_eq!(fixture.ok("history -q --no-trunc busybox").lines().next(), Some(id.trim()));

    fixture.ok("run --name one --network none busybox true");
    fixture.ok("run --name two --network none busybox true");
    assert_eq!(fixture.ok("ps -l --format {{.Names}}"), "two\n");
    assert!(fixture.ok("ps -aq").lines().all(|line| line.len() == 12));
    assert!(fixture.ok("ps -aq --no-trunc").lines().all(|line| line.len() == 64));
    let both: serde_json::Value = serde_json::from_str(&fixture.ok("inspect one busybox")).unwrap();
    assert_eq!((both[0]["Name"].as_str(), both[1]["Os"].as_str()), (Some("/one"), Some("linux")));
    for (kind, name) in [("image", "one"), ("container", "busybox")] {
        for command in [format!("inspect --type {kind} {name}"), format!("{kind} inspect {name}")] {
            let done = fixture.words(&command);
            assert_eq!((done.code, done.out.as_str()), (1, "[]\n"), "{command}");
            let tag = if kind == "image" { ":latest" } else { "" };
            assert!(done.err.starts_with(&format!("ERROR: No such {kind}: {name}{tag}\n")), "{}", done.err);
        }
    }
    fixture.ok("rm one two");
}

#[test]
fn force_removes_used_images_and_does_not_fail_for_missing_ones() {
    let fixture = fixture!();
    fixture.ok("run --name kept --network none busybox true");
    assert_eq!(fixture.words("rmi busybox").code, 1);
    fixture.ok("rmi -f busybox");
    assert_eq!(fixture.ok("images -q"), "");
    fixture.ok("rm kept");
    for (command, message) in
        [("rm -f kept", "No such container: kept"), ("rmi -f busybox", "No such image: busybox:latest")]
    {
        let done = fixture.words(command);
        assert_eq!((done.code, done.out.as_str()), (0, ""), "{command}");
        assert!(done.err.starts_with(&format!("ERROR: {message}\n")), "{}", done.err);
    }
}

#[test]
fn commands_have_the_group_names_of_docker() {
    let fixture = fixture!();
    fixture.ok("run --name kept --network none busybox true");
    let dir = context(&fixture, "c", CONTENT);
    let (buildx, builder, build) =
        (format!("buildx build -q {dir}"), format!("builder build -q {dir}"), format!("build -q {dir}"));
    for (grouped, name) in [
        ("image ls -q", "images -q"),
        ("image history -q busybox", "history -q busybox"),
        ("image inspect busybox", "inspect busybox"),
        ("container ls -aq", "ps -aq"),
        ("container inspect kept", "inspect kept"),
        (buildx.as_str(), build.as_str()),
        (builder.as_str(), build.as_str()),
        ("container rm -f nobody", "rm -f nobody"),
    ] {
        assert_eq!(fixture.ok(grouped), fixture.ok(name), "{grouped}");
    }
    let unknown = fixture.words("image nothing");
    assert!(
        unknown.code == 1 && unknown.err.contains("unknown command: kiln image nothing"),
        "{}",
        unknown.err
    );
    fixture.ok("rm kept");
}

#[test]
fn the_build_cache_is_not_removed_unasked() {
    let fixture = fixture!();
    let context = fixture.context("c", CONTENT);
    fixture.build("c", &context);
    let done = fixture.words("builder prune");
    // The end of the input means no.
    assert_eq!((done.code, done.out.contains("Total")), (0, false), "{}{}", done.out, done.err);
    assert!(fixture.build("c", &context).contains("RUN echo content > /f\n#4 CACHED"));
    fixture.ok("builder prune -f");
    assert_eq!(fixture.ok("run --rm c"), "content\n", "images keep their layers");
    assert!(!fixture.build("c", &context).contains("RUN echo content > /f\n#4 CACHED"));
}

#[test]
fn deeply_nested_input_is_refused() {
    let fixture = fixture!();
    let deep = 5000;
    let value = "${A:-".repeat(deep) + "x" + &"}".repeat(deep);
    let done = fixture.fails(&fixture.context("c", &format!("FROM busybox\nENV A={value}\n")));
    assert!(done.err.contains("Dockerfile:2:"), "{}", done.err);
}
