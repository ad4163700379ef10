//! The syntax tree of a Dockerfile.
//!
//! Values are kept as they were written: variables are not expanded and, where expansion would remove
//! them, quotes still stand. What a variable means is decided by [`crate::expand`], with an environment
//! that the tree does not know.

use crate::source::Source;
use crate::span::{Span, Spanned};
use crate::text::Text;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The parser directives at its head.
    pub directives: Directives,
    /// Its instructions in order, the broken ones too.
    pub instructions: Vec<Instruction>,
    /// What stands behind the last instruction.
    pub tail: Span,
}

impl Dockerfile {
    /// The file again, byte for byte. `source` is what the tree was read from.
    pub fn print(&self, source: &Source) -> Vec<u8> {
        let pieces = self.instructions.iter().flat_map(|instruction| [instruction.lead, instruction.span]);
        let bytes = pieces.chain([self.tail]).flat_map(|span| &source.bytes()[span.range()]);
        bytes.copied().collect()
    }
}

/// `# key=value` lines at the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend the author asks for.
    pub syntax: Option<Spanned<String>>,
    /// `# escape=`: the character that continues lines and escapes others.
    pub escape: char,
    /// `# check=`: how lints are to behave.
    pub check: Option<Spanned<String>>,
}

/// One instruction with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What stands before it since the instruction above: line ends, blanks, comments, directives.
    pub lead: Span,
    /// From the keyword to the end of its last line or of its last heredoc's terminator.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Text,
    /// The logical line: continuations joined, comments inside dropped, trimmed.
    pub line: Text,
    /// Comment lines directly above, without `#` and trimmed.
    pub comments: Vec<Spanned<String>>,
    /// Heredoc bodies in the order they are named.
    pub heredocs: Vec<Heredoc>,
    /// What it says.
    pub kind: Kind,
}

impl Instruction {
    /// What a comment right above says about `name`: the words behind it in a line `# name words`.
    pub fn description(&self, name: &str) -> Option<&str> {
        let described = |comment: &Spanned<String>| comment.value.starts_with(name);
        let comment = self.comments.iter().find(|comment| {
            !name.is_empty() && described(comment) && comment.value[name.len()..].starts_with(' ')
        })?;
        Some(&comment.value[name.len() + 1..])
    }
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`.
    Add(Add),
    /// `ARG`.
    Arg(Vec<ArgItem>),
    /// `CMD`.
    Cmd(CommandLine),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `ENV`.
    Env(KeyValues),
    /// `EXPOSE`.
    Expose(Vec<Text>),
    /// `FROM`.
    From(From),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`.
    Label(KeyValues),
    /// `MAINTAINER`.
    Maintainer(Text),
    /// `ONBUILD`.
    Onbuild(Onbuild),
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell(Vec<Text>),
    /// `STOPSIGNAL`.
    Stopsignal(Text),
    /// `USER`.
    User(Text),
    /// `VOLUME`.
    Volume(Vec<Text>),
    /// `WORKDIR`.
    Workdir(Text),
    /// An instruction that could not be read; a diagnostic says why.
    Invalid,
}

impl Kind {
    /// The texts in which the builder replaces variables, heredoc bodies not counted.
    pub fn expanded(&self) -> Vec<&Text> {
        match self {
            Kind::Add(add) => {
                let own = add.checksum.iter().chain(std::iter::once(&add.destination));
                paths(&add.sources).chain(add.options.expanded()).chain(own).collect()
            }
            Kind::Copy(copy) => {
                let own = std::iter::once(&copy.destination);
                paths(&copy.sources).chain(copy.options.expanded()).chain(own).collect()
            }
            Kind::Arg(items) => items.iter().filter_map(|item| item.value.as_ref()).collect(),
            Kind::Env(values) | Kind::Label(values) => {
                values.pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
            }
            Kind::Expose(list) | Kind::Volume(list) => list.iter().collect(),
            Kind::Run(run) => {
                let fields = run.mounts.iter().flat_map(|mount| &mount.fields);
                fields.filter(|field| !is_from(field.as_str())).collect()
            }
            Kind::Stopsignal(text) | Kind::User(text) | Kind::Workdir(text) => vec![text],
            _ => Vec::new(),
        }
    }
}

fn paths(sources: &[CopySource]) -> impl Iterator<Item = &Text> {
    sources.iter().filter_map(|source| match source {
        CopySource::Path(path) => Some(path),
        CopySource::Heredoc(_) => None,
    })
}

/// A mount's `from=`, which takes no variables.
fn is_from(field: &str) -> bool {
    field.split_once('=').is_some_and(|(key, _)| key.eq_ignore_ascii_case("from"))
}

impl CopyOptions {
    fn expanded(&self) -> impl Iterator<Item = &Text> {
        self.chown.iter().chain(&self.chmod)
    }
}

/// The keywords of the language, as messages name them.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// `FROM [--platform=P] IMAGE [AS NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Image, earlier stage or named context; variables unexpanded.
    pub image: Text,
    /// `AS` as written, for lints.
    pub as_keyword: Option<Text>,
    /// Stage name, as written.
    pub name: Option<Text>,
    /// `--platform`, unexpanded.
    pub platform: Option<Text>,
}

impl From {
    /// The stage's name in the lower case that look-ups use.
    pub fn stage_name(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.as_str().to_lowercase())
    }
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell; heredoc bodies stand on the instruction.
    Shell(Text),
    /// `["program", "argument"]`, run as it is.
    Exec(Vec<Text>),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `--mount` values in order.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Option<Spanned<NetworkMode>>,
    /// `--security`.
    pub security: Option<Spanned<SecurityMode>>,
    /// `--device` values in order.
    pub devices: Vec<Device>,
    /// What is run.
    pub command: CommandLine,
}

impl Run {
    /// True when the command is a heredoc and nothing else: then its body is the command.
    pub fn is_heredoc_alone(&self) -> bool {
        match &self.command {
            CommandLine::Shell(text) => crate::grammar::heredoc::marker(text.as_str()).is_some(),
            CommandLine::Exec(_) => false,
        }
    }
}

/// One `--mount=` value, split at its commas, keys and values as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// The whole value.
    pub text: Text,
    /// Its comma-separated fields.
    pub fields: Vec<Text>,
}

/// One `--device=`: a device of the Container Device Interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `vendor.com/class=device`, `=*` for all of them, or only the class.
    pub name: Text,
    /// The step fails without it.
    pub required: bool,
}

/// Where a step's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// What the build was asked for.
    Default,
    /// Loopback only.
    None,
    /// The host's own network; needs consent on the command line.
    Host,
}

/// How confined a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityMode {
    /// As any container.
    Sandbox,
    /// All capabilities, no seccomp; needs consent on the command line.
    Insecure,
}

/// `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources, heredocs included, in order.
    pub sources: Vec<CopySource>,
    /// Destination, unexpanded.
    pub destination: Text,
    /// `--from`.
    pub from: Option<Text>,
    /// Flags that ADD has too.
    pub options: CopyOptions,
    /// `--parents`.
    pub parents: bool,
}

/// `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Sources, heredocs included, in order.
    pub sources: Vec<CopySource>,
    /// Destination, unexpanded.
    pub destination: Text,
    /// Flags that COPY has too.
    pub options: CopyOptions,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<Text>,
    /// `--unpack`.
    pub unpack: Option<bool>,
}

/// Flags that COPY and ADD share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// `--chown`, unexpanded.
    pub chown: Option<Text>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Text>,
    /// `--link`.
    pub link: bool,
    /// `--exclude` patterns; never expanded.
    pub exclude: Vec<Text>,
}

/// One source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path, pattern, URL or git reference, unexpanded.
    Path(Text),
    /// A heredoc: index into the instruction's [`Instruction::heredocs`].
    Heredoc(usize),
}

/// A heredoc's word and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The name after quote removal: file name and terminator.
    pub name: String,
    /// The `<<NAME` word.
    pub word: Span,
    /// False when any part of the word was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are stripped.
    pub strip_tabs: bool,
    /// The number before `<<`; 0 when there is none.
    pub descriptor: u32,
    /// The bytes of the body in the source.
    pub body: Span,
    /// The body as instructions see it: line ends are `\n`, tabs still there.
    pub content: String,
}

impl Heredoc {
    /// The body with leading tabs stripped if `<<-` asked for it.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// `ENV` and `LABEL` pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValues {
    /// The pairs in order.
    pub pairs: Vec<KeyValue>,
    /// True for the old `ENV key value` form.
    pub legacy: bool,
}

/// `key=value`, both unexpanded and with their quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the first `=`.
    pub key: Text,
    /// After it.
    pub value: Text,
}

/// One name of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgItem {
    /// The name.
    pub key: Text,
    /// Default after `=`, unexpanded and with its quotes.
    pub value: Option<Text>,
}

/// `ONBUILD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as the image stores it: its line and its heredocs.
    pub trigger: String,
    /// The trigger read as an instruction of this file.
    pub instruction: Box<Kind>,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: the base image's check is off.
    None,
    /// `CMD …` with its timing; durations in nanoseconds, 0 for the default.
    Command {
        /// The command.
        command: CommandLine,
        /// `--interval`.
        interval: i64,
        /// `--timeout`.
        timeout: i64,
        /// `--start-period`.
        start_period: i64,
        /// `--start-interval`.
        start_interval: i64,
        /// `--retries`.
        retries: u32,
    },
}
