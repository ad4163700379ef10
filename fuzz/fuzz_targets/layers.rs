//! Stacks of layers, unpacked by the store and by the model of the specification (`image/tests/model`). Needs root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;

#[path = "../../image/tests/model/mod.rs"]
mod model;

thread_local! {
    /// The store, and how many stacks lie in it.
    static BED: RefCell<Option<(model::Bed, u32)>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    BED.with_borrow_mut(|bed| {
        let (bed, stacks) = match bed {
            Some(bed) if bed.1 < 400 => bed,
            other => other.insert((model::Bed::new(), 0)),
        };
        *stacks += 1;
        if let Err(difference) = bed.check(bytes, false) {
            panic!("{difference}");
        }
    });
});
