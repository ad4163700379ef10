//! The content store: blobs by digest.
//!
//! Blobs are stored in an OCI image layout (`blobs/sha256/…`), which other tools can read. A blob is written to a
//! temporary file, hashed while writing, and renamed; the digest of small blobs is verified again whenever they are
//! read.

use super::scratch::{Scratch, ScratchArea};
use crate::digest::{Digest, Hasher, Hashing};
use crate::sys::{self, CallError, Named};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Largest manifest or config, in bytes; registries accept 4 MiB.
pub const MAX_METADATA: u64 = 8 << 20;

/// Largest blob that is flushed to disk before it is renamed; larger ones can be downloaded again.
const SYNC_UP_TO: u64 = 1 << 20;

/// Failure to read or store a blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A system call failed.
    #[error("cannot access the content store")]
    Call(#[from] CallError),
    /// There is no blob with that digest.
    #[error("content {0} is not in the store")]
    NotFound(Digest),
    /// The bytes have another digest.
    #[error("content does not match its digest: expected {expected}, got {actual}")]
    Mismatch {
        /// Digest in the blob's name.
        expected: Digest,
        /// Digest of the bytes.
        actual: Digest,
    },
    /// The blob is larger than a manifest or config may be.
    #[error("content {0} is too large for a manifest or config")]
    TooLarge(Digest),
}

/// Blobs of a store, by digest.
#[derive(Clone, Debug)]
pub struct Blobs {
    path: PathBuf,
    scratch: ScratchArea,
}

impl Blobs {
    pub(crate) fn new(path: PathBuf, scratch: ScratchArea) -> Blobs {
        Blobs { path, scratch }
    }

    /// Path of a blob, whether it exists or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = digest.as_str().split_once(':').unwrap_or(("sha256", digest.hex()));
        self.path.join(algorithm).join(hex)
    }

    /// True when the store has the blob.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a blob for reading, without verification.
    ///
    /// # Errors
    /// [`BlobError::NotFound`] when there is no such blob.
    pub fn open(&self, digest: &Digest) -> Result<File, BlobError> {
        match File::open(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::NotFound(digest.clone())),
            opened => Ok(opened.call("open", self.path(digest))?),
        }
    }

    /// Reads and verifies a manifest or config.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::TooLarge`], or [`BlobError::Mismatch`] when it is damaged.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let file = self.open(digest)?;
        file.take(MAX_METADATA + 1).read_to_end(&mut bytes).call("read", self.path(digest))?;
        if bytes.len() as u64 > MAX_METADATA {
            return Err(BlobError::TooLarge(digest.clone()));
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        check(digest, hasher.finish())?;
        Ok(bytes)
    }

    /// Reads and verifies a blob of any size.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], or [`BlobError::Mismatch`] when it is damaged.
    pub fn verify(&self, digest: &Digest) -> Result<(), BlobError> {
        let mut reader = Hashing::with(self.open(digest)?, digest.algorithm());
        io::copy(&mut reader, &mut io::sink()).call("read", self.path(digest))?;
        check(digest, reader.finish().1)
    }

    /// True when the store has the blob with that size; its bytes are not verified.
    pub fn has(&self, digest: &Digest, size: u64) -> bool {
        std::fs::symlink_metadata(self.path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Stores bytes and returns their digest. A damaged blob with that digest is replaced.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        let is_there = self.has(&digest, bytes.len() as u64)
            && std::fs::read(self.path(&digest)).is_ok_and(|found| found == bytes);
        if !is_there {
            let mut writer = self.writer(&digest)?;
            writer.write_all(bytes).call("write", self.path(&digest))?;
            writer.commit()?;
        }
        Ok(digest)
    }

    /// Begins a blob whose digest must be `expected`.
    pub fn writer(&self, expected: &Digest) -> Result<BlobWriter, BlobError> {
        let (scratch, file) = self.scratch.file()?;
        let file = Hashing::with(file, expected.algorithm());
        Ok(BlobWriter { scratch, file, target: self.path(expected), expected: expected.clone() })
    }

    /// Removes a blob, if it exists.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        Ok(sys::remove_path(&self.path(digest))?)
    }

    /// Digests of all blobs, in no particular order.
    pub fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let mut found = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let Ok(entries) = std::fs::read_dir(self.path.join(algorithm)) else { continue };
            for entry in entries {
                let name = entry.call("getdents", &self.path)?.file_name();
                found.extend(format!("{algorithm}:{}", name.to_string_lossy()).parse());
            }
        }
        Ok(found)
    }
}

fn check(expected: &Digest, actual: Digest) -> Result<(), BlobError> {
    if *expected == actual { Ok(()) } else { Err(BlobError::Mismatch { expected: expected.clone(), actual }) }
}

/// A blob being written; invisible until it is committed, removed when it is dropped before.
pub struct BlobWriter {
    scratch: Scratch,
    file: Hashing<File>,
    target: PathBuf,
    expected: Digest,
}

impl BlobWriter {
    /// Verifies the digest and makes the blob visible.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when the bytes have another digest.
    pub fn commit(self) -> Result<(), BlobError> {
        let (file, actual, size) = self.file.finish();
        check(&self.expected, actual)?;
        if size <= SYNC_UP_TO {
            file.sync_data().call("fdatasync", &self.target)?;
        }
        if let Some(dir) = self.target.parent() {
            std::fs::create_dir_all(dir).call("mkdir", dir)?;
        }
        Ok(self.scratch.move_to(&self.target)?)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let root = tempfile::tempdir().unwrap();
        let area = root.path().join("work");
        std::fs::create_dir(&area).unwrap();
        let blobs = Blobs::new(root.path().join("blobs"), ScratchArea::new(area));
        (root, blobs)
    }

    #[test]
    fn blobs_are_stored_by_digest() {
        let (root, blobs) = blobs();
        let digest = blobs.put(b"hello").unwrap();
        assert_eq!(blobs.read(&digest).unwrap(), b"hello");
        blobs.verify(&digest).unwrap();
        assert_eq!(blobs.list().unwrap(), std::slice::from_ref(&digest));
        assert_eq!(std::fs::read_dir(root.path().join("work")).unwrap().count(), 0);
        blobs.remove(&digest).unwrap();
        assert!(matches!(blobs.read(&digest), Err(BlobError::NotFound(_))));
    }

    #[test]
    fn bytes_with_another_digest_are_refused() {
        let (root, blobs) = blobs();
        let expected = Digest::of(b"right");
        let mut writer = blobs.writer(&expected).unwrap();
        writer.write_all(b"wrong").unwrap();
        assert!(matches!(writer.commit(), Err(BlobError::Mismatch { .. })));
        assert!(!blobs.contains(&expected));
        assert_eq!(std::fs::read_dir(root.path().join("work")).unwrap().count(), 0);
        blobs.put(b"right").unwrap();
        std::fs::write(blobs.path(&expected), "changed").unwrap();
        assert!(matches!(blobs.read(&expected), Err(BlobError::Mismatch { .. })));
        assert!(blobs.verify(&expected).is_err());
    }
}
