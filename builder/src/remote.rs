//! Remote files and git repositories that a build fetches.
//!
//! The builder has no network: the caller brings an implementation of [`Remote`].

use crate::graph::Checkout;
use crate::images::ImageError;
use kiln_image::compression::decompressed_limited;
use kiln_image::tar::{EntryKind, Reader};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Fetches remote files and repositories.
pub trait Remote: Sync {
    /// Writes a remote file to `output`, unless it still is the `known` version.
    ///
    /// # Errors
    /// Fails when the server cannot be reached or refuses the request.
    fn download(&self, url: &str, known: Option<&Version>, output: &mut File) -> Result<Answer, ImageError>;

    /// Resolves the reference of a checkout to its current commit: 40 or 64 hexadecimal digits.
    ///
    /// # Errors
    /// Fails when the repository cannot be reached, or has no such reference.
    fn commit(&self, checkout: &Checkout) -> Result<String, ImageError>;

    /// Checks a commit out into an empty directory. Returns its time in seconds since 1970.
    ///
    /// # Errors
    /// Fails when the repository cannot be reached, or has no such commit.
    fn check_out(&self, checkout: &Checkout, commit: &str, dir: &Path) -> Result<i64, ImageError>;
}

/// Answer of a server to a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The file has not changed.
    Unchanged,
    /// The file was downloaded, and has this version.
    File(Version),
}

/// Version of a file according to its server; empty if the server reports none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Value of the `ETag` header.
    pub etag: String,
    /// Value of the `Last-Modified` header.
    pub last_modified: String,
}

impl Version {
    /// Time of the file in seconds since 1970; 0 if the server reports none.
    pub fn time(&self) -> i64 {
        web_time(self.last_modified.trim()).unwrap_or(0)
    }
}

/// Time of the newest file in an archive, in seconds since 1970; `None` for an empty one, and for other files.
pub fn newest_in_archive(archive: File) -> Option<i64> {
    let stream = decompressed_limited(BufReader::new(archive)).ok()?;
    let mut reader = Reader::new(stream);
    let mut newest = None;
    while let Some(entry) = reader.next_entry().ok()? {
        if entry.kind == EntryKind::File {
            newest = newest.max(Some(entry.mtime));
        }
    }
    newest
}

/// Seconds since 1970 of a date in one of HTTP's three forms (RFC 9110, section 5.6.7); `None` for other texts.
fn web_time(text: &str) -> Option<i64> {
    let newest = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    if let Ok(time) = newest.parse_timestamp(text) {
        return Some(time.as_second());
    }
    // The day of the week is redundant: `Tuesday, 14-Nov-23 22:13:20 GMT`, `Tue Nov 14 22:13:20 2023`.
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
        // A wrong day of the week is accepted, as in the reference.
        assert_eq!(time("Mon, 06 Nov 1994 08:49:37 GMT"), 784_111_777);
        assert_eq!(time("Sunday, 06-Nov-94 08:49:37"), 0);
        assert_eq!(time(""), 0);
        assert_eq!(time("yesterday"), 0);
    }
}
