//! Stacks of layers, unpacked by the store and by the model of the specification (`image/tests/model`). Needs root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;

#[path = "../../image/tests/model/mod.rs"]
mod model;

thread_local! {
    /// Fixture with the store, and the number of stacks in it.
    static FIXTURE: RefCell<Option<(model::Fixture, u32)>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FIXTURE.with_borrow_mut(|fixture| {
        let (fixture, stacks) = match fixture {
            Some(fixture) if fixture.1 < 400 => fixture,
            other => other.insert((model::Fixture::new(), 0)),
        };
        *stacks += 1;
        if let Err(difference) = fixture.check(bytes, false) {
            panic!("{difference}");
        }
    });
});
