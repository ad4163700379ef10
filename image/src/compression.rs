//! Compressed streams, known by their first bytes.

use std::io::{self, BufRead, Read};

/// Decompresses gzip and zstd by what the first bytes say, not by what anybody claims; other streams pass.
pub fn decompressed<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = input.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(input)?));
    }
    for (magic, name) in [(&b"BZh"[..], "bzip2"), (&b"\xfd7zXZ\0"[..], "xz")] {
        if start.starts_with(magic) {
            let reason = format!("the stream is compressed with {name}, which is not supported yet");
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
    }
    Ok(Box::new(input))
}
