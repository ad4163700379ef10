//! Slices of a file, one for each stage.

use crate::ast::{Dockerfile, From, Instruction, Kind};

/// A FROM and the instructions after it.
pub(crate) struct StageSlice<'a> {
    pub(crate) instruction: &'a Instruction,
    pub(crate) from: &'a From,
    pub(crate) body: &'a [Instruction],
}

/// All stages in file order; instructions above the first FROM belong to none.
pub(crate) fn split(file: &Dockerfile) -> Vec<StageSlice<'_>> {
    let all = &file.instructions;
    let is_from = |index: &usize| matches!(all[*index].kind, Kind::From(_));
    let starts: Vec<usize> = (0..all.len()).filter(is_from).collect();
    let ends = starts.iter().skip(1).copied().chain([all.len()]);
    let stages = starts.iter().zip(ends).filter_map(|(start, end)| match &all[*start].kind {
        Kind::From(from) => Some(StageSlice { instruction: &all[*start], from, body: &all[start + 1..end] }),
        _ => None,
    });
    stages.collect()
}
