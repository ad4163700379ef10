//! Digests of unchanged files, identified by their `stat` data.
//!
//! A file counts as unchanged when device, inode, size, and both times are equal. Times have the kernel's granularity:
//! a file that was changed within that time before it was read may change again unnoticed, so it is not recorded.
//!
//! Format: the line `kiln stat cache 2`, then records of 88 bytes, numbers in little-endian: device, inode,
//! size, seconds and nanoseconds of modification, seconds and nanoseconds of status change, sha256.

use rustix::fs::Stat;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

const HEADER: &[u8] = b"kiln stat cache 2\n";
const RECORD: usize = 7 * 8 + 32;
/// Longest tick of kernels in use.
const GRANULARITY: Duration = Duration::from_millis(20);

type Identity = [u64; 7];

/// Digests of files by their `stat` data.
#[derive(Debug, Default)]
pub struct StatCache {
    known: HashMap<(u64, u64), (Identity, [u8; 32])>,
    added: Mutex<Vec<(Identity, [u8; 32])>>,
    read: AtomicU64,
}

impl StatCache {
    /// Parses the output of [`StatCache::to_bytes`]; other input results in an empty cache.
    pub fn from_bytes(bytes: &[u8]) -> StatCache {
        let mut cache = StatCache::default();
        let Some(records) = bytes.strip_prefix(HEADER) else { return cache };
        for record in records.chunks_exact(RECORD) {
            let mut identity = Identity::default();
            for (number, bytes) in identity.iter_mut().zip(record.chunks_exact(8)) {
                *number = u64::from_le_bytes(bytes.try_into().expect("pieces are eight bytes long"));
            }
            let digest = record[56..].try_into().expect("the rest of a record is a digest");
            cache.known.insert((identity[0], identity[1]), (identity, digest));
        }
        cache
    }

    /// Number of bytes that had to be read, for the progress.
    pub(crate) fn read(&self) -> &AtomicU64 {
        &self.read
    }

    /// Digest of an unchanged file; `None` when it must be read.
    pub(super) fn get(&self, stat: &Stat) -> Option<[u8; 32]> {
        let identity = identity(stat);
        let (known, digest) = self.known.get(&(identity[0], identity[1]))?;
        (*known == identity).then_some(*digest)
    }

    /// Records the digest of a file that had this `stat` before it was read.
    pub(super) fn put(&self, stat: &Stat, digest: [u8; 32], read_at: SystemTime) {
        let changed = |seconds: i64, nanos: i64| {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            let nanos = u32::try_from(nanos).unwrap_or(0);
            SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
        };
        let latest = changed(stat.st_mtime, stat.st_mtime_nsec as i64)
            .max(changed(stat.st_ctime, stat.st_ctime_nsec as i64));
        if read_at.duration_since(latest).is_ok_and(|age| age > GRANULARITY) {
            self.added
                .lock()
                .expect("no thread panics while holding this lock")
                .push((identity(stat), digest));
        }
    }

    /// Serializes the cache with the new entries; `None` when there are none.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let added = self.added.lock().expect("no thread panics while holding this lock");
        if added.is_empty() {
            return None;
        }
        let mut all = self.known.clone();
        for (identity, digest) in added.iter() {
            all.insert((identity[0], identity[1]), (*identity, *digest));
        }
        let mut bytes = HEADER.to_vec();
        for (identity, digest) in all.values() {
            identity.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            bytes.extend(digest);
        }
        Some(bytes)
    }
}

fn identity(stat: &Stat) -> Identity {
    [
        stat.st_dev,
        stat.st_ino,
        stat.st_size as u64,
        stat.st_mtime as u64,
        stat.st_mtime_nsec,
        stat.st_ctime as u64,
        stat.st_ctime_nsec,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_survive_and_changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let stat = rustix::fs::stat(&path).unwrap();
        let cache = StatCache::default();
        cache.put(&stat, [7; 32], SystemTime::now());
        assert_eq!(cache.to_bytes(), None, "just written: it may change again within a tick");
        cache.put(&stat, [7; 32], SystemTime::now() + Duration::from_secs(1));
        let again = StatCache::from_bytes(&cache.to_bytes().unwrap());
        assert_eq!(again.get(&stat), Some([7; 32]));
        std::fs::write(&path, "y").unwrap();
        assert_eq!(again.get(&rustix::fs::stat(&path).unwrap()), None);
        assert_eq!(StatCache::from_bytes(b"other").get(&stat), None);
    }
}
