//! Selection of files in a copied directory: ignore patterns of the context, `--exclude`, and the pattern of
//! `--parents`.

use super::{Content, Source, text};
use kiln_image::layer::{Choice, Selection};
use kiln_parser::ignore::{Decision, Patterns};

/// Selection in one copied directory. Ignore patterns match paths from the root of the context, `--exclude` those from
/// the copied directory.
pub struct CopySelection<'a> {
    ignore: &'a Patterns,
    exclude: &'a Patterns,
    /// Patterns of the files to take; empty for all files.
    include: &'a Patterns,
    /// Path of the copied directory, with a trailing slash unless it is the root.
    prefix: String,
    top: Decision,
}

impl<'a> CopySelection<'a> {
    /// Selection for the content of the directory `source`.
    pub fn new(content: &'a Content, source: &'a Source, exclude: &'a Patterns) -> CopySelection<'a> {
        let path = text(&source.path);
        let ignore = content.patterns();
        let top = if path.is_empty() { Decision::default() } else { ignore.decide_without_parent(&path) };
        let prefix = if path.is_empty() { path } else { format!("{path}/") };
        CopySelection { ignore, exclude, include: &source.include, prefix, top }
    }
}

/// Decisions of the three lists of patterns about a directory.
#[derive(Clone, Debug, Default)]
pub struct DirDecision {
    ignore: Option<Decision>,
    exclude: Option<Decision>,
    include: Option<Decision>,
}

impl Selection for CopySelection<'_> {
    type Dir = DirDecision;

    fn top(&self) -> DirDecision {
        // The patterns treat children of the root as without a parent.
        let ignore = (!self.prefix.is_empty()).then(|| self.top.clone());
        DirDecision { ignore, ..DirDecision::default() }
    }

    fn choose(&self, path: &[u8], is_dir: bool, parent: &DirDecision) -> (Choice, DirDecision) {
        if self.ignore.is_empty() && self.exclude.is_empty() && self.include.is_empty() {
            return (Choice::Take, DirDecision::default());
        }
        let inner = String::from_utf8_lossy(path);
        let full = format!("{}{inner}", self.prefix);
        let ignore = self.ignore.decide(&full, parent.ignore.as_ref());
        let exclude = self.exclude.decide(&inner, parent.exclude.as_ref());
        let include = self.include.decide(&inner, parent.include.as_ref());
        let is_included = self.include.is_empty() || include.is_ignored();
        let out = [(self.ignore, full.as_str(), &ignore), (self.exclude, &inner, &exclude)];
        let choice = if !ignore.is_ignored() && !exclude.is_ignored() && is_included {
            Choice::Take
        } else if !is_included && !self.include.may_match_below(&inner) {
            Choice::Skip
        } else if is_dir && !out.iter().any(|(patterns, path, decision)| patterns.prunes(path, decision)) {
            Choice::Enter
        } else {
            Choice::Skip
        };
        (choice, DirDecision { ignore: Some(ignore), exclude: Some(exclude), include: Some(include) })
    }
}
