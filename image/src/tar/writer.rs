//! Writing of archives, byte for byte as Go's `archive/tar` does for whole-second times.

use super::{BLOCK, Entry, EntryKind, TarError, pax};
use std::io::Write;

const NAME: usize = 100;
const PREFIX: usize = 155;
const MAX_OCTAL_7: i64 = 0o777_7777;
const MAX_OCTAL_11: i64 = 0o777_7777_7777;

/// Writer of entries, one after the other.
pub struct Writer<W> {
    inner: W,
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Creates a writer of an archive to `inner`.
    pub fn new(inner: W) -> Writer<W> {
        Writer { inner, left: 0, padding: 0 }
    }

    /// Begins an entry; content of exactly [`Entry::size`] bytes must follow for a file.
    ///
    /// The fraction of the time is dropped. Directories get their trailing slash here.
    ///
    /// # Errors
    /// Fails when the previous entry lacks content, or writing fails.
    pub fn begin(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.finish_entry()?;
        let mut name = entry.name.clone();
        if entry.kind == EntryKind::Directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
        let records = records(entry, &name, size);
        if records.is_empty() {
            let (prefix, short) = split_name(&name).unwrap_or((b"", &name));
            let block = header(entry, short, prefix, size);
            self.put(&block)?;
        } else {
            self.pax_header(&name, &records)?;
            let block = header(entry, &ascii(&name), b"", size);
            self.put(&block)?;
        }
        self.left = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        Ok(())
    }

    /// Writes content of the current entry.
    ///
    /// # Errors
    /// Fails when it exceeds the entry's size, or writing fails.
    pub fn content(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        let length = bytes.len() as u64;
        self.left = self.left.checked_sub(length).ok_or(TarError::Header {
            offset: 0,
            reason: "more content was written than the header announces",
        })?;
        self.put(bytes)
    }

    /// Number of content bytes that the current entry still lacks.
    pub fn content_left(&self) -> u64 {
        self.left
    }

    /// Writes the end marker and returns the stream.
    ///
    /// # Errors
    /// Fails when the last entry lacks content, or writing fails.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.finish_entry()?;
        self.put(&[0; 2 * BLOCK])?;
        Ok(self.inner)
    }

    fn finish_entry(&mut self) -> Result<(), TarError> {
        if self.left > 0 {
            return Err(TarError::Truncated);
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0; BLOCK][..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.inner.write_all(bytes).map_err(|error| TarError::Io("write", error))
    }

    fn pax_header(&mut self, name: &[u8], records: &[(String, Vec<u8>)]) -> Result<(), TarError> {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax::record(key, value)).collect();
        let mut header_name = ascii(&pax_name(name));
        header_name.truncate(NAME);
        while header_name.ends_with(b"/") {
            header_name.pop();
        }
        let mut block = [0; BLOCK];
        put_text(&mut block[0..NAME], &header_name);
        for (from, length) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            put_octal(&mut block[from..from + length], 0);
        }
        put_octal(&mut block[124..136], data.len() as i64);
        block[156] = b'x';
        seal(&mut block);
        self.put(&block)?;
        self.put(&data)?;
        let padding = (BLOCK - data.len() % BLOCK) % BLOCK;
        self.put(&[0; BLOCK][..padding])
    }
}

/// Name of a PAX header: `dir/PaxHeaders.0/file`, cleaned, as in Go.
fn pax_name(name: &[u8]) -> Vec<u8> {
    let split = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (dir, file) = name.split_at(split);
    let parts = dir.split(|byte| *byte == b'/').chain([&b"PaxHeaders.0"[..], file]);
    let mut joined = Vec::new();
    for part in parts.filter(|part| !part.is_empty() && *part != b".") {
        if !joined.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(part);
    }
    joined
}

/// Records for values that do not fit into a USTAR header, sorted by key.
fn records(entry: &Entry, name: &[u8], size: u64) -> Vec<(String, Vec<u8>)> {
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    let mut put = |key: &str, value: Vec<u8>| records.push((key.to_owned(), value));
    let text_fits = |text: &[u8]| text.len() <= NAME && text.is_ascii();
    for (name, value) in &entry.xattrs {
        put(&format!("{}{}", pax::XATTR, String::from_utf8_lossy(name)), value.clone());
    }
    if i64::from(entry.gid) > MAX_OCTAL_7 {
        put("gid", entry.gid.to_string().into_bytes());
    }
    if !text_fits(&entry.link) {
        put("linkpath", entry.link.clone());
    }
    if !(0..=MAX_OCTAL_11).contains(&entry.mtime) {
        put("mtime", entry.mtime.to_string().into_bytes());
    }
    let others = !records.is_empty() || size as i64 > MAX_OCTAL_11 || i64::from(entry.uid) > MAX_OCTAL_7;
    // A long name is split into prefix and name, unless there is a PAX header for other values: then it is stored
    // there.
    if !text_fits(name) && (others || split_name(name).is_none()) {
        records.push(("path".to_owned(), name.to_vec()));
    }
    let mut put = |key: &str, value: String| records.push((key.to_owned(), value.into_bytes()));
    if size as i64 > MAX_OCTAL_11 {
        put("size", size.to_string());
    }
    if i64::from(entry.uid) > MAX_OCTAL_7 {
        put("uid", entry.uid.to_string());
    }
    records
}

/// Splits a long name at a slash so that both parts fit their fields.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let mut length = name.len();
    if length > PREFIX + 1 {
        length = PREFIX + 1;
    } else if name[length - 1] == b'/' {
        length -= 1;
    }
    let slash = name[..length].iter().rposition(|byte| *byte == b'/')?;
    let rest = name.len() - slash - 1;
    (slash > 0 && rest <= NAME && rest > 0 && slash <= PREFIX).then(|| (&name[..slash], &name[slash + 1..]))
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| byte.is_ascii() && *byte != 0).collect()
}

fn header(entry: &Entry, name: &[u8], prefix: &[u8], size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let fitting = |value: i64, max: i64| if (0..=max).contains(&value) { value } else { 0 };
    put_text(&mut block[0..NAME], name);
    put_octal(&mut block[100..108], i64::from(entry.mode & 0o7777));
    put_octal(&mut block[108..116], fitting(i64::from(entry.uid), MAX_OCTAL_7));
    put_octal(&mut block[116..124], fitting(i64::from(entry.gid), MAX_OCTAL_7));
    put_octal(&mut block[124..136], fitting(size as i64, MAX_OCTAL_11));
    put_octal(&mut block[136..148], fitting(entry.mtime, MAX_OCTAL_11));
    block[156] = match entry.kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    };
    put_text(&mut block[157..257], &ascii(&entry.link));
    put_octal(&mut block[329..337], i64::from(entry.major));
    put_octal(&mut block[337..345], i64::from(entry.minor));
    put_text(&mut block[345..500], prefix);
    seal(&mut block);
    block
}

/// Sets magic, version and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    block[148..156].fill(b' ');
    let sum: i64 = block.iter().map(|byte| i64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
}

/// Copies the bytes that fit; a name truncated directly after a slash loses the slash, so that it does not look like a
/// directory.
fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    if text.len() > field.len() {
        while let Some(last) = field.iter().rposition(|byte| *byte != 0).filter(|last| field[*last] == b'/') {
            field[last] = 0;
        }
    }
}

/// Writes octal digits with leading zeros and a final NUL.
fn put_octal(field: &mut [u8], value: i64) {
    let text = format!("{value:0width$o}", width = field.len() - 1);
    put_text(field, text.as_bytes());
}
