//! Sizes and rates as users write them (docker/go-units).

/// Text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}'")]
pub struct SizeError(pub String);

/// Reads a size with a suffix of b, k, m, g or t: powers of 1024; `64m`, `64MB` and `64MiB` are the same.
///
/// # Errors
/// Fails for other texts, and for sizes beyond `i64`.
pub fn bytes(text: &str) -> Result<i64, SizeError> {
    let invalid = || SizeError(text.to_owned());
    let trimmed = text.trim().to_ascii_lowercase();
    let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let value = number * 1024f64.powi(power);
    if value.is_finite() && value < i64::MAX as f64 { Ok(value as i64) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [("0", 0), ("512", 512), ("64m", 64 << 20), ("1.5k", 1536), ("2GiB", 2 << 30)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "1x", "-1", "1e3"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
