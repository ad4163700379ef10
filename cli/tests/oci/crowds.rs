//! Many containers, one after the other and at once, and what is left of them: nothing.

use crate::bed::{Bed, new_id};
use std::collections::BTreeSet;
use std::fs;

/// Everything a container could leave on the machine.
fn traces(bed: &Bed, name: &str) -> BTreeSet<String> {
    let mut traces = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let folder = bed.path().to_str().unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(folder)).map(|line| format!("mount {line}")));
    let mut open = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(group) = open.pop() {
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let group = entry.file_name().to_string_lossy().into_owned();
                if group.starts_with(&format!("kt-{}-", std::process::id())) && group.ends_with(name) {
                    traces.insert(format!("group {}", entry.path().display()));
                }
                open.push(entry.path());
            }
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(folder) {
            traces.insert(format!("process {line}"));
        }
    }
    for entry in fs::read_dir(bed.root()).into_iter().flatten().flatten() {
        traces.insert(format!("state {}", entry.path().display()));
    }
    traces
}

#[test]
fn a_thousand_in_a_row_leave_nothing() {
    let bed = bed!();
    let bundle = bed.bundle("true");
    let folder = bundle.write();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (traces(&bed, "row"), descriptors());
    for _ in 0..1000 {
        let done = bed.oci(&["run", "--bundle", folder, &new_id("row")]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }
    assert_eq!(traces(&bed, "row"), before.0);
    assert!(descriptors() <= before.1 + 2);
}

#[test]
fn fifty_at_once_leave_nothing() {
    let bed = bed!();
    let bundle = bed.bundle("echo $$");
    let folder = bundle.write();
    let before = traces(&bed, "crowd");
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let done = bed.oci(&["run", "--bundle", folder, &new_id("crowd")]);
                assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "1\n", ""));
            });
        }
    });
    assert_eq!(traces(&bed, "crowd"), before);
}
