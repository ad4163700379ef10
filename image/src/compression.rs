//! Compressed streams, known by their first bytes.

use std::io::{self, BufRead, Read};

/// True when a stream that begins so is compressed in a way that [`decompressed`] knows.
pub fn is_compressed(start: &[u8]) -> bool {
    [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"]
        .iter()
        .any(|magic| start.starts_with(magic))
}

/// Decompresses gzip, bzip2, xz and zstd by what the first bytes say, not by what anybody claims; other streams pass.
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
