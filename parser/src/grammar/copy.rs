//! Grammar of COPY and ADD.

use super::{FlagSet, Rule, Takes, heredoc};
use crate::ast::{Add, Copy, CopyOptions, CopySource, Kind};
use crate::diagnostic::Diagnostic;
use crate::text::Text;

const COPY_FLAGS: [(&str, Takes); 6] = [
    ("from", Takes::Value),
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::Values),
];

const ADD_FLAGS: [(&str, Takes); 7] = [
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("exclude", Takes::Values),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Value),
    ("unpack", Takes::Bool),
];

/// `COPY [flags] source… destination`.
pub(super) fn copy(mut rule: Rule<'_, '_>) -> Option<Kind> {
    let words = words(&mut rule)?;
    let flags = rule.check_flags(&COPY_FLAGS)?;
    let (sources, destination) = sources_and_destination(&mut rule, words)?;
    check_copy_sources(&mut rule, &sources)?;
    Some(Kind::Copy(Copy {
        sources,
        destination,
        from: flags.value("from"),
        options: options(&flags),
        parents: flags.bool("parents").unwrap_or(false),
    }))
}

/// `ADD [flags] source… destination`.
pub(super) fn add(mut rule: Rule<'_, '_>) -> Option<Kind> {
    let words = words(&mut rule)?;
    let flags = rule.check_flags(&ADD_FLAGS)?;
    let (sources, destination) = sources_and_destination(&mut rule, words)?;
    Some(Kind::Add(Add {
        sources,
        destination,
        options: options(&flags),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.value("checksum"),
        unpack: flags.bool("unpack"),
    }))
}

fn options(flags: &FlagSet) -> CopyOptions {
    CopyOptions {
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.all("exclude").collect(),
    }
}

/// Arguments in either form; at least two are required.
fn words(rule: &mut Rule<'_, '_>) -> Option<Vec<Text>> {
    let words = match rule.json()? {
        Some(strings) => strings,
        None => rule.words(),
    };
    if words.len() < 2 {
        let message = format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            rule.keyword
        );
        let span = words.first().map_or(rule.keyword_span(), Text::span);
        return rule.fail("missing-destination", span, message);
    }
    Some(words)
}

fn sources_and_destination(rule: &mut Rule<'_, '_>, mut words: Vec<Text>) -> Option<(Vec<CopySource>, Text)> {
    let destination = words.pop()?;
    if heredoc::marker(destination.as_str()).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", rule.keyword);
        return rule.fail("heredoc-destination", destination.span(), message);
    }
    let sources = words.into_iter().map(|word| source(rule, word)).collect();
    Some((sources, destination))
}

fn source(rule: &Rule<'_, '_>, word: Text) -> CopySource {
    // When several heredocs share a name, the last body serves all of them, as in the reference builder.
    let named = heredoc::marker(word.as_str())
        .and_then(|marker| rule.context.heredocs.iter().rposition(|heredoc| heredoc.name == marker.name));
    match named {
        Some(index) => CopySource::Heredoc(index),
        None => CopySource::Path(word),
    }
}

fn check_copy_sources(rule: &mut Rule<'_, '_>, sources: &[CopySource]) -> Option<()> {
    for source in sources {
        let CopySource::Path(path) = source else { continue };
        // As in the reference builder, a scheme in other letter case makes a path.
        if path.as_str().starts_with("http://") || path.as_str().starts_with("https://") {
            rule.report(
                Diagnostic::error("copy-url", path.span(), "source can't be a URL for COPY")
                    .hint("ADD takes URLs"),
            );
            return None;
        }
    }
    Some(())
}
