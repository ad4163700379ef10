//! What containers and steps see of the host's cgroups.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Cgroups of the host in all hierarchies, with a secret in their name; removed on drop.
struct Telling {
    name: String,
    made: Vec<PathBuf>,
}

impl Telling {
    fn make() -> Telling {
        let name = format!("telling-{}", std::process::id());
        let mut made = Vec::new();
        for entry in fs::read_dir(ROOT).unwrap().flatten() {
            let path = entry.path().join(&name);
            if entry.path().join("cgroup.procs").exists() && fs::create_dir(&path).is_ok() {
                made.push(path);
            }
        }
        Telling { name, made }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.made.iter().for_each(|path| drop(fs::remove_dir(path)));
    }
}

/// Command that prints the paths of all cgroups, those of the container, and the processes in one.
const LOOK: &str = "find /sys/fs/cgroup; cat /proc/self/cgroup; grep ' /sys/fs/cgroup' /proc/self/mountinfo; \
                    echo processes $(cat /sys/fs/cgroup/memory/cgroup.procs); \
                    echo limit $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes)";

#[track_caller]
fn assert_own_alone(shown: &str, host: &Telling) {
    assert!(!shown.contains(&host.name), "{shown}");
    assert!(!shown.contains("kiln-run") && !shown.contains("kiln-build"), "{shown}");
    let places: Vec<&str> = shown.lines().filter(|line| line.split(':').count() == 3).collect();
    assert!(places.len() > 2 && places.iter().all(|place| place.ends_with(":/")), "{shown}");
    // Its own cgroup is visible, and contains its processes alone.
    assert!(shown.contains("/sys/fs/cgroup/memory/memory.usage_in_bytes"), "{shown}");
    let processes = shown.lines().find_map(|line| line.strip_prefix("processes ")).unwrap();
    let processes: Vec<u32> = processes.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(processes.contains(&1) && processes.len() < 4, "{shown}");
}

#[test]
fn containers_see_no_cgroup_but_their_own() {
    let fixture = fixture!();
    if !Path::new(ROOT).join("memory/cgroup.procs").exists() {
        skip!("no controllers of version 1: the kernel's own view of a cgroup namespace is shown");
    }
    let host = Telling::make();
    assert!(host.made.len() > 2, "{:?}", host.made);
    fixture.ok("pull -q busybox");
    let done = fixture.kiln(&["run", "--rm", "busybox", "sh", "-c", LOOK]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_own_alone(&done.out, &host);
    let context = fixture.context("c", &format!("FROM busybox\nRUN {LOOK}\n"));
    for (flags, limit) in [(&[][..], None), (&["-m", "64m"][..], Some("limit 67108864"))] {
        let mut arguments = vec!["build", "--no-cache", "--progress=plain"];
        arguments.extend(flags);
        let done = fixture.kiln(&[&arguments[..], &[context.to_str().unwrap()]].concat());
        assert_eq!(done.code, 0, "{}", done.err);
        // Lines of the step come after its number and the time.
        let lines = done.err.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
        let shown = lines.skip_while(|line| *line != ROOT).collect::<Vec<_>>().join("\n");
        assert_own_alone(&shown, &host);
        assert!(limit.is_none_or(|limit| shown.contains(limit)), "{shown}");
    }
    // Nothing is left of them on the host.
    let own = |name: &str| name.starts_with("kiln-") && name.contains(&format!("-{}-", std::process::id()));
    let left = host.made.iter().flat_map(|path| fs::read_dir(path.parent().unwrap()).unwrap().flatten());
    let left: Vec<PathBuf> =
        left.filter(|entry| own(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
