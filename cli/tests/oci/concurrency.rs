//! Many containers, in sequence and in parallel, that leave nothing behind.

use crate::fixture::new_id;

#[test]
fn a_thousand_in_a_row_leave_nothing() {
    let fixture = fixture!();
    let bundle = fixture.bundle("true");
    let dir = bundle.write();
    let before = fixture.traces("row");
    for _ in 0..1000 {
        let done = fixture.oci(&["run", "--bundle", dir, &new_id("row")]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }
    // Every descriptor of a process is listed: none is left open.
    assert_eq!(fixture.traces("row"), before);
}

#[test]
fn fifty_at_once_leave_nothing() {
    let fixture = fixture!();
    let bundle = fixture.bundle("echo $$");
    let dir = bundle.write();
    let before = fixture.traces("crowd");
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let done = fixture.oci(&["run", "--bundle", dir, &new_id("crowd")]);
                assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "1\n", ""));
            });
        }
    });
    assert_eq!(fixture.traces("crowd"), before);
}
