//! Reading of archives.

use super::sparse::{self, PaxSparse, Run};
use super::{BLOCK, Entry, EntryKind, TarError, pax};
use crate::compression::beyond_reason;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// Largest PAX header or GNU long name, in bytes, as in Go.
const MAX_SPECIAL: u64 = 1 << 20;

/// Largest number of headers in an archive. An empty file takes 512 bytes of a tar, less than one byte of a compressed
/// one, and an inode on disk; the largest known images have some millions in a layer.
const MAX_ENTRIES: u64 = 10_000_000;

/// Reader of entries, one after the other, from a stream.
///
/// After [`Reader::next_entry`] the entry's content may be read from [`Reader::content`]; the next call skips the rest
/// of it. The stream is never read past the archive's end marker; a caller that hashes the stream has to drain the
/// rest.
pub struct Reader<R> {
    inner: R,
    offset: u64,
    /// Number of bytes of the current entry that have not been read from the stream.
    stored_left: u64,
    padding: u64,
    holes: Option<Holes>,
    /// Total size of all holes so far.
    hollow: u64,
    /// Number of headers so far.
    entries: u64,
}

/// Position in a sparse file.
struct Holes {
    runs: Vec<Run>,
    next: usize,
    at: u64,
    size: u64,
}

/// Content of the current entry, with holes filled by zeros.
pub struct Content<'a, R>(&'a mut Reader<R>);

/// Fields of a header block, before PAX records and long names are applied.
struct Raw {
    entry: Entry,
    flag: u8,
    stored: u64,
    old_sparse: Option<(Vec<Run>, bool, u64)>,
}

impl<R: Read> Reader<R> {
    /// Creates a reader of an archive from `inner`.
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, offset: 0, stored_left: 0, padding: 0, holes: None, hollow: 0, entries: 0 }
    }

    /// The underlying stream, for its position.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The underlying stream, for draining it.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// Fails when the archive is malformed, ends within an entry, or exceeds a limit.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_content()?;
            let start = self.offset;
            let fail = |reason| TarError::Header { offset: start, reason };
            let Some(block) = self.read_header_block()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(TarError::TooMany(MAX_ENTRIES));
            }
            let raw = self.parse_header(&block, start)?;
            match raw.flag {
                b'x' => {
                    let data = self.read_special(raw.stored, start)?;
                    let list = pax::records(&data).ok_or_else(|| fail("malformed PAX record"))?;
                    records = merge_sparse_0_0(list).ok_or_else(|| fail("malformed PAX sparse record"))?;
                }
                b'g' => {
                    let data = self.read_special(raw.stored, start)?;
                    pax::records(&data).ok_or_else(|| fail("malformed PAX record"))?;
                }
                b'L' => long_name = Some(until_nul(&self.read_special(raw.stored, start)?).to_vec()),
                // The label of a GNU archive is not a file.
                b'V' => self.begin_content(raw.stored),
                b'K' => long_link = Some(until_nul(&self.read_special(raw.stored, start)?).to_vec()),
                _ => return self.finish_entry(raw, &records, long_name, long_link, start).map(Some),
            }
        }
    }

    /// Content of the last entry from [`Reader::next_entry`].
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn finish_entry(
        &mut self,
        raw: Raw,
        records: &BTreeMap<String, Vec<u8>>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        start: u64,
    ) -> Result<Entry, TarError> {
        let fail = |reason| TarError::Header { offset: start, reason };
        let Raw { mut entry, flag, mut stored, old_sparse } = raw;
        apply_pax(&mut entry, &mut stored, records).map_err(fail)?;
        entry.name = long_name.unwrap_or(entry.name);
        entry.link = long_link.unwrap_or(entry.link);
        entry.kind = match flag {
            0 if entry.name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            // GNU's incremental archives list the members of a directory as its content.
            b'5' | b'D' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarError::Kind(other, entry.name)),
        };
        if entry.kind != EntryKind::File {
            // Such entries have no content, whatever size the header has: readers that disagree here can be made to
            // miss the entry that follows.
            entry.size = 0;
            self.begin_content(if flag == b'D' { stored } else { 0 });
            self.skip_content()?;
            return Ok(entry);
        }
        self.begin_content(stored);
        entry.size = stored;
        self.begin_sparse(&mut entry, old_sparse, records, start)?;
        Ok(entry)
    }

    fn begin_content(&mut self, stored: u64) {
        self.stored_left = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        self.holes = None;
    }

    fn begin_sparse(
        &mut self,
        entry: &mut Entry,
        old: Option<(Vec<Run>, bool, u64)>,
        records: &BTreeMap<String, Vec<u8>>,
        start: u64,
    ) -> Result<(), TarError> {
        let fail = |reason| TarError::Header { offset: start, reason };
        let text = |key: &str| records.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let (runs, size) = if let Some((mut runs, mut more, size)) = old {
            self.begin_content(0);
            while more {
                let block = self.read_block()?.ok_or(TarError::Truncated)?;
                sparse::old_gnu_entries(&block[..504], &mut runs)
                    .ok_or_else(|| fail("malformed sparse map"))?;
                more = block[504] != 0;
            }
            self.begin_content(entry.size);
            (runs, size)
        } else {
            let Some(pax) = sparse::from_pax(records).map_err(fail)? else { return Ok(()) };
            if let Some(name) = records.get("GNU.sparse.name").filter(|name| !name.is_empty()) {
                entry.name.clone_from(name);
            }
            let size = text("GNU.sparse.size").or(text("GNU.sparse.realsize"));
            let size = match size {
                Some(size) => size.parse().map_err(|_| fail("malformed sparse size"))?,
                None => entry.size,
            };
            let runs = match pax {
                PaxSparse::Map(runs) => runs,
                PaxSparse::InData => self.sparse_map_in_data(start)?,
            };
            (runs, size)
        };
        sparse::validate(&runs, size).ok_or_else(|| fail("sparse map is out of order"))?;
        let data: u64 = runs.iter().map(|run| run.length).sum();
        if data > self.stored_left {
            return Err(fail("sparse map names more data than there is"));
        }
        self.hollow = self.hollow.saturating_add(size - data);
        let archive = self.offset.saturating_add(self.stored_left);
        if let Some(reason) = beyond_reason(archive.saturating_add(self.hollow), archive) {
            return Err(TarError::Expands(entry.name.clone(), reason));
        }
        entry.size = size;
        self.holes = Some(Holes { runs, next: 0, at: 0, size });
        Ok(())
    }

    fn sparse_map_in_data(&mut self, start: u64) -> Result<Vec<Run>, TarError> {
        let runs = sparse::map_in_data(|| {
            if self.stored_left < BLOCK as u64 {
                return Err(TarError::Truncated);
            }
            self.stored_left -= BLOCK as u64;
            self.read_block()?.ok_or(TarError::Truncated)
        })?;
        runs.ok_or(TarError::Header { offset: start, reason: "malformed sparse map" })
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let left = std::mem::take(&mut self.stored_left) + std::mem::take(&mut self.padding);
        self.holes = None;
        let skipped = io::copy(&mut (&mut self.inner).take(left), &mut io::sink());
        let skipped = skipped.map_err(|error| TarError::Io("read", error))?;
        self.offset += skipped;
        if skipped == left { Ok(()) } else { Err(TarError::Truncated) }
    }

    /// Next header; `None` at the end: two zero blocks, one zero block at the end of the stream, or the end of the
    /// stream.
    fn read_header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let start = self.offset;
        let Some(block) = self.read_block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.read_block()? {
            None => Ok(None),
            Some(block) if block == [0; BLOCK] => Ok(None),
            Some(_) => {
                Err(TarError::Header { offset: start, reason: "a zero block stands before another header" })
            }
        }
    }

    /// Next block; `None` when the stream ends before its first byte.
    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Io("read", error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn read_special(&mut self, size: u64, start: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL {
            return Err(TarError::Header { offset: start, reason: "extended header of more than 1 MiB" });
        }
        self.begin_content(size);
        let mut data = Vec::new();
        self.content().read_to_end(&mut data).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Io("read", error),
        })?;
        Ok(data)
    }

    fn parse_header(&self, block: &[u8; BLOCK], start: u64) -> Result<Raw, TarError> {
        let fail = |reason| TarError::Header { offset: start, reason };
        let format = format(block).ok_or_else(|| fail("wrong checksum"))?;
        let field = |from: usize, length: usize| &block[from..from + length];
        let num =
            |from: usize, length: usize| number(field(from, length)).ok_or_else(|| fail("malformed number"));
        let stored = u64::try_from(num(124, 12)?).map_err(|_| fail("negative size"))?;
        let mut entry = Entry::new(EntryKind::File, until_nul(field(0, 100)));
        entry.mode = (num(100, 8)? & 0o7777) as u32;
        entry.uid = id(num(108, 8)?).ok_or_else(|| fail("uid out of range"))?;
        entry.gid = id(num(116, 8)?).ok_or_else(|| fail("gid out of range"))?;
        entry.size = stored;
        entry.mtime = num(136, 12)?;
        entry.link = until_nul(field(157, 100)).to_vec();
        let flag = block[156];
        let mut old_sparse = None;
        if format != Format::V7 {
            entry.major = num(329, 8)? as u32;
            entry.minor = num(337, 8)? as u32;
        }
        match format {
            Format::Ustar => entry.name = prefixed(until_nul(field(345, 155)), entry.name),
            Format::Star => entry.name = prefixed(until_nul(field(345, 131)), entry.name),
            Format::Gnu if flag == b'S' => {
                let mut runs = Vec::new();
                sparse::old_gnu_entries(field(386, 96), &mut runs)
                    .ok_or_else(|| fail("malformed sparse map"))?;
                let size = u64::try_from(num(483, 12)?).map_err(|_| fail("negative size"))?;
                old_sparse = Some((runs, block[482] != 0, size));
            }
            Format::Gnu | Format::V7 => {}
        }
        Ok(Raw { entry, flag, stored, old_sparse })
    }

    /// Reads stored bytes of the current entry.
    fn read_stored(&mut self, buffer: &mut [u8], limit: u64) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(limit.min(self.stored_left)).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated));
        }
        self.stored_left -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }

    fn read_sparse(&mut self, mut holes: Holes, buffer: &mut [u8]) -> (Holes, io::Result<usize>) {
        let left = holes.left();
        if left > 0 {
            let zeros = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            buffer[..zeros].fill(0);
            holes.at += zeros as u64;
            return (holes, Ok(zeros));
        }
        let Some(run) = holes.runs.get(holes.next).copied() else { return (holes, Ok(0)) };
        let result = self.read_stored(buffer, run.offset + run.length - holes.at);
        holes.at += *result.as_ref().unwrap_or(&0) as u64;
        (holes, result)
    }
}

impl Holes {
    /// Number of bytes left of the hole at the current position; 0 within data and at the end.
    fn left(&mut self) -> u64 {
        while self.runs.get(self.next).is_some_and(|run| run.offset + run.length <= self.at) {
            self.next += 1;
        }
        let end = self.runs.get(self.next).map_or(self.size, |run| run.offset);
        end.saturating_sub(self.at)
    }
}

impl<R> Content<'_, R> {
    /// Skips the hole at the current position; returns its length, 0 within data and at the end.
    pub fn skip_hole(&mut self) -> u64 {
        let Some(holes) = &mut self.0.holes else { return 0 };
        let left = holes.left();
        holes.at += left;
        left
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.holes.take() {
            None => self.0.read_stored(buffer, u64::MAX),
            Some(holes) => {
                let (holes, result) = self.0.read_sparse(holes, buffer);
                self.0.holes = Some(holes);
                result
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Format of a header with a valid checksum.
fn format(block: &[u8; BLOCK]) -> Option<Format> {
    let stored = octal(&block[148..156])?;
    let outside = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
    let unsigned: i64 = block.iter().enumerate().map(outside).map(i64::from).sum();
    let signed: i64 = block.iter().enumerate().map(outside).map(|byte| i64::from(byte as i8)).sum();
    if stored != unsigned && stored != signed {
        return None;
    }
    let magic = (&block[257..263], &block[263..265]);
    Some(match magic {
        (b"ustar\0", _) if &block[508..512] == b"tar\0" => Format::Star,
        (b"ustar\0", _) => Format::Ustar,
        (b"ustar ", b" \0") => Format::Gnu,
        _ => Format::V7,
    })
}

/// Parses a number in octal or, when the top bit is set, in base 256.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let negative = first & 0x40 != 0;
    let fill = if negative { 0xff } else { 0x00 };
    let mut value: u64 = 0;
    for (at, byte) in field.iter().enumerate() {
        let byte = (if at == 0 { byte & 0x7f } else { *byte }) ^ fill;
        let byte = if at == 0 { byte & 0x7f } else { byte };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

fn octal(field: &[u8]) -> Option<i64> {
    let trimmed = field.iter().copied().skip_while(|byte| matches!(byte, b' ' | 0));
    let mut text: Vec<u8> = trimmed.collect();
    while matches!(text.last(), Some(b' ' | 0)) {
        text.pop();
    }
    let text = until_nul(&text);
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok().and_then(|value| i64::try_from(value).ok())
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

fn prefixed(prefix: &[u8], name: Vec<u8>) -> Vec<u8> {
    if prefix.is_empty() { name } else { [prefix, b"/", &name].concat() }
}

/// Joins the repeated `GNU.sparse.offset` and `.numbytes` of version 0.0 sparse files into one map.
fn merge_sparse_0_0(list: Vec<(String, Vec<u8>)>) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut records = BTreeMap::new();
    let mut map: Vec<u8> = Vec::new();
    let mut expect_offset = true;
    for (key, value) in list {
        match key.as_str() {
            "GNU.sparse.offset" | "GNU.sparse.numbytes" => {
                if (key == "GNU.sparse.offset") != expect_offset || value.contains(&b',') {
                    return None;
                }
                expect_offset = !expect_offset;
                if !map.is_empty() {
                    map.push(b',');
                }
                map.extend_from_slice(&value);
            }
            _ => {
                records.insert(key, value);
            }
        }
    }
    if !map.is_empty() {
        records.insert("GNU.sparse.map".to_owned(), map);
    }
    Some(records)
}

/// Validates a uid or gid. Truncated to 32 bits, a larger one would be another id, perhaps 0; the largest 32-bit number
/// means "no change" in the kernel's calls.
fn id(value: i64) -> Option<u32> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX)
}

/// Applies PAX records; empty values keep those of the header, as in Go.
fn apply_pax(
    entry: &mut Entry,
    stored: &mut u64,
    records: &BTreeMap<String, Vec<u8>>,
) -> Result<(), &'static str> {
    let parse = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    let id = |value: &[u8]| id(parse(value).ok_or("malformed PAX number")?).ok_or("uid or gid out of range");
    for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
        match key.as_str() {
            "path" => entry.name.clone_from(value),
            "linkpath" => entry.link.clone_from(value),
            "uid" => entry.uid = id(value)?,
            "gid" => entry.gid = id(value)?,
            "size" => {
                let size = parse(value).and_then(|size| u64::try_from(size).ok());
                *stored = size.ok_or("malformed PAX number")?;
            }
            "mtime" => (entry.mtime, entry.mtime_nanos) = pax::time(value).ok_or("malformed PAX time")?,
            "atime" | "ctime" => {
                pax::time(value).ok_or("malformed PAX time")?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(pax::XATTR) {
                    entry.xattrs.insert(name.as_bytes().to_vec(), value.clone());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Writer;

    #[test]
    fn entries_are_counted() {
        let mut writer = Writer::new(Vec::new());
        for name in ["a", "b"] {
            writer.begin(&Entry::new(EntryKind::Directory, name)).unwrap();
        }
        let tar = writer.finish().unwrap();
        let mut reader = Reader::new(tar.as_slice());
        reader.entries = MAX_ENTRIES - 1;
        assert!(matches!(reader.next_entry(), Ok(Some(_))));
        assert!(matches!(reader.next_entry(), Err(TarError::TooMany(MAX_ENTRIES))));
    }
}
