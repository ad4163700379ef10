//! Kernels of many versions, and `kiln info` about the running one.

use crate::fixture::{Done, Fixture};
use std::fmt::Write;

/// Runs a command line as on a kernel without some features.
fn without(fixture: &Fixture, features: &str, line: &str) -> Done {
    let words: Vec<&str> = line.split_whitespace().collect();
    Done::of(fixture.command(&words).env("KILN_WITHOUT", features).output().unwrap())
}

#[test]
fn info_names_the_kernel_and_its_features() {
    let fixture = fixture!();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let text = fixture.ok("info");
    assert!(text.contains(&format!("\n Kernel Version: {}", release.trim())), "{text}");
    assert!(text.contains("\n Images: 0\n") && text.contains("\n Cgroup Version: "), "{text}");
    let text = without(&fixture, "lowerdir+", "info").out;
    assert!(text.contains("\n  lowerdir+: no (Linux 6.8): layers are named by file descriptors"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&without(&fixture, "all", "info --format json").out).unwrap();
    let features = json["KernelFeatures"].as_array().unwrap();
    assert!(features.iter().all(|feature| feature["Present"] == false), "{json}");
    assert_eq!(json["DockerRootDir"].as_str(), fixture.root().to_str());
    assert_eq!(fixture.ok("system info --format {{.KernelVersion}}"), release);
    assert_eq!(fixture.words("info --format {{.Nothing}}").code, 1);
}

#[test]
fn images_have_as_many_layers_as_overlayfs_takes() {
    let fixture = fixture!();
    // Their paths are six times as long as a page, which is what mount(2) takes.
    let mut dockerfile = String::from("FROM busybox\n");
    for number in 0..200 {
        writeln!(dockerfile, "COPY <<x /f/{number}\n{number}\nx").unwrap();
    }
    dockerfile.push_str(
        "RUN ls /f | wc -l > /count\nRUN --mount=from=busybox,target=/m,rw cp -r /f /m && rm /f/7\n",
    );
    fixture.build("layers", &fixture.context("layers", &dockerfile));
    for features in ["", "all"] {
        let command = ["run", "--rm", "layers", "sh", "-c", "cat /count; ls /f | wc -l"];
        let done = Done::of(fixture.command(&command).env("KILN_WITHOUT", features).output().unwrap());
        assert_eq!((done.code, done.out.as_str()), (0, "200\n199\n"), "{features}: {}", done.err);
    }
    // Steps over it run in the same way.
    fixture.context("more", "FROM layers\nRUN rm -r /f\nCOPY --from=layers /f/199 /one\nRUN cat /one\n");
    let more = fixture.path("more").display().to_string();
    let done = without(&fixture, "all", &format!("build -t more {more}"));
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(fixture.ok("run --rm more cat /one"), "199\n");
    assert_eq!(fixture.words("run --rm more ls /f").code, 1);
}

#[test]
fn security_options_confine_a_container() {
    let fixture = fixture!();
    let status = |options: &str| {
        let line = format!("run --rm {options} busybox grep -E ^(NoNewPrivs|Seccomp): /proc/self/status");
        fixture.ok(&line).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(status(""), "NoNewPrivs: 0 Seccomp: 2");
    assert_eq!(status("--security-opt no-new-privileges"), "NoNewPrivs: 1 Seccomp: 2");
    assert_eq!(status("--security-opt=no-new-privileges:false"), "NoNewPrivs: 0 Seccomp: 2");
    assert_eq!(status("--security-opt seccomp=unconfined"), "NoNewPrivs: 0 Seccomp: 0");
    for (option, reason) in [
        ("seccomp=/no/profile.json", "opening seccomp profile (/no/profile.json) failed"),
        ("label=type:spc_t", "containers have no SELinux labels"),
        ("systempaths=open", "invalid --security-opt: \"systempaths=open\""),
        ("apparmor=none-of-that-name", "cannot use the AppArmor profile `none-of-that-name`"),
    ] {
        let done = fixture.words(&format!("run --rm --security-opt {option} busybox true"));
        assert_eq!(done.code, 125, "{done:?}");
        assert!(done.err.contains(reason), "{done:?}");
    }
    fixture.ok("run --name kept --security-opt no-new-privileges busybox true");
    let shown = fixture.kiln(&["inspect", "--format", "{{json .HostConfig.SecurityOpt}}", "kept"]).out;
    assert_eq!(shown, "[\"no-new-privileges\"]\n");
}

/// Runs a command in a mount namespace that a shell command has changed first.
pub fn on_changed(fixture: &Fixture, change: &str, line: &str) -> Done {
    let kiln = fixture.command(&[""; 0]);
    let script = format!("{change} && exec \"$0\" {line}");
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(kiln.get_program()).env_clear();
    command.envs(kiln.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Done::of(command.output().unwrap())
}

#[test]
fn missing_requirements_of_the_host_are_named() {
    let fixture = fixture!();
    fixture.context("one", "FROM busybox\nRUN date\n");
    let one = fixture.path("one").display().to_string();
    let hidden = "mount -t tmpfs none /proc";
    for line in ["run --rm busybox true".to_owned(), format!("build --no-cache {one}")] {
        let done = on_changed(&fixture, hidden, &line);
        let lines: Vec<&str> =
            done.err.lines().filter(|line| line.contains("containers need /proc")).collect();
        assert!(done.code != 0 && lines.len() == 1, "{line}: {done:?}");
        assert!(lines[0].contains("run `mount -t proc proc /proc`"), "{done:?}");
    }
    // Requirements of no container are not reported.
    for change in ["mount -o remount,bind,ro /sys", "umount -R -l /sys/fs/cgroup", "mount -t tmpfs none /sys"]
    {
        let done = on_changed(&fixture, change, "run --rm --network none busybox echo works");
        assert_eq!((done.code, done.out.as_str()), (0, "works\n"), "{change}: {done:?}");
        let done = on_changed(&fixture, change, &format!("build --no-cache {one}"));
        assert_eq!(done.code, 0, "{change}: {done:?}");
    }
    let done = on_changed(&fixture, "umount -R -l /sys/fs/cgroup", &format!("build --no-cache -m 64m {one}"));
    assert!(
        done.err.contains("needs the cgroup controller `memory`, which this host does not have"),
        "{done:?}"
    );
}
