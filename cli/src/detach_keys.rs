//! `--detach-keys`: keys that end a command's connection to a container.

use crate::error::CliError;

/// The default keys: Ctrl-P, Ctrl-Q.
const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Recognizes the keys in the input of a terminal.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// Number of the first keys that the last input ended with; they are held back.
    matched: usize,
}

impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys::parse(None).expect("the default keys are keys")
    }
}

impl DetachKeys {
    /// Parses keys as `a`, `ctrl-a` and so on, separated by commas; the default for `None` and an empty text.
    ///
    /// # Errors
    ///
    /// Fails for text that is not a list of keys.
    pub fn parse(text: Option<&str>) -> Result<DetachKeys, CliError> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or(DEFAULT);
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.ok_or_else(|| {
            let message = format!("invalid detach keys ({text}) provided");
            CliError::Flags(
                message,
                vec!["write keys as a letter or ctrl-LETTER, with commas: ctrl-p,ctrl-q".to_owned()],
            )
        })?;
        Ok(DetachKeys { keys, matched: 0 })
    }

    /// Looks for the keys in input. Returns the bytes to pass on, and true when all keys were pressed one after the
    /// other.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(*byte == self.keys[0] && self.keys.len() > 1);
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

fn key(text: &str) -> Option<u8> {
    let bytes = text.as_bytes();
    if let [byte] = bytes {
        return byte.is_ascii().then_some(*byte);
    }
    let lower = text.to_ascii_lowercase();
    let [letter] = lower.strip_prefix("ctrl-")?.as_bytes() else { return None };
    match letter {
        b'a'..=b'z' => Some(letter - b'a' + 1),
        b'@' => Some(0),
        b'[' => Some(27),
        b'\\' => Some(28),
        b']' => Some(29),
        b'^' => Some(30),
        b'_' => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(keys: &str, inputs: &[&str]) -> (String, bool) {
        let mut keys = DetachKeys::parse(Some(keys)).unwrap();
        let mut all = Vec::new();
        for input in inputs {
            let (passed, is_pressed) = keys.filter(input.as_bytes());
            all.extend(passed);
            if is_pressed {
                return (String::from_utf8(all).unwrap(), true);
            }
        }
        (String::from_utf8(all).unwrap(), false)
    }

    #[test]
    fn keys_are_found_across_reads_and_not_passed_on() {
        assert_eq!(pass("", &["ab\x10\x11cd"]), ("ab".to_owned(), true));
        assert_eq!(pass("", &["ab\x10", "\x11"]), ("ab".to_owned(), true));
        assert_eq!(pass("", &["\x10a\x11"]), ("\x10a\x11".to_owned(), false));
        assert_eq!(pass("", &["\x10\x10\x11"]), ("\x10".to_owned(), true));
        assert_eq!(pass("a", &["xa"]), ("x".to_owned(), true));
        assert_eq!(pass("ctrl-],x", &["1\x1d2\x1dx"]), ("1\x1d2".to_owned(), true));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["ctrl-", "ctrl-ab", "shift-a", ",", "a,,b", "é", "ctrl-1"] {
            assert!(DetachKeys::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
