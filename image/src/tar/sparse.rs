//! Sparse files: maps of the ranges with data.

use super::TarError;
use super::reader::number;
use std::collections::BTreeMap;

/// A run of data; both fields in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Position of the map of a PAX sparse file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PaxSparse {
    /// In the records (versions 0.0 and 0.1).
    Map(Vec<Run>),
    /// At the start of the data (version 1.0).
    InData,
}

/// Checks that runs are in order, do not overlap and end within the file.
pub(super) fn validate(runs: &[Run], size: u64) -> Option<()> {
    let mut end = 0u64;
    for run in runs {
        if run.offset < end {
            return None;
        }
        end = run.offset.checked_add(run.length)?;
    }
    (end <= size).then_some(())
}

/// Parses the entries of an old GNU sparse block: pairs of 12-byte numbers, up to the first empty one.
pub(super) fn old_gnu_entries(bytes: &[u8], runs: &mut Vec<Run>) -> Option<()> {
    for entry in bytes.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        let offset = u64::try_from(number(&entry[..12])?).ok()?;
        let length = u64::try_from(number(&entry[12..])?).ok()?;
        runs.push(Run { offset, length });
    }
    Some(())
}

/// Sparse map from PAX records; `None` when the file is not sparse.
pub(super) fn from_pax(records: &BTreeMap<String, Vec<u8>>) -> Result<Option<PaxSparse>, &'static str> {
    let text = |key: &str| records.get(key).and_then(|value| std::str::from_utf8(value).ok());
    let version = (text("GNU.sparse.major"), text("GNU.sparse.minor"));
    match version {
        (Some("1"), Some("0")) => return Ok(Some(PaxSparse::InData)),
        (Some("0"), Some("0" | "1")) | (None, None) => {}
        (None, Some(_)) | (Some(_), None) => {}
        _ => return Ok(None),
    }
    let Some(map) = text("GNU.sparse.map") else { return Ok(None) };
    let numbers: Option<Vec<u64>> =
        if map.is_empty() { Some(Vec::new()) } else { map.split(',').map(|n| n.parse().ok()).collect() };
    let numbers = numbers.ok_or("sparse map is not a list of numbers")?;
    let count: usize =
        text("GNU.sparse.numblocks").and_then(|n| n.parse().ok()).ok_or("sparse map without its length")?;
    if Some(numbers.len()) != count.checked_mul(2) {
        return Err("sparse map has the wrong length");
    }
    let runs = numbers.chunks_exact(2).map(|pair| Run { offset: pair[0], length: pair[1] });
    Ok(Some(PaxSparse::Map(runs.collect())))
}

/// Reads the map at the start of a version 1.0 file: decimal lines, padded to a whole block.
///
/// `block` returns the next 512 bytes. The result is the list of runs.
pub(super) fn map_in_data(
    mut block: impl FnMut() -> Result<[u8; super::BLOCK], TarError>,
) -> Result<Option<Vec<Run>>, TarError> {
    let mut pending: Vec<u8> = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted: Option<usize> = None;
    loop {
        pending.extend_from_slice(&block()?);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let parsed = std::str::from_utf8(&line[..end]).ok().and_then(|text| text.parse::<u64>().ok());
            let Some(value) = parsed else { return Ok(None) };
            match wanted {
                None => match usize::try_from(value).ok().and_then(|count| count.checked_mul(2)) {
                    // A longer map would need more than a megabyte of numbers.
                    Some(count) if count <= 1 << 18 => wanted = Some(count),
                    _ => return Ok(None),
                },
                Some(_) => numbers.push(value),
            }
            if wanted == Some(numbers.len()) {
                let runs = numbers.chunks_exact(2).map(|pair| Run { offset: pair[0], length: pair[1] });
                return Ok(Some(runs.collect()));
            }
        }
        if pending.len() > super::BLOCK {
            return Ok(None);
        }
    }
}
