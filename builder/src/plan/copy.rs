//! COPY and ADD: files of the context, of stages and from the network.

use super::{Planner, StageState, commit, expand_value, shown_expanded, unprocessed};
use crate::graph::{self, Checkout, Copy, CopyFrom, CopySource, Download, Operation};
use crate::mistake::Mistake;
use crate::mode::ModeChange;
use crate::path;
use crate::solve::Input;
use crate::stage::{Base, Origin, Stage, Step};
use kiln_parser::Text;
use kiln_parser::ast;
use kiln_parser::expand::{self, Quotes, Rules};
use kiln_parser::git::{GitReference, Mtime};
use kiln_parser::span::Span;

impl Planner<'_> {
    pub(super) fn copy(
        &mut self,
        state: &mut StageState,
        step: &Step,
        copy: &ast::Copy,
    ) -> Result<(), Mistake> {
        let resolved = resolve(state, step, &copy.sources, &copy.destination, &copy.options)?;
        for (path, place) in resolved.shown.iter().zip(&resolved.places) {
            check_local(path, *place)?;
        }
        let mut more = Vec::new();
        let from = match step.origins.first().and_then(Option::as_ref) {
            None => CopyFrom::Context(0),
            Some(Origin::Context(context)) => CopyFrom::Context(context + 1),
            Some(origin) => {
                more.push(graph::content(self.origin_node(origin, step.span)));
                CopyFrom::Input(1)
            }
        };
        let origin = self.origin_name(step.origins.first().and_then(Option::as_ref));
        let source = |(path, place): (&String, &Span)| {
            let path = if copy.parents { path.clone() } else { path::join("/", path) };
            CopySource { from, path, place: *place, unpack: false, origin: origin.clone() }
        };
        let sources = resolved.shown.iter().zip(&resolved.places).map(source).collect();
        let resolved = Resolved { sources, parents: copy.parents, ..resolved };
        self.push_copy(state, step, resolved, more, copy.options.link, "COPY");
        Ok(())
    }

    pub(super) fn add_files(
        &mut self,
        state: &mut StageState,
        step: &Step,
        add: &ast::Add,
    ) -> Result<(), Mistake> {
        let resolved = resolve(state, step, &add.sources, &add.destination, &add.options)?;
        check_checksum(state, step, add, &resolved)?;
        for (path, place) in resolved.shown.iter().zip(&resolved.places) {
            let problem = match GitReference::parse(path) {
                Some(Err(problem)) => problem.to_string(),
                Some(Ok(git)) if git.keep_git_dir.is_some_and(|keep| add.keep_git_dir == Some(!keep)) => {
                    "inconsistent keep-git-dir configuration".to_owned()
                }
                _ => continue,
            };
            return Err(Mistake::at("invalid-git", *place, problem));
        }
        let checksum = optional(state, step, add.checksum.as_ref())?;
        let (mut sources, mut more) = (Vec::new(), Vec::new());
        for (path, place) in resolved.shown.iter().zip(&resolved.places) {
            let remote = remote(path, add, checksum.as_deref());
            let source = match remote {
                None => {
                    let unpack = add.unpack != Some(false);
                    CopySource {
                        from: CopyFrom::Context(0),
                        path: path::join("/", path),
                        place: *place,
                        unpack,
                        origin: self.origin_name(None),
                    }
                }
                Some(operation) => {
                    let (path, unpack) = match &operation {
                        Operation::Download(file) => (format!("/{}", file.name), add.unpack == Some(true)),
                        _ => ("/".to_owned(), false),
                    };
                    let origin = resolved_name(&operation).to_owned();
                    let name = format!("[internal] load {origin}");
                    let node = self.add(&mut state.counter, step.span, operation, Vec::new(), name);
                    more.push(graph::content(node));
                    CopySource { from: CopyFrom::Input(more.len()), path, place: *place, unpack, origin }
                }
            };
            sources.push(source);
        }
        self.push_copy(state, step, Resolved { sources, ..resolved }, more, add.options.link, "ADD");
        Ok(())
    }

    fn push_copy(
        &mut self,
        state: &mut StageState,
        step: &Step,
        resolved: Resolved,
        more: Vec<Input>,
        link: bool,
        keyword: &str,
    ) {
        let shown = shown_expanded(state, step, Quotes::Remove, false);
        let created_by = resolved.created_by(keyword);
        let has_mode = resolved.mode.is_some();
        let copy = Operation::Copy(Box::new(Copy {
            sources: resolved.sources,
            inline: resolved.inline,
            destination: resolved.destination,
            owner: resolved.owner,
            mode: resolved.mode,
            exclude: resolved.exclude,
            parents: resolved.parents,
            whole: false,
            epoch: self.options.epoch,
        }));
        if link && !has_mode {
            self.push_link(state, step, copy, more, &shown);
        } else {
            self.push(state, step, copy, more, &shown);
        }
        commit(state, created_by, true);
    }

    /// Creates the layer on the empty tree and merges it onto the stage's tree: the layer does not depend on that tree.
    fn push_link(
        &mut self,
        state: &mut StageState,
        step: &Step,
        copy: Operation,
        more: Vec<Input>,
        shown: &str,
    ) {
        let empty = self.add(
            &mut state.counter,
            step.span,
            Operation::Scratch,
            Vec::new(),
            "FROM scratch".to_owned(),
        );
        let name = state.counter.name(shown);
        let inputs = std::iter::once(graph::base(empty)).chain(more).collect();
        let layer = self.add(&mut state.counter, step.span, copy, inputs, name.clone());
        let inputs = vec![graph::base(state.node), graph::base(layer)];
        state.node = self.add(&mut state.counter, step.span, Operation::Merge, inputs, name);
    }
}

/// Checks `--checksum`: it needs exactly one remote source.
fn check_checksum(
    state: &StageState,
    step: &Step,
    add: &ast::Add,
    resolved: &Resolved,
) -> Result<(), Mistake> {
    let Some(text) = add.checksum.as_ref() else { return Ok(()) };
    let value = expand_value(state, step, text)?;
    let fail = |message: String| Err(Mistake::at("checksum", step.span_of(text), message));
    if value.is_empty() {
        return Ok(());
    }
    if resolved.shown.len() != 1 {
        return fail("checksum can't be specified for multiple sources".to_owned());
    }
    let source = &resolved.shown[0];
    let is_git = is_git(source);
    if !is_git && !is_address(source) {
        return fail("checksum requires HTTP(S) or Git sources".to_owned());
    }
    match digest_problem(&value) {
        Some(problem) if !is_git => fail(problem.to_owned()),
        _ => Ok(()),
    }
}

/// Problem of a digest `algorithm:hexadecimal`; `None` when it is valid.
fn digest_problem(text: &str) -> Option<&'static str> {
    let Some((algorithm, hex)) = text.split_once(':') else { return Some("invalid checksum digest format") };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Some("unsupported digest algorithm"),
    };
    if hex.len() != length {
        return Some("invalid checksum digest length");
    }
    let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (!is_hex).then_some("invalid checksum digest format")
}

fn is_git(source: &str) -> bool {
    GitReference::parse(source).is_some_and(|found| found.is_ok_and(|found| !found.looks_local))
}

fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Rejects URLs and git references in COPY, also those from variables.
fn check_local(path: &str, place: Span) -> Result<(), Mistake> {
    let (code, what, hint) = if is_address(path) {
        ("copy-url", "a URL", "ADD takes URLs")
    } else if is_git(path) {
        ("copy-git", "a git ref", "ADD takes addresses of git repositories")
    } else {
        return Ok(());
    };
    Err(Mistake::at(code, place, format!("source can't be {what} for COPY")).hint(Some(hint.to_owned())))
}

/// Operation that fetches a remote source of ADD; `None` for sources in the context.
fn remote(source: &str, add: &ast::Add, checksum: Option<&str>) -> Option<Operation> {
    if let Some(Ok(git)) = GitReference::parse(source).filter(|_| is_git(source)) {
        return Some(Operation::Checkout(checkout(git, add.keep_git_dir == Some(true), checksum)));
    }
    is_address(source).then(|| {
        Operation::Download(Download {
            url: source.to_owned(),
            name: download_name(source),
            checksum: checksum.and_then(|text| text.parse().ok()),
        })
    })
}

/// Operation that fetches the files of a stage FROM scratch with a single remote ADD; `None` for other stages.
pub(crate) fn only_remote(stage: &Stage) -> Option<Operation> {
    let [step] = stage.steps.as_slice() else { return None };
    let ast::Kind::Add(add) = &step.instruction.kind else { return None };
    let [ast::CopySource::Path(path)] = add.sources.as_slice() else { return None };
    let checksum = add.checksum.as_ref().map(Text::as_str);
    (stage.base == Base::Scratch).then(|| remote(path.as_str(), add, checksum)).flatten()
}

/// Checkout that a git reference describes.
pub fn checkout(git: GitReference, keeps_git: bool, checksum: Option<&str>) -> Checkout {
    let commit = if git.checksum.is_empty() { checksum.unwrap_or_default().to_owned() } else { git.checksum };
    let reference = if git.fetch_by_commit { commit.clone() } else { git.reference };
    Checkout {
        remote: git.remote,
        reference,
        commit,
        dir: git.subdir,
        keeps_git: keeps_git || git.keep_git_dir == Some(true),
        submodules: git.submodules != Some(false),
        commit_times: git.mtime == Some(Mtime::Commit),
    }
}

/// File name of a download: the last component of the URL's path.
fn download_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let clean = path::join("/", &percent_decoded(path));
    match clean.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "__unnamed__".to_owned(),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = (*byte == b'%').then(|| after.get(..2)).flatten();
        let code = escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn resolved_name(operation: &Operation) -> &str {
    match operation {
        Operation::Download(download) => &download.url,
        Operation::Checkout(checkout) => &checkout.remote,
        _ => "",
    }
}

/// A COPY or ADD with its variables replaced.
struct Resolved {
    /// Sources as the history shows them.
    shown: Vec<String>,
    sources: Vec<CopySource>,
    places: Vec<Span>,
    inline: Vec<(String, String)>,
    /// Destination as written, for the history.
    shown_destination: String,
    destination: String,
    owner: Option<String>,
    mode: Option<ModeChange>,
    exclude: Vec<String>,
    parents: bool,
}

fn resolve(
    state: &StageState,
    step: &Step,
    sources: &[ast::CopySource],
    destination: &Text,
    options: &ast::CopyOptions,
) -> Result<Resolved, Mistake> {
    let owner = optional(state, step, options.chown.as_ref())?;
    let mode = match optional(state, step, options.chmod.as_ref())? {
        Some(text) => Some(ModeChange::parse(&text).map_err(|error| {
            let span = options.chmod.as_ref().map_or(step.span, |text| step.span_of(text));
            Mistake::at("invalid-mode", span, error.to_string())
        })?),
        None => None,
    };
    let (mut paths, mut places) = (Vec::new(), Vec::new());
    let mut inline = Vec::new();
    for source in sources {
        match source {
            ast::CopySource::Path(text) => {
                paths.push(expand_value(state, step, text)?);
                places.push(step.span_of(text));
            }
            ast::CopySource::Heredoc(index) => inline.push(heredoc(state, step, *index)?),
        }
    }
    let shown_destination = expand_value(state, step, destination)?;
    let names = inline.iter().map(|(name, _)| format!("<<{name}"));
    Ok(Resolved {
        shown: paths.iter().cloned().chain(names).collect(),
        sources: Vec::new(),
        places,
        inline,
        destination: match state.platform.os == super::WINDOWS {
            true => path::destination(
                &path::of_windows(&state.config.config.working_dir),
                &path::of_windows(&shown_destination),
            ),
            false => path::destination(&state.config.config.working_dir, &shown_destination),
        },
        shown_destination,
        owner,
        mode,
        exclude: options.exclude.iter().map(|text| text.as_str().to_owned()).collect(),
        parents: false,
    })
}

/// Value of a flag; `None` for an empty one, as without the flag.
fn optional(state: &StageState, step: &Step, text: Option<&Text>) -> Result<Option<String>, Mistake> {
    let value = text.map(|text| expand_value(state, step, text)).transpose()?;
    Ok(value.filter(|value| !value.is_empty()))
}

fn heredoc(state: &StageState, step: &Step, index: usize) -> Result<(String, String), Mistake> {
    let heredoc = &step.instruction.heredocs[index];
    let body = heredoc.text();
    if !heredoc.expand {
        return Ok((heredoc.name.clone(), body));
    }
    let expansion = expand::expand(&body, &state.limited(), Rules::heredoc_body());
    let body = expansion.map_err(|error| {
        let span = if step.is_trigger { step.span } else { heredoc.word };
        unprocessed(span, &body, &error.message)
    })?;
    Ok((heredoc.name.clone(), body.value))
}

impl Resolved {
    fn created_by(&self, keyword: &str) -> String {
        let mut words = vec![keyword.to_owned()];
        words.extend(self.parents.then(|| "--parents".to_owned()));
        words.extend(self.owner.as_ref().map(|owner| format!("--chown={owner}")));
        words.extend(self.mode.as_ref().map(|mode| format!("--chmod={}", mode.text())));
        words.extend(self.shown.iter().cloned());
        words.push(self.shown_destination.clone());
        format!("{} # buildkit", words.join(" "))
    }
}
