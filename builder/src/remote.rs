//! Files of the web and git repositories that a build fetches.
//!
//! The builder has no network: the caller brings an implementation of [`Remote`].

use crate::graph::Checkout;
use crate::images::ImageError;
use kiln_image::compression::decompressed_within_reason;
use kiln_image::tar::{EntryKind, Reader};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Fetches files and repositories.
pub trait Remote: Sync {
    /// Writes a file of the web to `output`, unless it still is the `known` version.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the request.
    fn download(&self, url: &str, known: Option<&Version>, output: &mut File) -> Result<Answer, ImageError>;

    /// The commit that the reference of a checkout means now: 40 or 64 hexadecimal digits.
    ///
    /// # Errors
    /// The repository cannot be reached, or has no such reference.
    fn commit(&self, checkout: &Checkout) -> Result<String, ImageError>;

    /// Checks a commit out into an empty directory. Returns its time in seconds since 1970.
    ///
    /// # Errors
    /// The repository cannot be reached, or has no such commit.
    fn check_out(&self, checkout: &Checkout, commit: &str, dir: &Path) -> Result<i64, ImageError>;
}

/// Answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The file has not changed.
    Unchanged,
    /// The file was written.
    File(Version),
}

/// Version of a file, as its server tells them apart; empty if it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// The `ETag` header.
    pub etag: String,
    /// The `Last-Modified` header.
    pub last_modified: String,
}

impl Version {
    /// Time of the file in seconds since 1970; 0 if the server reports none.
    pub fn time(&self) -> i64 {
        web_time(self.last_modified.trim()).unwrap_or(0)
    }
}

/// The time of the newest file in an archive, in seconds since 1970; `None` for an empty one, and for other files.
pub fn newest_in_archive(archive: File) -> Option<i64> {
    let stream = decompressed_within_reason(BufReader::new(archive)).ok()?;
    let mut reader = Reader::new(stream);
    let mut newest = None;
    while let Some(entry) = reader.next_entry().ok()? {
        if entry.kind == EntryKind::File {
            newest = newest.max(Some(entry.mtime));
        }
    }
    newest
}

/// The seconds since 1970 of a date in one of HTTP's three forms (RFC 9110, section 5.6.7).
fn web_time(text: &str) -> Option<i64> {
    let newest = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    if let Ok(time) = newest.parse_timestamp(text) {
        return Some(time.as_second());
    }
    // Days of the week say nothing that the rest does not: `Tuesday, 14-Nov-23 22:13:20 GMT`, `Tue Nov 14 22:13:20 2023`.
    let rest = text.split_once(' ')?.1.trim();
    let forms = ["%d-%b-%y %H:%M:%S GMT", "%b %e %H:%M:%S %Y"];
    let time = forms.iter().find_map(|form| jiff::civil::DateTime::strptime(form, rest).ok())?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_web() {
        let time = |text: &str| Version { last_modified: text.to_owned(), ..Version::default() }.time();
        assert_eq!(time("Sun, 06 Nov 1994 08:49:37 GMT"), 784_111_777);
        assert_eq!(time("Sunday, 06-Nov-94 08:49:37 GMT"), 784_111_777);
        assert_eq!(time("Sun Nov  6 08:49:37 1994"), 784_111_777);
        assert_eq!(time("Tuesday, 14-Nov-23 22:13:20 GMT"), 1_700_000_000);
        assert_eq!(time("Tue Nov 14 22:13:20 2023"), 1_700_000_000);
        // A wrong day of the week does not matter, as in the reference.
        assert_eq!(time("Mon, 06 Nov 1994 08:49:37 GMT"), 784_111_777);
        assert_eq!(time("Sunday, 06-Nov-94 08:49:37"), 0);
        assert_eq!(time(""), 0);
        assert_eq!(time("yesterday"), 0);
    }
}
