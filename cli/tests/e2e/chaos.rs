//! `kill -9` of monitors, programs and commands at random, and programs that want all of the host.

use crate::fixture::{Done, Fixture, kiln};
use crate::lifecycle::{LONGEST, shell, status, until};
use crate::orphans::monitors;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Seconds of [`kills_at_random_leave_true_lists_and_nothing_behind`]: `make test-long` wants more.
const SECONDS: &str = "KILN_CHAOS_SECONDS";

/// Numbers that look random (xorshift64), so that a seed repeats a choice of actions.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

/// Containers of one campaign.
struct Campaign {
    fixture: Fixture,
    /// Text in the command line of each program.
    mark: String,
    count: usize,
    /// Monitors that were seen.
    monitors: Mutex<BTreeSet<i32>>,
    /// Links of containers to the host's bridge that were seen.
    links: Mutex<BTreeSet<String>>,
}

/// Kills a process; one that has ended is fine.
fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Waits for a command's end; its exit code, -1 after a signal.
#[track_caller]
fn finish(mut child: Child, words: &str) -> i32 {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(began.elapsed() < LONGEST, "kiln {words} hangs");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Campaign {
    fn new(fixture: Fixture, count: usize) -> Campaign {
        let mark = format!("chaos-{}", std::process::id());
        Campaign { fixture, mark, count, monitors: Mutex::default(), links: Mutex::default() }
    }

    /// Command that makes a container: restart policies, networks and pid namespaces are mixed.
    fn make(&self, number: usize) -> Vec<String> {
        let mut words = vec!["run".to_owned(), "-d".to_owned(), format!("--name=c{number}")];
        words.extend(match number % 5 {
            0 => vec!["--restart=always".to_owned()],
            1 => vec!["--rm".to_owned()],
            2 => vec!["--pid=host".to_owned()],
            3 => vec!["-t".to_owned()],
            _ => vec![],
        });
        if !number.is_multiple_of(4) {
            words.push("--network=none".to_owned());
        }
        let script = format!("trap 'exit 0' TERM; echo up; sleep 5000 & wait; : {} c{number}.", self.mark);
        words.extend(["busybox".to_owned(), "sh".to_owned(), "-c".to_owned(), script]);
        words
    }

    fn spawn(&self, words: &[String]) -> Child {
        self.fixture.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Pids of the programs that run, with the names of their containers.
    fn programs(&self) -> Vec<(i32, String)> {
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).into_owned();
            let (_, name) = command.split_once(&format!(": {} ", self.mark))?;
            // A command of Kiln has the script in its command line, too.
            let is_program = command.starts_with("sh\0");
            is_program.then(|| (pid, name.split('.').next().unwrap_or_default().to_owned()))
        });
        processes.collect()
    }

    /// Remembers what exists now, to look for it at the end.
    fn look(&self) {
        self.monitors.lock().unwrap().extend(monitors(&self.fixture));
        for (pid, _) in self.programs() {
            // Number of the other end of the container's interface.
            let text = fs::read_to_string(format!("/proc/{pid}/root/sys/class/net/eth0/iflink"));
            let Ok(number) = text.map(|text| text.trim().to_owned()) else { continue };
            let links = fs::read_dir("/sys/class/net").unwrap().flatten();
            let found = links.filter(|link| {
                fs::read_to_string(link.path().join("ifindex")).is_ok_and(|text| text.trim() == number)
            });
            self.links.lock().unwrap().extend(found.map(|link| link.file_name().into_string().unwrap()));
        }
    }

    /// One action: a kill of a monitor or a program, or a command that may be killed.
    fn act(&self, random: &mut Random) {
        let number = random.below(self.count);
        let name = format!("c{number}");
        let line = |words: &str| words.split(' ').chain([name.as_str()]).map(str::to_owned).collect();
        let mut words: Vec<String> = match random.below(16) {
            0 | 1 => return self.kill_one(monitors(&self.fixture), random),
            2 | 3 => return self.kill_one(self.programs().into_iter().map(|(pid, _)| pid).collect(), random),
            4 | 5 => self.make(number),
            6 => line("rm -f"),
            7 => line("stop -t 1"),
            8 => line("start"),
            9 => line("restart -t 1"),
            10 => line("kill"),
            11 => line("pause"),
            12 => line("unpause"),
            13 => line("logs -n 3"),
            14 => line("exec"),
            _ => vec!["ps".to_owned(), "-a".to_owned()],
        };
        if words[0] == "exec" {
            words.push("true".to_owned());
        }
        let child = self.spawn(&words);
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_millis(random.below(40) as u64));
            kill(child.id() as i32);
        }
        let code = finish(child, &words.join(" "));
        assert!(code != 101, "kiln {words:?} panics");
    }

    fn kill_one(&self, pids: Vec<i32>, random: &mut Random) {
        if !pids.is_empty() {
            kill(pids[random.below(pids.len())]);
        }
    }

    /// Names of containers that are listed as running, and names of those whose program does. `None`
    /// while one is between two states.
    fn truth(&self) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
        let listed = self.fixture.ok("ps -a --format {{.Names}}|{{.State}}");
        let running = listed.lines().filter_map(|line| line.split_once('|'));
        if running.clone().any(|(_, state)| state == "restarting") {
            return None;
        }
        let running = running.filter(|(_, state)| matches!(*state, "running" | "paused"));
        let running = running.map(|(name, _)| name.to_owned()).collect();
        let live = self.programs().into_iter().filter(|(pid, _)| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        });
        Some((running, live.map(|(_, name)| name).collect()))
    }

    #[track_caller]
    fn assert_list_is_true(&self) {
        let began = Instant::now();
        loop {
            let truth = self.truth();
            if truth.as_ref().is_some_and(|(listed, live)| listed == live) {
                return;
            }
            let list = || self.fixture.ok("ps -a");
            assert!(began.elapsed() < LONGEST, "listed and live differ: {truth:#?}\n{}", list());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn remove_all(&self) {
        for id in self.fixture.ok("ps -aq --no-trunc").lines() {
            self.fixture.ok(&format!("rm -f {id}"));
        }
        assert_eq!(self.fixture.ok("ps -aq"), "");
        assert_eq!(self.programs(), []);
        // Cgroups of killed monitors, and files of killed commands, are removed by the next of their kind.
        self.fixture.ok("run --rm --network=none busybox true");
        self.fixture.ok("builder prune -af");
        for dir in ["containers/names", "containers", "pins", "work", "locks"] {
            let entries = fs::read_dir(self.fixture.root().join(dir)).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().into_string().unwrap());
            let left: Vec<String> =
                names.filter(|name| !["names", ".empty", "layers"].contains(&name.as_str())).collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        let seen = self.monitors.lock().unwrap();
        let is_ours = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let pid = name.strip_prefix("kiln-run-").and_then(|rest| rest.split('-').next()?.parse().ok());
            pid.is_some_and(|pid: i32| seen.contains(&pid))
        };
        let left = || directories(Path::new("/sys/fs/cgroup")).into_iter().filter(|path| is_ours(path));
        gone("cgroups", || left().map(|path| path.display().to_string()).collect());
        let links = self.links.lock().unwrap();
        let exists = |name: &&String| Path::new("/sys/class/net").join(name).exists();
        gone("links", || links.iter().filter(exists).cloned().collect());
    }
}

/// Directories below `root`, but none below cgroups of containers.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            if !entry.file_name().to_string_lossy().starts_with("kiln-") {
                found.extend(directories(&entry.path()));
            }
        }
    }
    found
}

/// Waits until nothing is left: the kernel removes some things a while after their last user.
#[track_caller]
fn gone(what: &str, left: impl Fn() -> Vec<String>) {
    let began = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < LONGEST, "{what} are left: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn kills_at_random_leave_true_lists_and_nothing_behind() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    let campaign = Campaign::new(fixture, if seconds.is_some() { 100 } else { 20 });
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(8));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    eprintln!("seed {now}");
    std::thread::scope(|scope| {
        let campaign = &campaign;
        for worker in 0..4 {
            let mut random = Random(now.wrapping_add(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(worker)) | 1);
            scope.spawn(move || {
                while Instant::now() < until {
                    campaign.act(&mut random);
                }
            });
        }
        scope.spawn(move || {
            while Instant::now() < until {
                campaign.look();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    });
    campaign.look();
    campaign.assert_list_is_true();
    // All that runs has a monitor after this, and is listed as before.
    campaign.fixture.words("system boot");
    campaign.look();
    campaign.assert_list_is_true();
    campaign.remove_all();
}

#[test]
fn many_loops_of_short_containers_leave_nothing() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let turns = if std::env::var_os(SECONDS).is_some() { 50 } else { 2 };
    std::thread::scope(|scope| {
        for number in 0..24 {
            let fixture = &fixture;
            scope.spawn(move || {
                for turn in 0..turns {
                    let done = fixture.words(&format!("run --rm busybox echo {number}-{turn}"));
                    assert_eq!((done.code, done.out), (0, format!("{number}-{turn}\n")), "{}", done.err);
                }
            });
        }
    });
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn programs_that_want_all_of_the_host_leave_it_usable() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    // Each process makes two, for ever: the limit ends that, and the container's end ends them all.
    shell(
        &fixture,
        "-d --name bomb --pids-limit 30",
        "bomb() { bomb | bomb & }; while true; do bomb; sleep 0.01; done",
    );
    let hog = "-d --name hog -m 16m --memory-swap 16m";
    if shell(&fixture, hog, "tail /dev/zero; echo killed; while true; do sleep 0.1; done").code != 0 {
        fixture.ok("rm -f bomb");
        skip!("needs a memory controller");
    }
    until(&fixture, "logs hog", |done| done.out == "killed\n");
    // Known while it runs.
    let oom = "inspect -f {{.State.Status}}/{{.State.OOMKilled}} hog";
    until(&fixture, oom, |done: &Done| done.out == "running/true\n");
    assert_eq!(fixture.ok("run --rm busybox echo usable"), "usable\n");
    fixture.ok("stop -t 0 bomb hog");
    assert_eq!(status(&fixture, "hog"), "exited/137");
    assert_eq!(fixture.ok("inspect -f {{.State.OOMKilled}} hog bomb"), "true\nfalse\n");
    fixture.ok("start hog");
    assert_eq!(fixture.ok("inspect -f {{.State.Status}} hog"), "running\n");
    fixture.ok("rm -f bomb hog");
    let left = std::process::Command::new(kiln()).arg("version").output().unwrap();
    assert!(left.status.success());
}
