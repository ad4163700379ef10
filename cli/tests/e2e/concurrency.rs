//! Many commands in parallel.

use crate::fixture::Done;
use std::time::{Duration, Instant};

#[test]
fn builds_of_different_projects_do_not_disturb_each_other() {
    let fixture = fixture!();
    let children: Vec<_> = (0..4)
        .map(|number| {
            let dockerfile =
                format!("FROM busybox\nRUN echo {number} > /a\nRUN cat /a /a > /b\nCMD [\"cat\", \"/b\"]\n");
            let context = fixture.context(&format!("c{number}"), &dockerfile);
            let name = format!("c{number}");
            fixture.start(&["build".as_ref(), "-t".as_ref(), name.as_ref(), context.as_os_str()])
        })
        .collect();
    for child in children {
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!(done.code, 0, "{}", done.err);
    }
    for number in 0..4 {
        assert_eq!(fixture.ok(&format!("run --rm c{number}")), format!("{number}\n{number}\n"));
    }
}

#[test]
fn twenty_containers_at_once() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let children: Vec<_> = (0..20)
        .map(|number| {
            let program = format!(
                "grep \"$(hostname)$\" /etc/hosts && ping -c 1 -W 5 127.0.0.1 >/dev/null && exit {number}"
            );
            fixture.start(&["run", "--rm", "busybox", "sh", "-c", &program])
        })
        .collect();
    let mut addresses = std::collections::BTreeSet::new();
    for (number, child) in children.into_iter().enumerate() {
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!(done.code, number as i32, "{}", done.err);
        addresses.insert(done.out);
    }
    // All could run at the same time, so no two had the same address then; some may have followed others.
    assert!(!addresses.is_empty());
    assert_eq!(fixture.ok("ps -aq"), "");
}

/// Seconds of [`commands_on_containers_do_not_disturb_each_other`]: `make test-long` wants more.
const CAMPAIGN: &str = "KILN_CAMPAIGN_SECONDS";

/// Lines of messages about changes by another process.
const EXPECTED: [&str; 4] =
    ["No such container", "No such object", "container is running", "is using its referenced image"];

/// Calls `turn` until the time is over; everything that it reports as unexpected.
fn repeat(until: Instant, mut turn: impl FnMut(usize) -> Vec<Done>) -> Vec<String> {
    let mut unexpected = Vec::new();
    for number in 0.. {
        if Instant::now() > until {
            break;
        }
        for done in turn(number) {
            let lines = done.err.lines().filter(|line| !EXPECTED.iter().any(|words| line.contains(words)));
            let lines: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with("hint:")).collect();
            if !lines.is_empty() || !matches!(done.code, 0 | 1) || (done.code == 1 && done.err.is_empty()) {
                unexpected.push(format!("{}: {}", done.code, lines.join("\n")));
            }
        }
    }
    unexpected
}

#[test]
fn commands_on_containers_do_not_disturb_each_other() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("run --name stays busybox true");
    let seconds = std::env::var(CAMPAIGN).ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let until = Instant::now() + Duration::from_secs(seconds);
    let run = "run --network none";
    let unexpected: Vec<String> = std::thread::scope(|scope| {
        let fixture = &fixture;
        let workers = [
            scope.spawn(move || repeat(until, |_| vec![fixture.words(&format!("{run} --rm busybox true"))])),
            scope.spawn(move || {
                repeat(until, |number| {
                    let name = format!("n{number}");
                    let made = fixture.words(&format!("{run} --name {name} busybox true"));
                    vec![made, fixture.words(&format!("rm {name}")), fixture.words("rm -f nobody")]
                })
            }),
            scope.spawn(move || {
                repeat(until, |_| {
                    let ids = fixture.words("ps -aq");
                    let some = ids.out.lines().next().unwrap_or("stays").to_owned();
                    vec![
                        ids,
                        fixture.words(&format!("inspect {some}")),
                        fixture.words("inspect stays"),
                        fixture.words("info"),
                    ]
                })
            }),
            scope.spawn(move || {
                repeat(until, |number| {
                    let tagged = fixture.words(&format!("tag busybox t:{number}"));
                    let removed = fixture.words(&format!("rmi t:{number}"));
                    let lingering = fixture.words(&format!("{run} --rm --name w{number} busybox sleep 0.05"));
                    vec![
                        tagged,
                        removed,
                        lingering,
                        fixture.words("builder prune -f"),
                        fixture.words("rmi busybox"),
                    ]
                })
            }),
        ];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(unexpected, Vec::<String>::new());
    assert_eq!(fixture.ok("ps -a --format {{.Names}}"), "stays\n");
    fixture.ok("rm stays");
    for (directory, left) in [("containers/names", 0), ("containers", 1), ("pins", 0)] {
        let entries = std::fs::read_dir(fixture.root().join(directory)).unwrap();
        assert_eq!(entries.count(), left, "{directory}");
    }
}

#[test]
fn containers_are_removed_while_they_run_and_end() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for number in 0..6 {
        let name = format!("c{number}");
        let rm = if number % 2 == 0 { "--rm" } else { "--hostname=x" };
        let running =
            fixture.start(&["run", rm, "--network=none", "--name", &name, "busybox", "sleep", "100"]);
        while !fixture.ok("ps --format {{.Names}}").contains(&name) {}
        let refused = fixture.words(&format!("rm {name}"));
        assert!(refused.err.contains("container is running"), "{}", refused.err);
        let removers: Vec<_> = (0..3).map(|_| fixture.start(&["rm", "-f", &name])).collect();
        for remover in removers {
            let done = Done::of(remover.wait_with_output().unwrap());
            // With -f it is enough that there is none, which is reported.
            let is_expected = done.err.is_empty() || done.err.contains("No such container");
            assert!(done.code == 0 && is_expected, "{}", done.err);
        }
        // It is listed a moment before its program begins: one killed then has not started.
        let code = Done::of(running.wait_with_output().unwrap()).code;
        assert!([125, 127, 137].contains(&code), "{code}");
        assert_eq!(fixture.ok("ps -aq"), "");
    }
}
