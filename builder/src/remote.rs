//! What is fetched from other machines while building: files of the web and git repositories.
//!
//! The builder knows no network: whoever builds brings a [`Remote`].

use crate::error::ImageError;
use crate::graph::Checkout;
use std::fs::File;
use std::path::Path;

/// Fetches files and repositories.
pub trait Remote: Sync {
    /// Writes a file of the web to `output`, unless it is still the `known` version.
    fn download(&self, url: &str, known: Option<&Version>, output: &mut File) -> Result<Answer, ImageError>;

    /// The commit that a checkout's reference means now: 40 or 64 hexadecimal digits.
    fn commit(&self, checkout: &Checkout) -> Result<String, ImageError>;

    /// Checks a commit out into an empty folder; gives its time in seconds since 1970.
    fn check_out(&self, checkout: &Checkout, commit: &str, folder: &Path) -> Result<i64, ImageError>;
}

/// What a server said about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has not changed.
    Unchanged,
    /// It was written.
    File(Version),
}

/// How a server tells versions of a file apart; empty when it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// The `ETag` header.
    pub etag: String,
    /// The `Last-Modified` header.
    pub last_modified: String,
}

impl Version {
    /// When the file was changed, in seconds since 1970; 0 when nobody knows.
    pub fn time(&self) -> i64 {
        let date = jiff::fmt::rfc2822::DateTimeParser::new();
        let parsed = date.parse_timestamp(self.last_modified.trim());
        parsed.map_or(0, |time| time.as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_web() {
        let time = |text: &str| Version { last_modified: text.to_owned(), ..Version::default() }.time();
        assert_eq!(time("Sun, 06 Nov 1994 08:49:37 GMT"), 784_111_777);
        assert_eq!(time(""), 0);
        assert_eq!(time("yesterday"), 0);
    }
}
