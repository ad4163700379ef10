//! Many at once.

use crate::bed::Done;

#[test]
fn builds_of_different_projects_do_not_disturb_each_other() {
    let bed = bed!();
    let children: Vec<_> = (0..4)
        .map(|number| {
            let dockerfile =
                format!("FROM busybox\nRUN echo {number} > /a\nRUN cat /a /a > /b\nCMD [\"cat\", \"/b\"]\n");
            let context = bed.context(&format!("c{number}"), &dockerfile);
            let name = format!("c{number}");
            bed.start(&["build".as_ref(), "-t".as_ref(), name.as_ref(), context.as_os_str()])
        })
        .collect();
    for child in children {
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!(done.code, 0, "{}", done.err);
    }
    for number in 0..4 {
        assert_eq!(bed.ok(&format!("run --rm c{number}")), format!("{number}\n{number}\n"));
    }
}

#[test]
fn twenty_containers_at_once() {
    let bed = bed!();
    bed.ok("pull -q busybox");
    let children: Vec<_> = (0..20)
        .map(|number| {
            let program = format!(
                "grep \"$(hostname)$\" /etc/hosts && ping -c 1 -W 5 127.0.0.1 >/dev/null && exit {number}"
            );
            bed.start(&["run", "--rm", "busybox", "sh", "-c", &program])
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
    assert_eq!(bed.ok("ps -aq"), "");
}
