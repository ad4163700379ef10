//! Flags of `build`: several targets and platforms, named contexts, epochs, squashing, secrets, limits.

use crate::fixture::{Done, Fixture};
use crate::web_server::{Request, Response, Server};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

fn build(fixture: &Fixture, flags: &[&str], context: &str) -> Done {
    let words: Vec<&str> = ["build"].iter().chain(flags).copied().chain([context]).collect();
    fixture.kiln(&words)
}

#[track_caller]
fn ok(fixture: &Fixture, flags: &[&str], context: &str) -> Done {
    let done = build(fixture, flags, context);
    assert_eq!(done.code, 0, "{}", done.err);
    done
}

fn context(fixture: &Fixture, name: &str, dockerfile: &str) -> String {
    fixture.context(name, dockerfile).display().to_string()
}

const STAGES: &str = "FROM busybox AS base\nRUN echo base > /b\nFROM base AS one\nRUN echo 1 > /one\nFROM base AS two\nRUN echo 2 > /two\nFROM scratch AS unused\nCOPY --from=base /b /c\n";

#[test]
fn several_targets_are_built_in_one_graph() {
    let fixture = fixture!();
    let context = context(&fixture, "c", STAGES);
    let done = ok(&fixture, &["--target=one=img-one", "--target=two=img-two:x", "-t", "last"], &context);
    assert_eq!(done.err.matches("RUN echo base > /b").count(), 1, "{}", done.err);
    assert!(!done.err.contains("COPY --from=base"), "{}", done.err);
    assert_eq!(fixture.ok("run --rm img-one cat /one"), "1\n");
    assert_eq!(fixture.ok("run --rm img-two:x cat /two"), "2\n");
    assert_eq!(fixture.ok("images -q last"), fixture.ok("images -q img-two:x"));
    let done = ok(&fixture, &["--all-stages", "--target=one"], &context);
    assert!(done.err.contains("COPY --from=base /b /c"), "{}", done.err);
    let done = build(&fixture, &["--target=ones"], &context);
    assert!(done.code == 1 && done.err.contains("did you mean one?"), "{}", done.err);
}

#[test]
fn named_contexts_replace_images_and_stages() {
    let fixture = fixture!();
    fixture.write("more/f", "named\n");
    fixture.write("more/ignored", "x");
    fixture.write("more/.dockerignore", "ignored\n");
    let more = format!("--build-context=more={}", fixture.path("more").display());
    let text =
        "FROM busybox\nCOPY --from=more . /m\nRUN --mount=from=more,target=/n cmp /m/f /n/f && ls /m\n";
    let done = ok(&fixture, &[&more, "-t", "named"], &context(&fixture, "c", text));
    assert!(done.err.contains(" f\n") && !done.err.contains(" ignored\n"), "{}", done.err);

    let other = context(&fixture, "d", "FROM nosuch:tag\nRUN echo from $0\n");
    ok(&fixture, &["--build-context=nosuch:tag=docker-image://busybox"], &other);
    let layout = format!("type=oci,tar=false,dest={}", fixture.path("layout").display());
    ok(&fixture, &["-o", &layout], &context(&fixture, "e", "FROM busybox\nENV MARK=seen\n"));
    let flag = format!("--build-context=nosuch:tag=oci-layout://{}", fixture.path("layout").display());
    ok(&fixture, &[&flag], &context(&fixture, "f", "FROM nosuch:tag\nRUN test $MARK = seen\n"));
    let stage = context(&fixture, "g", "FROM busybox AS a\nRUN echo a > /f\nFROM x\nRUN test -e /f\n");
    ok(&fixture, &["--build-context=x=target:a"], &stage);
    let done = build(&fixture, &["--build-context=x=/no/such/directory"], &stage);
    assert!(done.code == 1 && done.err.contains("path \"/no/such/directory\" not found"), "{}", done.err);
}

#[test]
fn several_platforms_give_an_index() {
    let fixture = fixture!();
    let text = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nLABEL arch=$TARGETARCH\n";
    let dir = context(&fixture, "c", text);
    fixture.write("c/amd64", "amd64");
    fixture.write("c/arm64", "arm64");
    let platforms = "--platform=linux/amd64,linux/arm64";
    let layout = format!("type=oci,tar=false,dest={}", fixture.path("layout").display());
    let metadata = fixture.path("metadata").display().to_string();
    let flags = [
        platforms,
        "-t",
        "multi",
        "-o",
        &layout,
        "--metadata-file",
        &metadata,
        "--annotation=index,index-descriptor:a=b",
    ];
    ok(&fixture, &flags, &dir);
    let text = std::fs::read_to_string(fixture.path("layout/index.json")).unwrap();
    assert!(text.contains("application/vnd.oci.image.index.v1+json"), "{text}");
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["a"], "b");
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let blob = std::fs::read(fixture.path("layout/blobs").join(digest.replace(':', "/"))).unwrap();
    let inner: serde_json::Value = serde_json::from_slice(&blob).unwrap();
    let architectures: Vec<&str> = inner["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    assert_eq!(inner["annotations"]["a"], "b");
    let told = std::fs::read_to_string(&metadata).unwrap();
    assert!(told.contains("\"containerimage.digest\"") && told.contains("index.v1+json"), "{told}");
    let single = build(&fixture, &["--annotation=index:a=b"], &dir);
    assert!(single.code == 1 && single.err.contains("index annotations not supported"), "{}", single.err);
    let out = fixture.path("out").display().to_string();
    ok(&fixture, &[platforms, "-o", &out], &dir);
    assert_eq!(std::fs::read_to_string(fixture.path("out/linux_arm64/arch")).unwrap(), "arm64");
    let done = build(&fixture, &[platforms, "-o", "type=docker,dest=x"], &dir);
    assert!(done.code == 1 && done.err.contains("manifest lists"), "{}", done.err);
}

#[test]
fn programs_of_other_processors_are_named() {
    let fixture = fixture!();
    // A program of another architecture: the kernel needs an emulator.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 0xb7, 0]);
    elf.resize(64, 0);
    let dir = context(&fixture, "c", "FROM scratch\nCOPY --chmod=755 p /p\nRUN [\"/p\"]\n");
    std::fs::write(fixture.path("c/p"), elf).unwrap();
    let is_native = std::env::consts::ARCH == "aarch64";
    if is_native || std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        skip!("this host runs programs for arm64");
    }
    let done = build(&fixture, &["--platform=linux/arm64"], &dir);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.err.contains("cannot run programs for linux/arm64"), "{}", done.err);
    assert!(done.err.contains("qemu-aarch64"), "{}", done.err);
}

/// Files alone can be put into images for Windows; variables and paths are as there.
#[test]
fn images_for_windows_are_made() {
    let fixture = fixture!();
    let text = "FROM scratch\nARG TARGETPLATFORM\nARG TARGETOSVERSION\nLABEL p=$TARGETPLATFORM v=$TARGETOSVERSION\n\
        COPY f C:/app/f\nWORKDIR C:/app/sub\nCOPY f g\n";
    let dir = context(&fixture, "c", text);
    fixture.write("c/f", "x");
    ok(&fixture, &["--platform=windows(10.0.17763.1)/amd64", "-t", "win"], &dir);
    let value = |template: &str| fixture.kiln(&["inspect", "-f", template, "win"]).out.trim().to_owned();
    assert_eq!(value("{{.Os}}/{{.Architecture}}"), "windows/amd64");
    let shown: serde_json::Value = serde_json::from_str(&fixture.ok("inspect win")).unwrap();
    let config = &shown[0]["Config"];
    assert_eq!(config["WorkingDir"], "\\app\\sub");
    assert!(config["Env"].is_null(), "{config}");
    assert_eq!(config["Labels"]["p"], "windows(10.0.17763.1)/amd64");
    assert_eq!(config["Labels"]["v"], "10.0.17763.1");
    let layout = format!("type=oci,tar=false,dest={}", fixture.path("win").display());
    ok(&fixture, &["--platform=windows(10.0.17763.1)/amd64", "-o", &layout], &dir);
    let found = Command::new("grep")
        .args(["-rlaF", r#""os.version":"10.0.17763.1""#])
        .arg(fixture.path("win"))
        .output();
    assert!(!found.unwrap().stdout.is_empty(), "the config has the version");
    let out = fixture.path("out").display().to_string();
    ok(&fixture, &["--platform=windows/amd64", "-o", &out], &dir);
    assert!(fixture.path("out/app/f").exists() && fixture.path("out/app/sub/g").exists());
}

#[test]
fn equal_epochs_give_equal_images() {
    let fixture = fixture!();
    let text =
        "FROM busybox\nWORKDIR /w/x\nCOPY f /d/e/f\nRUN echo hi > /hi && mkdir /h\nCOPY <<E /i\nx\nE\n";
    let dir = context(&fixture, "c", text);
    fixture.write("c/f", "x");
    let flags = ["-q", "--no-cache", "--source-date-epoch=1500000000", "--rewrite-timestamp", "-t", "timed"];
    let first = ok(&fixture, &flags, &dir).out;
    let second = ok(&fixture, &flags, &dir).out;
    assert_eq!(first, second);
    let shown = fixture.ok("inspect timed");
    assert!(shown.contains("\"Created\": \"2017-07-14T02:40:00Z\""), "{shown}");
    let times = fixture.ok("run --rm timed stat -c %Y /hi /h /w /d /d/e/f /i");
    assert!(times.lines().all(|time| time.parse::<u64>().unwrap() <= 1_500_000_000), "{times}");
    let done = ok(&fixture, &["--rewrite-timestamp"], &dir);
    assert!(done.err.contains("times are not rewritten"), "{}", done.err);
    let done = build(&fixture, &["--source-date-epoch=soon"], &dir);
    assert!(done.code == 1 && done.err.contains("SOURCE_DATE_EPOCH"), "{}", done.err);
}

#[test]
fn layers_are_squashed() {
    let fixture = fixture!();
    let text = "FROM busybox\nRUN mkdir /d && echo 1 > /d/a && echo 2 > /d/b\nRUN rm /d/a && chmod 700 /d && rm -r /tmp\nRUN rm -rf /d && mkdir /d && echo 3 > /d/c && ln /d/c /d/l\n";
    let dir = context(&fixture, "c", text);
    let count = |name: &str| {
        let text = fixture.ok(&format!("inspect {name}"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value[0]["RootFS"]["Layers"].as_array().unwrap().len()
    };
    ok(&fixture, &["-t", "plain"], &dir);
    ok(&fixture, &["--squash", "-t", "squashed"], &dir);
    ok(&fixture, &["--squash-all", "-t", "flat"], &dir);
    assert_eq!((count("plain"), count("squashed"), count("flat")), (4, 2, 1));
    for name in ["squashed", "flat"] {
        let listing = format!("run --rm {name} ls -l /d /bin");
        assert_eq!(fixture.ok(&listing), fixture.ok("run --rm plain ls -l /d /bin"), "{name}");
        assert_eq!(fixture.words(&format!("run --rm {name} ls /tmp")).code, 1, "{name}");
    }
    assert!(fixture.ok("history flat").contains("squash of 4 layers"));
}

#[test]
fn secrets_do_not_leak() {
    let fixture = fixture!();
    fixture.write("secret", "hunter2-is-secret\n");
    let secret = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let shown =
        context(&fixture, "c", "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo done\n");
    let done = ok(&fixture, &[&secret], &shown);
    assert!(done.err.contains("***") && !done.err.contains("hunter2-is-secret"), "{}", done.err);
    let kept = context(&fixture, "d", "FROM busybox\nRUN --mount=type=secret,id=s cp /run/secrets/s /kept\n");
    let done = build(&fixture, &[&secret, "-t", "leak"], &kept);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.err.contains("the secret s is in the image: `/kept`"), "{}", done.err);
    assert_eq!(fixture.ok("images -q leak"), "");
    ok(&fixture, &[&secret, "--allow=secret-leak", "-t", "leak"], &kept);
    let named = context(&fixture, "e", "FROM scratch\nARG A\nLABEL x=$A\n");
    let done = build(&fixture, &[&secret, "--build-arg=A=hunter2-is-secret"], &named);
    assert!(done.code == 1 && done.err.contains("the secret s is in the image"), "{}", done.err);
}

/// Files of the store that hold `text`.
fn files_with(fixture: &Fixture, text: &str) -> String {
    let found = std::process::Command::new("grep").args(["-rlF", text]).arg(fixture.root()).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

/// A value that exists before the build is no leak, and one that is in files by chance leads to a warning.
#[test]
fn secrets_that_leaked_nowhere_stop_no_build() {
    const VALUE: &str = "deploy-zone-eu-7781";
    let fixture = fixture!();
    fixture.write("secret", VALUE);
    fixture.write("word", "production\n");
    fixture.write("root", "root");
    let secret = |name: &str| format!("--secret=id=s,src={}", fixture.path(name).display());
    let mount = "RUN --mount=type=secret,id=s test -s /run/secrets/s";

    // The Dockerfile's own text, and so the history; what RUN makes of it, too, and it is not masked.
    let text = format!("FROM busybox\n{mount} && echo zone {VALUE} | tee /zone\nLABEL zone={VALUE}\n");
    let done = ok(&fixture, &[&secret("secret")], &context(&fixture, "dockerfile", &text));
    assert!(done.err.contains(&format!(" zone {VALUE}\n")), "{}", done.err);

    // A file of the context, and what RUN makes of it; also from the cache.
    let text = format!("FROM busybox\nCOPY conf /conf\n{mount}; cat /conf; cp /conf /other\n");
    let dir = context(&fixture, "file", &text);
    fixture.write("file/conf", &format!("zone={VALUE}\n"));
    let done = ok(&fixture, &[&secret("secret")], &dir);
    assert!(done.err.contains(&format!(" zone={VALUE}\n")), "{}", done.err);
    ok(&fixture, &[&secret("secret")], &dir);
    // A file that is the secret itself leads to a warning.
    fixture.write("file/conf", VALUE);
    let done = ok(&fixture, &[&secret("secret")], &dir);
    assert!(
        done.err.contains("the file conf of the build context is copied, and holds a secret"),
        "{}",
        done.err
    );
    // One that is not copied is ignored.
    let text = format!("FROM busybox\nCOPY Dockerfile /\n{mount}; cp /run/secrets/s /kept\n");
    let dir = context(&fixture, "not-copied", &text);
    fixture.write("not-copied/conf", VALUE);
    let done = build(&fixture, &[&secret("secret")], &dir);
    assert!(done.code == 1 && done.err.contains("`/kept`, in the layer of `[3/3] RUN"), "{}", done.err);
    assert!(done.err.contains("--allow secret-leak"), "{}", done.err);

    // The base image: its files, and its config.
    let base = format!("FROM busybox\nRUN echo {VALUE} > /zone\nENV ZONE={VALUE}\n");
    ok(&fixture, &["-t", "base"], &context(&fixture, "base", &base));
    let text = format!("FROM base\n{mount}; cat /zone; cp /zone /zone2\nLABEL zone=$ZONE\n");
    let done = ok(&fixture, &[&secret("secret")], &context(&fixture, "upon", &text));
    assert!(done.err.contains(&format!(" {VALUE}\n")), "{}", done.err);
    let text = format!("FROM busybox\n{mount}; ls -l / && id -un\n");
    let done = ok(&fixture, &[&secret("root")], &context(&fixture, "root-user", &text));
    assert!(done.err.contains(" root\n") && !done.err.contains("***"), "{}", done.err);

    // Short and simple values warn, also from the cache.
    let text = format!("FROM busybox\n{mount}; cp /run/secrets/s /kept\n");
    let dir = context(&fixture, "word-kept", &text);
    for _ in 0..2 {
        let done = ok(&fixture, &[&secret("word")], &dir);
        assert!(done.err.contains("`/kept` holds the value of the secret s"), "{}", done.err);
    }
    // And words of the Dockerfile do not even warn.
    let text = format!("FROM busybox\n{mount}; echo production > /env\n");
    let done = ok(&fixture, &[&secret("word")], &context(&fixture, "word-written", &text));
    assert!(!done.err.contains("holds the value") && done.err.contains("echo production"), "{}", done.err);
}

#[test]
fn refused_secrets_are_in_no_later_build() {
    const VALUE: &str = "refused-value-8812";
    let fixture = fixture!();
    fixture.write("secret", VALUE);
    let secret = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let take = "RUN --mount=type=secret,id=s cp /run/secrets/s /kept 2>/dev/null || echo none >/kept\n";
    let encoded = "RUN rev /kept >/reversed\n";
    let cases = [
        // Refused at once, and with a step on top.
        ("direct", format!("FROM busybox\n{take}"), "kept"),
        ("above", format!("FROM busybox\n{take}{encoded}"), "kept"),
        // Through other stages.
        ("copied", format!("FROM busybox AS a\n{take}FROM busybox\nCOPY --from=a /kept /kept\n"), "kept"),
        (
            "linked",
            format!("FROM busybox AS a\n{take}FROM busybox\nCOPY --link --from=a /kept /kept\n"),
            "kept",
        ),
        (
            "mounted",
            format!("FROM busybox AS a\n{take}FROM busybox\nRUN --mount=from=a,target=/a cp /a/kept /kept\n"),
            "kept",
        ),
        // In a build that fails for another reason, after the step.
        (
            "failed",
            format!(
                "FROM busybox AS a\n{take}{encoded}RUN [ \"$(cat /kept)\" = none ]\nFROM busybox\nCOPY --from=a /reversed /\n"
            ),
            "reversed",
        ),
        (
            "xattr",
            format!("FROM busybox\n{take}RUN mv /kept /kept2 && ln -s \"$(cat /kept2)\" /kept\n"),
            "kept2",
        ),
    ];
    for (name, dockerfile, file) in cases {
        // Each case has another step, as the store is the same.
        let dir = context(&fixture, name, &dockerfile.replace(" >/kept", &format!(" >/kept; : {name}")));
        let refused = build(&fixture, &[&secret, "-t", name], &dir);
        assert_eq!(refused.code, 1, "{name}: {}", refused.err);
        assert_eq!(files_with(&fixture, VALUE), "", "{name}");
        ok(&fixture, &["-t", name], &dir);
        let kept = fixture.ok(&format!("run --rm {name} cat /{file}"));
        assert!(["none", "enon"].contains(&kept.trim()), "{name}: {kept}");
    }
}

#[test]
fn stages_that_hold_secrets_stay_with_their_build() {
    const VALUE: &str = "stage-value-4711";
    let fixture = fixture!();
    fixture.write("secret", VALUE);
    let secret = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let text = "FROM busybox AS a\n\
                RUN --mount=type=secret,id=s cp /run/secrets/s /kept 2>/dev/null || echo none >/kept\n\
                RUN rev /kept >/reversed; echo clean >/clean\n\
                FROM busybox\nCOPY --from=a /clean /clean\n";
    let dir = context(&fixture, "c", text);
    ok(&fixture, &[&secret, "-t", "clean"], &dir);
    assert_eq!(files_with(&fixture, VALUE), "");
    let again = ok(&fixture, &[&secret, "-t", "clean"], &dir);
    assert!(again.err.contains("[stage-1 2/2] COPY --from=a /clean /clean\n#4 CACHED"), "{}", again.err);
    ok(&fixture, &["--target=a", "-t", "stage"], &dir);
    assert_eq!(fixture.ok("run --rm stage cat /kept /reversed").trim(), "none\nenon");
}

#[test]
fn allowed_leaks_are_found_by_builds_that_allow_them() {
    let fixture = fixture!();
    fixture.write("secret", "allowed-value-1234");
    let secret = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let take = "RUN --mount=type=secret,id=s cp /run/secrets/s /kept 2>/dev/null || echo none >/kept\n";
    let dir = context(&fixture, "c", &format!("FROM busybox\n{take}"));
    ok(&fixture, &[&secret, "--allow=secret-leak", "-t", "leak"], &dir);
    let again = ok(&fixture, &[&secret, "--allow=secret-leak", "-t", "leak"], &dir);
    assert!(again.err.contains("#4 CACHED"), "{}", again.err);
    ok(&fixture, &["-t", "plain"], &dir);
    assert_eq!(fixture.ok("run --rm plain cat /kept").trim(), "none");
    assert_eq!(fixture.ok("run --rm leak cat /kept").trim(), "allowed-value-1234");
}

#[test]
fn caches_do_not_carry_secrets_to_other_builds() {
    let fixture = fixture!();
    fixture.write("secret", "cached-value-1234");
    let secret = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let cache = "--mount=type=cache,id=x,target=/x";
    let fill = format!("FROM busybox\nRUN --mount=type=secret,id=s {cache} cp /run/secrets/s /x/s\n");
    let done = ok(&fixture, &[&secret], &context(&fixture, "fill", &fill));
    assert!(done.err.contains("the cache x held the secret s (`/s`)"), "{}", done.err);
    let take = format!("FROM busybox\nRUN {cache} cp /x/s /s || echo none >/s\n");
    ok(&fixture, &["-t", "take"], &context(&fixture, "take", &take));
    assert_eq!(fixture.ok("run --rm take cat /s").trim(), "none");
}

#[test]
fn secrets_in_configs_are_found_before_steps_run() {
    const VALUE: &str = "config-value-1234";
    let fixture = fixture!();
    fixture.write("secret", VALUE);
    let secret = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let arg = format!("--build-arg=A={VALUE}");
    for line in [
        "ENV A=$A",
        "LABEL a=$A",
        "WORKDIR /$A",
        "USER $A",
        "VOLUME /$A",
        "RUN echo",
        "STOPSIGNAL 9\nLABEL $A=b",
    ] {
        let dir = context(&fixture, "c", &format!("FROM busybox\nRUN echo before\nARG A\n{line}\n"));
        let done = build(&fixture, &[&secret, &arg], &dir);
        assert!(done.code == 1 && done.err.contains("the secret s is in the image"), "{line}: {}", done.err);
        assert!(!done.err.contains("RUN echo before"), "{line}: {}", done.err);
    }
    let dir = context(&fixture, "d", "FROM busybox\nRUN echo before\n");
    let done = build(&fixture, &[&secret, &format!("--annotation=a={VALUE}")], &dir);
    assert!(done.code == 1 && done.err.contains("an annotation"), "{}", done.err);
    // Records of stages do not contain it.
    let dir = context(
        &fixture,
        "e",
        "FROM busybox AS a\nARG A\nRUN echo x >/x\nFROM busybox\nCOPY --from=a /x /x\n",
    );
    ok(&fixture, &[&secret, &arg, "-t=e"], &dir);
    assert_eq!(files_with(&fixture, VALUE), "");
    // Nor do those of command lines, which are kept as digests; the value must be set when it is needed again.
    let numbers: Vec<String> = VALUE.bytes().map(|byte| byte.to_string()).collect();
    assert_eq!(files_with(&fixture, &numbers.join(",")), "");
    let again = fixture.words("verify e");
    assert!(
        again.code == 1 && again.err.contains("--build-arg A, whose value holds a secret"),
        "{}",
        again.err
    );
    let again = Done::of(fixture.command(&["verify", "e"]).env("A", VALUE).output().unwrap());
    assert!(again.code == 0 && again.out.contains("with the same result"), "{}{}", again.out, again.err);
}

#[test]
fn entitlements_must_be_allowed() {
    let fixture = fixture!();
    let insecure = context(
        &fixture,
        "c",
        "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status && mount -t tmpfs x /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs x /mnt\n",
    );
    let done = build(&fixture, &[], &insecure);
    assert!(done.code == 1 && done.err.contains("security.insecure is not allowed"), "{}", done.err);
    let done = ok(&fixture, &["--allow=security.insecure"], &insecure);
    assert!(!done.err.contains("00000000a80425fb"), "the usual capabilities: {}", done.err);
    let device = context(&fixture, "d", "FROM busybox\nRUN --device=vendor.com/none=x,required=true true\n");
    let done = build(&fixture, &["--allow=device"], &device);
    assert!(done.code == 1 && done.err.contains("vendor.com/none=x"), "{}", done.err);
    let unknown = build(&fixture, &["--allow=everything"], &device);
    assert!(unknown.code == 1 && unknown.err.contains("unknown entitlement"), "{}", unknown.err);
}

/// A step with privileges over its network leaves no route for the next one, and sees none of another.
#[test]
fn networks_of_privileged_steps_are_their_own() {
    let fixture = fixture!();
    let insecure =
        "RUN --security=insecure ip route add blackhole 192.0.2.0/24 && ip route | grep blackhole\n";
    let text = format!("FROM busybox\n{insecure}RUN ! ip route | grep blackhole\n{insecure}");
    ok(&fixture, &["--allow=security.insecure"], &context(&fixture, "c", &text));
}

#[test]
fn programs_have_the_limits_of_the_command_line() {
    let fixture = fixture!();
    let text = "FROM busybox\nRUN df -k /dev/shm | tail -1 | awk '{print $2}' && ulimit -n && hostname && grep there /etc/hosts\n";
    let dir = context(&fixture, "c", text);
    let flags = [
        "--shm-size=8m",
        "--ulimit=nofile=77:99",
        "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=kitchen",
        "--add-host=there:10.1.2.3",
        "--add-host=here:host-gateway",
    ];
    let done = ok(&fixture, &flags, &dir);
    for wanted in [" 8192\n", " 77\n", " kitchen\n", "10.1.2.3"] {
        assert!(done.err.contains(wanted), "{wanted}: {}", done.err);
    }
    let parent = format!("kiln-test-{}", std::process::id());
    let inner = format!("--cgroup-parent=/{parent}/inner");
    ok(&fixture, &["--no-cache", "--memory=64m", &inner, "--add-host=there:10.1.2.3"], &dir);
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &parent]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "groups are left");
    for wrong in ["--shm-size=x", "--ulimit=nofile=9:8", "--ulimit=files=1", "--resource=disk=1"] {
        assert_eq!(build(&fixture, &[wrong], &dir).code, 125, "{wrong}");
    }
}

#[test]
fn unsupported_flags_are_refused() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM scratch\nLABEL a=b\n");
    for flag in [
        "--cache-from=x",
        "--cache-to=type=inline",
        "--attest=type=sbom",
        "--provenance=true",
        "--sbom=true",
        "--policy=x",
        "--isolation=hyperv",
        "--builder=other",
    ] {
        let done = build(&fixture, &[flag], &dir);
        assert_eq!(done.code, 1, "{flag}: {}", done.err);
        assert!(done.err.contains("hint: "), "{flag}: {}", done.err);
    }
    let accepted =
        ["--provenance=false", "--sbom=false", "--rm", "--force-rm", "--compress", "--builder=default"];
    ok(&fixture, &accepted, &dir);
}

#[test]
fn leniency_ends_where_it_is_not_wanted() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nARG COLOUR\nCOPY --chown=nobdy f /f\n");
    fixture.write("c/f", "x");
    let done = ok(&fixture, &["--build-arg=COLOR=red"], &dir);
    assert!(done.err.contains("[COLOR] were not consumed; did you mean COLOUR?"), "{}", done.err);
    assert!(done.err.contains("unknown user nobdy counts as root; did you mean nobody?"), "{}", done.err);
    let done = build(&fixture, &["--strict", "--build-arg=COLOR=red"], &dir);
    assert!(done.code == 1 && done.err.contains("did you mean COLOUR?"), "{}", done.err);
    let done = build(&fixture, &["--strict", "--no-cache"], &dir);
    assert!(done.code == 1 && done.err.contains("unknown user nobdy"), "{}", done.err);
    assert!(done.err.contains("did you mean nobody?") && done.err.contains("Dockerfile:3"), "{}", done.err);
}

/// Content of a registry, by path.
pub type Kept = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A registry that stores pushed content.
pub fn registry() -> (Server, Kept) {
    let kept = Kept::default();
    let store = kept.clone();
    let server = Server::start(move |request: &Request| {
        let mut store = store.lock().unwrap();
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        match request.method.as_str() {
            "HEAD" | "GET" => match store.get(&path) {
                Some(bytes) if request.method == "HEAD" => {
                    Response::new(200, "").header("Content-Length", bytes.len().to_string())
                }
                Some(bytes) => Response::new(200, bytes.clone()),
                None => Response::new(404, ""),
            },
            "POST" => {
                let place = format!("{path}upload-{}", store.len());
                store.insert(place.clone(), Vec::new());
                Response::new(202, "").header("Location", place)
            }
            "PATCH" => {
                store.entry(path.clone()).or_default().extend(&request.body);
                Response::new(202, "").header("Location", path)
            }
            "PUT" if path.contains("/uploads/") => {
                let mut bytes = store.remove(&path).unwrap_or_default();
                bytes.extend(&request.body);
                let digest = request.path.split("digest=").nth(1).unwrap_or_default();
                if kiln_image::digest::Digest::of(&bytes).to_string() != digest {
                    return Response::new(400, "digest");
                }
                let repository = path.split("/blobs/").next().unwrap_or_default();
                store.insert(format!("{repository}/blobs/{digest}"), bytes);
                Response::new(201, "")
            }
            "PUT" => {
                store.insert(path, request.body.clone());
                Response::new(201, "")
            }
            _ => Response::new(405, ""),
        }
    });
    (server, kept)
}

#[test]
fn images_are_pushed_and_come_back() {
    let fixture = fixture!();
    let (server, kept) = registry();
    let dir = context(&fixture, "c", "FROM busybox\nRUN echo pushed > /f\nENV A=b\n");
    let name = format!("{}/team/app:v1", server.address);
    let done = ok(&fixture, &["--push", "-t", &name], &dir);
    assert!(done.err.contains("pushed "), "{}", done.err);
    assert!(kept.lock().unwrap().contains_key("/v2/team/app/manifests/v1"));
    // Nothing is uploaded twice.
    let before = server.requests().iter().filter(|request| request.method == "PATCH").count();
    ok(&fixture, &["--push", "-t", &name], &dir);
    assert_eq!(server.requests().iter().filter(|request| request.method == "PATCH").count(), before);
    let other = Fixture::new().unwrap();
    let pulled = other.kiln(&["run", "--rm", &name, "cat", "/f"]);
    assert_eq!((pulled.code, pulled.out.as_str()), (0, "pushed\n"), "{}", pulled.err);
    let pushed = fixture.words(&format!("push {name}"));
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    assert!(
        pushed.out.contains("Layer already exists") && pushed.out.contains("v1: digest: sha256:"),
        "{}",
        pushed.out
    );
    let missing = fixture.words("push localhost:1/nosuch");
    assert!(missing.code == 1 && missing.err.contains("does not exist locally"), "{}", missing.err);
    let file = fixture.path("metadata").display().to_string();
    ok(&fixture, &["--push", "-t", &name, "--metadata-file", &file], &dir);
    let told: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let manifest = kept.lock().unwrap()["/v2/team/app/manifests/v1"].clone();
    assert_eq!(told["containerimage.digest"], kiln_image::digest::Digest::of(&manifest).to_string());
    let zstd = format!("type=image,name={}/team/z,push=true,compression=zstd", server.address);
    ok(&fixture, &["-o", &zstd], &dir);
    let manifest = kept.lock().unwrap()["/v2/team/z/manifests/latest"].clone();
    assert!(String::from_utf8_lossy(&manifest).contains("tar+zstd"));
    let done = build(&fixture, &["--push"], &dir);
    assert!(done.code == 1 && done.err.contains("tag is needed when pushing"), "{}", done.err);
}

#[test]
fn metadata_files_and_layouts_describe_the_result() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nLABEL a=b\n");
    let file = fixture.path("metadata").display().to_string();
    let id = ok(&fixture, &["-q", "--metadata-file", &file, "-t", "meta", "--annotation=x=y"], &dir).out;
    let told: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(told["containerimage.config.digest"], id.trim());
    assert_eq!(told["image.name"], "docker.io/library/meta:latest");
    assert!(told["containerimage.digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(told["containerimage.descriptor"]["digest"], told["containerimage.digest"]);
    let layout = format!(
        "type=oci,dest={},tar=false,compression=gzip,oci-mediatypes=false",
        fixture.path("l").display()
    );
    ok(&fixture, &["-o", &layout, "--annotation=x=y"], &dir);
    let found = Command::new("grep")
        .args(["-rla", "vnd.docker.image.rootfs.diff.tar.gzip"])
        .arg(fixture.path("l"))
        .output();
    assert!(!found.unwrap().stdout.is_empty());
    let found = Command::new("grep").args(["-rla", "\"x\":\"y\""]).arg(fixture.path("l")).output();
    assert!(!found.unwrap().stdout.is_empty());
}

#[test]
fn dirs_above_sources_are_kept_when_asked_for() {
    let fixture = fixture!();
    let text =
        "FROM busybox\nCOPY --parents a/b/f.txt **/x.md d/./e/g /t/\nRUN cd /t && find . -type f | sort\n";
    let dir = context(&fixture, "c", text);
    for name in ["a/b/f.txt", "a/b/other", "q/r/x.md", "d/e/g"] {
        fixture.write(&format!("c/{name}"), "x");
    }
    let done = ok(&fixture, &[], &dir);
    let lines: Vec<&str> =
        done.err.lines().filter_map(|line| line.split_once(" ./").map(|(_, path)| path)).collect();
    assert_eq!(lines, ["a/b/f.txt", "e/g", "q/r/x.md"], "{}", done.err);
}

#[test]
fn images_are_verified() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nCOPY f /f\nRUN mkdir /d && echo same > /d/x\n");
    fixture.write("c/f", "x");
    ok(&fixture, &["-t", "steady"], &dir);
    let same = fixture.words("verify steady");
    assert_eq!(same.code, 0, "{}{}", same.out, same.err);
    let id = fixture.ok("inspect -f {{.Id}} steady");
    assert_eq!(same.out, format!("image steady ({}): built again with the same result\n", id.trim()));
    let dir = context(
        &fixture,
        "r",
        "FROM busybox\nRUN echo same > /a\nRUN cat /proc/sys/kernel/random/uuid > /id\n",
    );
    let other = fixture.kiln(&["verify", &dir]);
    assert_eq!(other.code, 1, "{}{}", other.out, other.err);
    assert!(other.out.contains("/id") && other.out.contains("random/uuid"), "{}", other.out);
    let unknown = fixture.words("verify busybox");
    assert!(
        unknown.code == 1 && unknown.err.contains("this store does not know how the image was built"),
        "{}",
        unknown.err
    );
}

#[test]
fn verify_names_its_subject_and_leaves_no_image() {
    let fixture = fixture!();
    let text = "FROM busybox\nCOPY f /f\nRUN cat /f > /g\n";
    let dir = context(&fixture, "thing", text);
    fixture.write("thing/f", "x");
    ok(&fixture, &["-t", "thing"], &dir);
    let id = fixture.ok("inspect -f {{.Id}} thing").trim().to_owned();
    let above = fixture.path("thing").parent().unwrap().to_owned();
    let verify = |words: &[&str]| {
        let mut command = fixture.command(&[&["verify"], words].concat());
        let before = fixture.ok("images -q");
        let done = Done::of(command.current_dir(&above).output().unwrap());
        assert_eq!(fixture.ok("images -q"), before, "{}{}", done.out, done.err);
        (done.code, done.out)
    };
    assert_eq!(verify(&["thing"]), (0, format!("image thing ({id}): built again with the same result\n")));
    let expected = "directory ./thing: built twice with the same result\n".to_owned();
    assert_eq!(verify(&["./thing"]), (0, expected));
    // Edited inputs are not blamed on a step.
    fixture.write("thing/f", "y");
    let (code, out) = verify(&["thing"]);
    assert_eq!(code, 1);
    assert!(
        out.starts_with(&format!("image thing ({id}): its inputs have changed since it was built")),
        "{out}"
    );
    assert!(out.contains("`COPY f /f # buildkit` made another `/f`"), "{out}");
    // Both: the edit is reported first, and then the step that cannot be reproduced.
    fixture.write("thing/Dockerfile", &format!("{text}RUN cat /proc/sys/kernel/random/uuid > /id\n"));
    let (_, out) = verify(&["thing"]);
    assert!(out.contains("inputs have changed") && out.contains("besides, each time "), "{out}");
    ok(&fixture, &["-t", "thing"], &dir);
    let (_, out) = verify(&["thing"]);
    assert!(out.contains("it is another image each time: ") && out.contains("random/uuid"), "{out}");
    // Both builds of a directory are new: the first one does not come from the cache.
    let (code, out) = verify(&["./thing"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("directory ./thing: built again, it is another image each time: "), "{out}");
    let other = context(&fixture, "other", "FROM busybox\nRUN echo a; echo b > /b\n");
    let done = fixture.kiln(&["verify", "--progress=plain", &other]);
    assert_eq!(done.err.matches(" a\n").count(), 2, "{}", done.err);
}

#[test]
fn steps_see_directories_of_volume_flags() {
    let fixture = fixture!();
    fixture.write("given/f", "from outside\n");
    let dir = context(
        &fixture,
        "c",
        "FROM busybox\nRUN cat /given/f && ! touch /given/x 2>/dev/null\nRUN ls -d /given\n",
    );
    let volume = format!("{}:/given:ro", fixture.path("given").display());
    let done = ok(&fixture, &["-v", &volume, "--jobs=1", "--format=docker", "-t", "given"], &dir);
    assert!(done.err.contains("from outside"), "{}", done.err);
    assert_eq!(fixture.words("run --rm given ls /given").code, 1, "nothing of it is in the image");
    assert_eq!(build(&fixture, &["-v", "/nosuch-directory:/x"], &dir).code, 1);
}

#[test]
fn progress_has_a_form_for_programs() {
    let fixture = fixture!();
    let dir = context(&fixture, "c", "FROM busybox\nRUN echo hello\n");
    let done = ok(&fixture, &["--progress=rawjson"], &dir);
    let lines: Vec<serde_json::Value> =
        done.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["logs"][0]["data"] == "aGVsbG8K"), "{}", done.err);
    assert!(lines.iter().any(|line| line["vertexes"][0]["name"] == "[2/2] RUN echo hello"), "{}", done.err);
}

#[test]
fn ssh_agents_and_keys_are_visible_to_their_step() {
    let fixture = fixture!();
    if Command::new("ssh-keygen").arg("-?").output().is_err() {
        skip!("needs ssh-keygen");
    }
    let key = fixture.path("key");
    let made =
        Command::new("ssh-keygen").args(["-qt", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let text =
        "FROM busybox\nRUN --mount=type=ssh,mode=0640,uid=7,gid=8 stat -c '%F %a %u %g' $SSH_AUTH_SOCK\n";
    let dir = context(&fixture, "c", text);
    let done = ok(&fixture, &[&format!("--ssh=default={}", key.display())], &dir);
    assert!(done.err.contains("socket 640 7 8"), "{}", done.err);
    fixture.write("text", "no key\n");
    let done = build(&fixture, &[&format!("--ssh=default={}", fixture.path("text").display())], &dir);
    assert!(
        done.code == 1 && done.err.contains("neither the socket of an ssh agent nor a key"),
        "{}",
        done.err
    );
}
