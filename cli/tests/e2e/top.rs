//! `top`, `stats` and `port`.

use crate::running::{end, start};

#[test]
fn processes_and_their_use_of_the_host_are_shown() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let running = start(&fixture, "web", &[], "sleep 1000 &");
    let top = fixture.ok("top web");
    let mut lines = top.lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(top.starts_with("UID                 PID                 "), "{top}");
    let sleep = lines.find(|line| line.ends_with("sleep 1000")).unwrap_or_else(|| panic!("{top}"));
    assert!(sleep.starts_with("root "), "{top}");
    let pid = sleep.split_whitespace().nth(1).unwrap();
    assert!(std::path::Path::new("/proc").join(pid).exists(), "{sleep}");
    assert!(fixture.ok("container top web -o pid,cmd").contains(&format!("{pid} ")));
    assert!(fixture.ok("top web aux").starts_with("USER "));
    let row: serde_json::Value =
        serde_json::from_str(&fixture.ok("stats --no-stream --format json web")).unwrap();
    assert_eq!((&row["Name"], &row["Container"]), (&"web".into(), &"web".into()));
    assert!(row["PIDs"].as_str().unwrap().parse::<u32>().unwrap() >= 2, "{row}");
    assert!(
        row["CPUPerc"].as_str().unwrap().ends_with('%')
            && row["MemUsage"].as_str().unwrap().contains("iB / "),
        "{row}"
    );
    let table = fixture.ok("stats --no-stream");
    assert!(table.starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"), "{table}");
    assert_eq!(fixture.ok("port web"), "");
    for (words, text) in [
        ("port web 80", "No public port '80' published for web"),
        ("port web x", "invalid port: x"),
        ("top web -Z", "unknown option of ps"),
        ("top web -o nosuch", "nosuch"),
        ("top nosuch", "No such container: nosuch"),
        ("stats --no-stream nosuch", "No such container: nosuch"),
        ("stats --no-stream --format {{.Nope}}", "Nope"),
    ] {
        let done = fixture.words(words);
        assert!(done.code == 1 && done.err.contains(text), "{words}: {} {}", done.code, done.err);
    }
    end(&fixture, "web", running);
    fixture.ok("run --name done busybox true");
    let done = fixture.words("top done");
    assert!(done.code == 1 && done.err.contains("is not running"), "{}", done.err);
    assert_eq!(
        fixture.ok("stats --no-stream"),
        "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O   PIDS\n"
    );
    assert!(fixture.ok("stats --no-stream -a").contains("0B / 0B"));
}
