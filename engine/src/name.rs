//! Names of containers: checked, or generated.

use crate::error::EngineError;

const ADJECTIVES: [&str; 48] = [
    "able", "amber", "ardent", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cosy",
    "daring", "deft", "eager", "early", "fair", "fleet", "fond", "frank", "gentle", "glad", "golden",
    "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "lucid", "lucky",
    "merry", "mild", "modest", "noble", "patient", "plucky", "proud", "quick", "quiet", "ready", "serene",
    "steady", "sunny", "warm", "wise",
];

const SURNAMES: [&str; 48] = [
    "archimedes",
    "bassi",
    "bohr",
    "boole",
    "carson",
    "cerf",
    "curie",
    "darwin",
    "dijkstra",
    "einstein",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "franklin",
    "galileo",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hertz",
    "hopper",
    "hypatia",
    "jemison",
    "johnson",
    "kepler",
    "knuth",
    "lamarr",
    "leakey",
    "liskov",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "planck",
    "ritchie",
    "sagan",
    "tesla",
    "thompson",
    "turing",
    "wu",
];

/// Checks a name chosen by the user: at least two characters.
///
/// # Errors
/// [`EngineError::InvalidName`] for other texts.
pub fn check(name: &str) -> Result<(), EngineError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() >= 2 && name.bytes().all(word) {
        return Ok(());
    }
    Err(EngineError::InvalidName(name.to_owned()))
}

/// Generates a name from random bytes, with a number at its end in later attempts.
pub(crate) fn make(random: [u8; 4], attempt: usize) -> String {
    let pick = |list: &[&'static str], high: u8, low: u8| {
        list[usize::from(u16::from_le_bytes([low, high])) % list.len()]
    };
    let adjective = pick(&ADJECTIVES, random[0], random[1]);
    let surname = pick(&SURNAMES, random[2], random[3]);
    let number = if attempt < 8 { String::new() } else { attempt.to_string() };
    format!("{adjective}_{surname}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["ab", "a1", "web.1_x-y", "0a"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-ab", "a b", "a/b", ".x", "é1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(make([0, 1, 0, 2], 0), "amber_bohr");
        assert_eq!(make([0, 1, 0, 2], 9), "amber_bohr9");
        assert!(check(&make([255; 4], 0)).is_ok());
    }
}
