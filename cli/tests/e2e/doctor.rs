//! `kiln doctor net`: what of this host keeps containers from their networks.

#[test]
fn the_doctor_looks_at_networks_and_changes_nothing() {
    let fixture = fixture!();
    let done = fixture.words("doctor net");
    assert!(done.code <= 1 && done.err.is_empty(), "{}", done.err);
    let levels: Vec<&str> = done.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(levels.len(), 9, "{}", done.out);
    assert_eq!(done.code == 1, levels.contains(&"fail"), "{}", done.out);
    let explained = |line: &&str| line.starts_with("ok") != line.contains("; fix: ");
    assert!(done.out.lines().all(|line| explained(&line)), "{}", done.out);
    let json = fixture.words("doctor net --format json").out;
    assert!(json.contains("\"level\": \"ok\"") && json.contains("\"name\": \"packet rules\""), "{json}");
    // In a network namespace that no other test changes.
    let settings =
        "cat /proc/sys/net/ipv4/ip_forward /proc/net/dev /proc/net/route; nft list ruleset 2>/dev/null";
    let script =
        format!("{{ {settings}; }} >before; \"$0\" doctor net; {{ {settings}; }} >after; cmp before after");
    let mut command = std::process::Command::new("unshare");
    command.args(["-n", "sh", "-c", &script]).arg(crate::fixture::kiln()).env("KILN_ROOT", fixture.root());
    let done = crate::fixture::Done::of(command.current_dir(fixture.path("")).output().unwrap());
    assert!(done.code == 0 && done.out.contains("fix: "), "{done:?}");
    assert!(!fixture.root().exists(), "no store is made");
    assert_eq!(fixture.words("doctor net --format xml").code, 125);
}
