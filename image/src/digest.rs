//! Digests: the addresses of the content store, and hashing into them.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

/// `sha256:…` or `sha512:…` of exact bytes (OCI image-spec, descriptor.md, "Digests").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
    colon: usize,
}

/// Hash functions of digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Function of all digests that Kiln computes.
    Sha256,
    /// Accepted in content from other tools.
    Sha384,
    /// Accepted in content from other tools.
    Sha512,
}

/// A text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest `{0}`: expected sha256:, sha384: or sha512: and lower-case hexadecimal")]
pub struct DigestError(pub String);

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha384 => 96,
            Algorithm::Sha512 => 128,
        }
    }
}

impl Digest {
    /// SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Digest of `bytes` with a given hash function.
    pub fn with(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// SHA-256 digest from its 32 raw bytes.
    pub fn from_sha256(bytes: [u8; 32]) -> Digest {
        Digest::from_raw(Algorithm::Sha256, &bytes)
    }

    fn from_raw(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        Digest { text: format!("{}:{}", algorithm.name(), hex(bytes)), colon: algorithm.name().len() }
    }

    /// Digest with its algorithm, as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Hexadecimal digits after the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// First twelve digits, as shown in tables.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// Hash function of the digest.
    pub fn algorithm(&self) -> Algorithm {
        match &self.text[..self.colon] {
            "sha256" => Algorithm::Sha256,
            "sha384" => Algorithm::Sha384,
            _ => Algorithm::Sha512,
        }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let fail = || DigestError(text.to_owned());
        let (name, hex) = text.split_once(':').ok_or_else(fail)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha384" => Algorithm::Sha384,
            "sha512" => Algorithm::Sha512,
            _ => return Err(fail()),
        };
        let valid = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != algorithm.hex_length() || !hex.bytes().all(valid) {
            return Err(fail());
        }
        Ok(Digest { text: text.to_owned(), colon: name.len() })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Digest, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

macro_rules! digest_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

digest_name! {
    /// Digest of an uncompressed layer tar.
    DiffId
}
digest_name! {
    /// Digest of a stack of layers, lowest first (OCI image-spec, config.md, "Layer ChainID").
    ChainId
}
digest_name! {
    /// Digest of an image's config: the image id.
    ImageId
}

impl ChainId {
    /// Chain id of `diff_ids`, lowest layer first; `None` for no layers.
    pub fn of(diff_ids: &[DiffId]) -> Option<ChainId> {
        let (first, rest) = diff_ids.split_first()?;
        let chain = rest
            .iter()
            .fold(first.0.clone(), |parent, next| Digest::of(format!("{parent} {next}").as_bytes()));
        Some(ChainId(chain))
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// Incremental computation of a digest.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha384(Box<Sha384>),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Creates a SHA-256 hasher.
    pub fn sha256() -> Hasher {
        Hasher(State::Sha256(Sha256::new()))
    }

    /// Creates a hasher for the given function.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::sha256(),
            Algorithm::Sha384 => Hasher(State::Sha384(Box::new(Sha384::new()))),
            Algorithm::Sha512 => Hasher(State::Sha512(Box::new(Sha512::new()))),
        }
    }

    /// Adds bytes to the hashed content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha384(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Digest of all bytes so far.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hasher) => Digest::from_raw(Algorithm::Sha256, &hasher.finalize()),
            State::Sha384(hasher) => Digest::from_raw(Algorithm::Sha384, &hasher.finalize()),
            State::Sha512(hasher) => Digest::from_raw(Algorithm::Sha512, &hasher.finalize()),
        }
    }
}

/// Reader or writer that counts and hashes the bytes it passes on.
pub struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    count: u64,
}

impl<T> Hashing<T> {
    /// Wraps a reader or writer with SHA-256.
    pub fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hasher: Hasher::sha256(), count: 0 }
    }

    /// Wraps a reader or writer with a given hash function.
    pub fn with(inner: T, algorithm: Algorithm) -> Hashing<T> {
        Hashing { inner, hasher: Hasher::new(algorithm), count: 0 }
    }

    /// Wrapped value, digest of the bytes passed on, and their number.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.count += read as u64;
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writer that hashes and counts bytes on a separate thread, in parallel to its caller.
pub struct BackgroundHasher {
    sender: SyncSender<Vec<u8>>,
    worker: JoinHandle<(Digest, u64)>,
    waiting: Vec<u8>,
}

impl BackgroundHasher {
    /// Size of the pieces passed to the thread, in bytes.
    const PIECE: usize = 256 * 1024;
    /// Number of pieces in the queue.
    const QUEUE: usize = 4;

    /// Creates a SHA-256 hasher with its thread.
    pub fn sha256() -> BackgroundHasher {
        let (sender, pieces) = std::sync::mpsc::sync_channel::<Vec<u8>>(BackgroundHasher::QUEUE);
        let worker = std::thread::spawn(move || {
            let mut hasher = Hasher::sha256();
            let mut count = 0;
            for piece in pieces {
                hasher.update(&piece);
                count += piece.len() as u64;
            }
            (hasher.finish(), count)
        });
        BackgroundHasher { sender, worker, waiting: Vec::with_capacity(BackgroundHasher::PIECE) }
    }

    /// Digest of all bytes written, and their number.
    pub fn finish(mut self) -> (Digest, u64) {
        self.hand_over();
        drop(self.sender);
        self.worker.join().expect("hashing does not panic")
    }

    fn hand_over(&mut self) {
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(BackgroundHasher::PIECE));
        // The worker receives until the sender is dropped.
        let _ = self.sender.send(piece);
    }
}

impl Write for BackgroundHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= BackgroundHasher::PIECE {
            self.hand_over();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_read_and_print() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!((digest.short(), digest.algorithm()), ("e3b0c44298fc", Algorithm::Sha256));
        for bad in ["", "sha256:", "sha256:E3", "md5:00", &EMPTY.to_uppercase(), &EMPTY[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let id = |byte: u8| DiffId(Digest::of(&[byte]));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[id(1)]), Some(ChainId(id(1).0)));
        let expected = Digest::of(format!("{} {}", id(1), id(2)).as_bytes());
        assert_eq!(ChainId::of(&[id(1), id(2)]), Some(ChainId(expected)));
    }

    #[test]
    fn background_hashing_has_the_same_result() {
        let bytes = vec![7u8; 3 * BackgroundHasher::PIECE + 5];
        let mut hasher = BackgroundHasher::sha256();
        bytes.chunks(70_001).for_each(|chunk| hasher.write_all(chunk).unwrap());
        assert_eq!(hasher.finish(), (Digest::of(&bytes), bytes.len() as u64));
        assert_eq!(BackgroundHasher::sha256().finish(), (Digest::of(b""), 0));
    }

    #[test]
    fn hashing_counts_bytes() {
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        let (bytes, digest, count) = writer.finish();
        assert_eq!((bytes.as_slice(), digest, count), (b"abc".as_slice(), Digest::of(b"abc"), 3));
    }
}
