//! `update`: limits and restart policies of containers that exist.

use crate::fixture::Fixture;
use std::path::Path;
use std::time::{Duration, Instant};

fn legacy(controller: &str) -> bool {
    Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists()
}

/// Value of a file in the cgroup of a container that runs; the names of version 1 and 2.
fn limit(fixture: &Fixture, name: &str, old: &str, new: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{old} 2>/dev/null || cat /sys/fs/cgroup/{new}");
    fixture.kiln(&["exec", name, "sh", "-c", &script]).out.trim().to_owned()
}

fn host(fixture: &Fixture, name: &str, field: &str) -> String {
    fixture.ok(&format!("inspect -f {{{{.HostConfig.{field}}}}} {name}")).trim().to_owned()
}

#[test]
fn limits_of_running_containers_change() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("run -d --name web --network none -m 64m busybox sleep 1000");
    fixture.ok("run -d --name free --network none busybox sleep 1000");
    let memory = |name: &str| limit(&fixture, name, "memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(fixture.ok("update -m 32m --pids-limit 40 -c 512 web"), "web\n");
    assert_eq!(memory("web"), (32 << 20).to_string());
    assert_eq!(limit(&fixture, "web", "pids/pids.max", "pids.max"), "40");
    let shares = if legacy("cpu") { "512" } else { "59" };
    assert_eq!(limit(&fixture, "web", "cpu/cpu.shares", "cpu.weight"), shares);
    // Several at once; the rest stays. A container without limits gets one.
    assert_eq!(fixture.ok("container update --memory 48m --memory-swap 96m web free"), "web\nfree\n");
    assert_eq!((memory("web"), memory("free")), ((48 << 20).to_string(), (48 << 20).to_string()));
    assert_eq!(
        (host(&fixture, "web", "PidsLimit"), host(&fixture, "web", "CpuShares")),
        ("40".into(), "512".into())
    );
    fixture.ok("update --cpu-quota 20000 --cpu-period 50000 web");
    let quota = if legacy("cpu") { "20000" } else { "20000 50000" };
    assert_eq!(limit(&fixture, "web", "cpu/cpu.cfs_quota_us", "cpu.max"), quota);
    fixture.ok("update --cpus 0.5 --cpuset-cpus 0 --pids-limit -1 free");
    let quota = if legacy("cpu") { "50000" } else { "50000 100000" };
    assert_eq!(limit(&fixture, "free", "cpu/cpu.cfs_quota_us", "cpu.max"), quota);
    assert_eq!(limit(&fixture, "free", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(limit(&fixture, "free", "pids/pids.max", "pids.max"), "max");
    fixture.ok("stop -t 0 free");
    fixture.ok("update -m 40m free");
    assert_eq!(host(&fixture, "free", "Memory"), (40 << 20).to_string());
    fixture.ok("start free");
    assert_eq!(memory("free"), (40 << 20).to_string(), "the next start uses it");
    fixture.ok("rm -f web free");
}

#[test]
fn limits_that_the_kernel_refuses_change_nothing() {
    let fixture = fixture!();
    if !legacy("memory") {
        skip!("needs a memory cgroup of version 1, which refuses a limit below what is used");
    }
    fixture.ok("pull -q busybox");
    let fill = "dd if=/dev/zero of=/dev/shm/used bs=1M count=20 2>/dev/null; touch /filled; sleep 1000";
    fixture.kiln(&[
        "run",
        "-d",
        "--name",
        "web",
        "-m",
        "64m",
        "--pids-limit",
        "50",
        "busybox",
        "sh",
        "-c",
        fill,
    ]);
    let wait = "while [ ! -e /filled ]; do sleep 0.02; done";
    assert_eq!(fixture.kiln(&["exec", "web", "sh", "-c", wait]).code, 0);
    let limits = || {
        [
            ("memory/memory.limit_in_bytes", "memory.max"),
            ("pids/pids.max", "pids.max"),
            ("cpu/cpu.shares", "cpu.weight"),
        ]
        .map(|(old, new)| limit(&fixture, "web", old, new))
    };
    let before = limits();
    let done = fixture.words("update -m 8m --memory-swap 8m --pids-limit 40 -c 512 --cpus 0.5 web");
    assert!(done.code == 1 && done.err.contains("memory"), "{done:?}");
    assert_eq!(limits(), before);
    assert_eq!(limit(&fixture, "web", "cpu/cpu.cfs_quota_us", "cpu.max"), "-1");
    assert_eq!(
        (host(&fixture, "web", "PidsLimit"), host(&fixture, "web", "CpuShares")),
        ("50".into(), "0".into())
    );
    fixture.ok("rm -f web");
}

#[test]
fn contradictions_are_refused_as_in_docker() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("create --name web -m 64m --cpus 1 busybox true");
    fixture.ok("create --name gone --rm busybox true");
    for (words, code, text) in [
        ("update web", 1, "you must provide one or more flags when using this command"),
        ("update", 1, ""),
        ("update -m 1m web", 1, "Minimum memory limit allowed is 6MB"),
        ("update -m x web", 125, "invalid size: 'x'"),
        ("update -m 200m web", 1, "update the memoryswap at the same time"),
        ("update -m 32m --memory-swap 16m web", 1, "Minimum memoryswap limit should be larger"),
        ("update --cpu-quota 5000 web", 1, "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ("update --cpus 1 --cpu-period 5000 gone", 1, "Nano CPUs and CPU Period cannot both be set"),
        ("update --cpuset-cpus 9999 web", 1, "Requested CPUs are not available"),
        ("update --blkio-weight 5 web", 1, "Range of blkio weight is from 10 to 1000"),
        ("update --pids-limit 99999999999 web", 1, "the limit of processes is at most 4194304"),
        ("update --restart sometimes web", 1, "unknown policy 'sometimes'"),
        ("update --restart always gone", 1, "Restart policy cannot be updated because AutoRemove is enabled"),
        ("update --kernel-memory 5m web", 1, "Linux has no such limit any more"),
        ("update -m 32m wen", 1, "did you mean web?"),
        ("update --nosuch web", 125, "unknown flag: --nosuch"),
    ] {
        let done = fixture.words(words);
        assert!(done.code == code && done.err.contains(text), "{words}: {} {}", done.code, done.err);
        assert_eq!(done.out, "", "{words}");
    }
    let id = fixture.ok("ps -aq --no-trunc --filter name=web");
    let done = fixture.words("update -m 200m web");
    assert!(done.err.contains(&format!("Cannot update container {}: ", id.trim())), "{}", done.err);
    assert_eq!(host(&fixture, "web", "Memory"), (64 << 20).to_string());
    // One failure does not keep the others from their change.
    let done = fixture.words("update -m 32m nosuch web");
    assert!(
        done.code == 1 && done.out == "web\n" && done.err.contains("No such container: nosuch"),
        "{done:?}"
    );
    assert_eq!(fixture.ok("update --restart no gone"), "gone\n");
    fixture.ok("rm web gone");
}

#[test]
fn the_next_end_follows_the_changed_policy() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "while [ ! -e /end ]; do sleep 0.02; done; rm /end; exit 3";
    let started =
        fixture.kiln(&["run", "-d", "--name", "web", "--network", "none", "busybox", "sh", "-c", script]);
    assert_eq!(started.code, 0, "{}", started.err);
    let count = || fixture.ok("inspect -f {{.State.Status}}/{{.RestartCount}} web");
    let until = |expected: &str| {
        let began = Instant::now();
        while count() != expected {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", count());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(fixture.ok("update --restart on-failure:4 web"), "web\n");
    assert_eq!(host(&fixture, "web", "RestartPolicy"), "{on-failure 4}");
    fixture.ok("exec web touch /end");
    until("running/1\n");
    fixture.ok("update --restart no web");
    fixture.ok("exec web touch /end");
    until("exited/1\n");
    fixture.ok("rm web");
}
