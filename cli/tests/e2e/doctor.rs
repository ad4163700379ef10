//! `kiln doctor net`: what of this host keeps containers from their networks.

use std::fs;

#[test]
fn the_doctor_looks_at_networks_and_changes_nothing() {
    let fixture = fixture!();
    let settings = || {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        [read("/proc/sys/net/ipv4/ip_forward"), read("/proc/net/dev").lines().count().to_string()]
    };
    let before = settings();
    let done = fixture.words("doctor net");
    assert!(done.code <= 1 && done.err.is_empty(), "{}", done.err);
    let levels: Vec<&str> = done.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(levels.len(), 9, "{}", done.out);
    assert_eq!(done.code == 1, levels.contains(&"fail"), "{}", done.out);
    let explained = |line: &&str| line.starts_with("ok") != line.contains("; fix: ");
    assert!(done.out.lines().all(|line| explained(&line)), "{}", done.out);
    let json = fixture.words("doctor net --format json").out;
    assert!(json.contains("\"level\": \"ok\"") && json.contains("\"name\": \"packet rules\""), "{json}");
    assert_eq!(settings(), before);
    assert!(!fixture.root().exists(), "no store is made");
    assert_eq!(fixture.words("doctor net --format xml").code, 125);
}
