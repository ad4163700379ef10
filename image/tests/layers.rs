//! Layers of every shape, unpacked by the store and by a model of the specification.
//!
//! `KILN_STACKS=100000 cargo test -p kiln-image --test layers` runs that number of stacks; `KILN_SEED` sets another
//! seed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod model;

use model::Fixture;

/// SplitMix64 (Steele, Lea and Flood, 2014): the same stacks for the same seed.
fn random_bytes(mut state: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn the_store_agrees_with_the_specification() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root (device nodes, owners, trusted attributes)");
        return;
    }
    let (stacks, seed) = (number("KILN_STACKS", 600), number("KILN_SEED", 1));
    let mut fixture = Fixture::new();
    for number in 0..stacks {
        // The layers of a few hundred stacks share one store, and are deduplicated where possible.
        if number % 400 == 399 {
            fixture = Fixture::new();
        }
        let bytes = random_bytes(seed.wrapping_mul(1_000_003).wrapping_add(number), 600);
        if let Err(difference) = fixture.check(&bytes, number % 20 == 0) {
            panic!("stack {number} of seed {seed}: {difference}");
        }
    }
}
