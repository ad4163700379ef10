//! Decompression of streams recognised by their first bytes, and parallel gzip compression.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest expansion of an archive, as a multiple of its size; compressed text and programs stay far below.
const MAX_RATIO: u64 = 250;
/// Expansion that is always allowed, in bytes.
const ALWAYS_ALLOWED: u64 = 1 << 30;

/// True when a stream that begins with `start` has a compression that [`decompressed`] recognises.
pub fn is_compressed(start: &[u8]) -> bool {
    [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"]
        .iter()
        .any(|magic| start.starts_with(magic))
}

/// Decompresses like [`decompressed`] with a limit on the expansion: an archive that expands too much ends in an error
/// before it fills the disk.
pub fn decompressed_limited<'a>(input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Meter::default().decompressed(input)
}

/// Limit on the expansion of untrusted streams. Streams of one meter, such as the layers of an archive, count together.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Number of compressed bytes read, while they are counted.
    consumed: AtomicU64,
    produced: AtomicU64,
    /// Whether `consumed` is final: the archive was compressed as a whole.
    is_known: bool,
}

impl Meter {
    /// Meter for the content of an archive of `bytes` bytes, whatever its inner compression.
    pub fn of_archive(bytes: u64) -> Meter {
        let counts = Counts { consumed: AtomicU64::new(bytes), is_known: true, ..Counts::default() };
        Meter { counts: Arc::new(counts) }
    }

    /// Decompresses like [`decompressed`].
    ///
    /// # Errors
    /// Fails when the first bytes cannot be read. Reading fails when all streams of the meter together expand too much.
    pub fn decompressed<'a>(&self, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let counting = Counting { inner: input, meter: self.clone() };
        Ok(Box::new(Limited { inner: decompressed(counting)?, meter: self.clone() }))
    }

    /// Number of compressed bytes read.
    pub fn consumed(&self) -> u64 {
        self.counts.consumed.load(Ordering::Relaxed)
    }

    fn consume(&self, count: usize) {
        if !self.counts.is_known {
            self.counts.consumed.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    fn produce(&self, count: usize) -> io::Result<()> {
        let produced = self.counts.produced.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        match beyond_reason(produced, self.consumed()) {
            Some(reason) => Err(io::Error::other(reason)),
            None => Ok(()),
        }
    }
}

/// Message for an archive of `consumed` bytes that expands to `produced` bytes; `None` when that is allowed.
pub(crate) fn beyond_reason(produced: u64, consumed: u64) -> Option<String> {
    let allowed = consumed.saturating_mul(MAX_RATIO).max(ALWAYS_ALLOWED);
    (produced > allowed).then(|| {
        format!(
            "it becomes more than {MAX_RATIO} times as large as it is ({produced} bytes or more from {consumed}): \
             unpack it by hand if you trust it"
        )
    })
}

/// Reader that counts bytes taken from its buffer.
struct Counting<R> {
    inner: R,
    meter: Meter,
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.meter.consume(amount);
        self.inner.consume(amount);
    }
}

struct Limited<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.meter.produce(count)?;
        Ok(count)
    }
}

/// Gzip compression on all processors: consecutive members of a fixed size, which every reader takes for one stream
/// (RFC 1952, section 2.2). The output does not depend on the number of processors.
pub struct ParallelGzip<W> {
    inner: W,
    level: u32,
    /// Pieces to compress; the last one is not full.
    pieces: Vec<Vec<u8>>,
    most: usize,
}

/// Size of a member before it is compressed, in bytes.
const PIECE: usize = 1 << 20;

impl<W: Write> ParallelGzip<W> {
    /// Creates a writer that compresses into `inner` at a level from 0 to 9.
    pub fn new(inner: W, level: u32) -> ParallelGzip<W> {
        let most = rayon::current_num_threads().max(1) * 2;
        ParallelGzip { inner, level, pieces: vec![Vec::with_capacity(PIECE)], most }
    }

    /// Compresses the remaining bytes, and returns the inner writer.
    pub fn finish(mut self) -> io::Result<W> {
        // An empty stream consists of an empty member.
        self.pieces.retain(|piece| !piece.is_empty());
        if self.pieces.is_empty() {
            self.pieces.push(Vec::new());
        }
        self.compress()?;
        Ok(self.inner)
    }

    fn compress(&mut self) -> io::Result<()> {
        use rayon::prelude::*;
        let level = flate2::Compression::new(self.level);
        let compress = |piece: &Vec<u8>| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(piece.len() / 2), level);
            encoder.write_all(piece)?;
            encoder.finish()
        };
        let members = self.pieces.par_iter().map(compress).collect::<io::Result<Vec<_>>>()?;
        self.pieces = vec![Vec::with_capacity(PIECE)];
        members.iter().try_for_each(|member| self.inner.write_all(member))
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            if self.pieces.len() == self.most {
                self.compress()?;
            } else {
                self.pieces.push(Vec::with_capacity(PIECE));
            }
        }
        let Some(piece) = self.pieces.last_mut() else { return Ok(0) };
        let count = bytes.len().min(PIECE - piece.len());
        piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Decompresses gzip, bzip2, xz and zstd, recognised by the first bytes; other streams pass unchanged.
pub fn decompressed<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = input.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(input)?));
    }
    if start.starts_with(b"BZh") {
        return Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(input)));
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        return Ok(Box::new(lzma_rust2::XzReader::new(input, true)));
    }
    Ok(Box::new(input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn members_decompress_as_one_stream() {
        for length in [0, 1, PIECE, PIECE + 1, 9 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            let mut gzip = ParallelGzip::new(Vec::new(), 6);
            bytes.chunks(70_000).for_each(|chunk| gzip.write_all(chunk).unwrap());
            let packed = gzip.finish().unwrap();
            let mut back = Vec::new();
            decompressed(&packed[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
        }
    }

    #[test]
    fn excessive_expansion_is_refused_and_size_is_not() {
        let zeros = vec![0u8; 1 << 20];
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
        (0..1100).for_each(|_| encoder.write_all(&zeros).unwrap());
        let bomb = encoder.finish().unwrap();
        let mut stream = decompressed_limited(BufReader::new(&bomb[..])).unwrap();
        let error = io::copy(&mut stream, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("250 times"), "{error}");
        // Streams without compression have no limit.
        let plain = io::repeat(1).take(ALWAYS_ALLOWED + 1);
        let mut stream = decompressed_limited(BufReader::with_capacity(1 << 20, plain)).unwrap();
        assert_eq!(io::copy(&mut stream, &mut io::sink()).unwrap(), ALWAYS_ALLOWED + 1);
    }

    #[test]
    fn streams_of_one_meter_count_together() {
        let half = || BufReader::with_capacity(1 << 20, io::repeat(1).take(ALWAYS_ALLOWED / 2 + 1));
        let meter = Meter::of_archive(1000);
        let mut first = meter.decompressed(half()).unwrap();
        assert!(io::copy(&mut first, &mut io::sink()).is_ok());
        let mut second = meter.decompressed(half()).unwrap();
        let error = io::copy(&mut second, &mut io::sink()).unwrap_err().to_string();
        assert!(error.contains("250 times") && error.contains("from 1000"), "{error}");
    }
}
