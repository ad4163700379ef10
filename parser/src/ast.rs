//! The syntax tree of a Dockerfile.
//!
//! Values are kept as written: variables are not expanded, and quotes stay wherever expansion would remove them.
//! [`crate::expand`] replaces variables, given an environment that the tree does not know.

use crate::source::Source;
use crate::span::{Span, Spanned};
use crate::text::Text;

/// Syntax tree of a whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Parser directives at the head of the file.
    pub directives: Directives,
    /// Instructions in file order, including invalid ones.
    pub instructions: Vec<Instruction>,
    /// Trivia after the last instruction: line ends, blanks, comments.
    pub tail: Span,
}

impl Dockerfile {
    /// Text of the file, byte for byte. `source` must be the one that the tree was parsed from.
    pub fn print(&self, source: &Source) -> Vec<u8> {
        let pieces = self.instructions.iter().flat_map(|instruction| [instruction.lead, instruction.span]);
        let bytes = pieces.chain([self.tail]).flat_map(|span| &source.bytes()[span.range()]);
        bytes.copied().collect()
    }
}

/// Parser directives: `# key=value` lines at the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: name of the frontend image.
    pub syntax: Option<Spanned<String>>,
    /// `# escape=`: the character that continues lines and escapes others.
    pub escape: char,
    /// `# check=`: options of the lints.
    pub check: Option<Spanned<String>>,
}

/// One instruction with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Trivia since the previous instruction: line ends, blanks, comments, directives.
    pub lead: Span,
    /// From the keyword to the end of the last line or of the last heredoc's terminator.
    pub span: Span,
    /// Keyword in its original letter case.
    pub keyword: Text,
    /// Logical line: continuations joined, comments inside dropped, trimmed.
    pub line: Text,
    /// Comment lines directly above, without `#` and trimmed.
    pub comments: Vec<Spanned<String>>,
    /// Heredocs in the order of their `<<` words.
    pub heredocs: Vec<Heredoc>,
    /// Parsed form of the instruction.
    pub kind: Kind,
}

impl Instruction {
    /// Description of `name` in the comment lines directly above: the rest of a line `# name description`. `None` when
    /// no line begins with that name.
    pub fn description(&self, name: &str) -> Option<&str> {
        let described = |comment: &Spanned<String>| comment.value.starts_with(name);
        let comment = self.comments.iter().find(|comment| {
            !name.is_empty() && described(comment) && comment.value[name.len()..].starts_with(' ')
        })?;
        Some(&comment.value[name.len() + 1..])
    }
}

/// Parsed form of an instruction.
#[expect(missing_docs, reason = "a variant is named after its keyword")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Add(Add),
    Arg(Vec<ArgItem>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(KeyValues),
    Expose(Vec<Text>),
    From(From),
    Healthcheck(Healthcheck),
    Label(KeyValues),
    Maintainer(Text),
    Onbuild(Onbuild),
    Run(Run),
    Shell(Vec<Text>),
    Stopsignal(Text),
    User(Text),
    Volume(Vec<Text>),
    Workdir(Text),
    /// An instruction with an error; a diagnostic describes it.
    Invalid,
}

impl Kind {
    /// Texts in which the builder expands variables, without heredoc bodies.
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

/// True for the `from=` field of a mount, in which variables are not expanded.
fn is_from(field: &str) -> bool {
    field.split_once('=').is_some_and(|(key, _)| key.eq_ignore_ascii_case("from"))
}

impl CopyOptions {
    fn expanded(&self) -> impl Iterator<Item = &Text> {
        self.chown.iter().chain(&self.chmod)
    }
}

/// Keywords of the language, in the upper case that messages use.
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
    /// The word `AS` in its original letter case, for lints.
    pub as_keyword: Option<Text>,
    /// Stage name in its original letter case.
    pub name: Option<Text>,
    /// Value of `--platform`, unexpanded.
    pub platform: Option<Text>,
}

impl From {
    /// Stage name in lower case, as look-ups compare it; `None` for a stage without a name.
    pub fn stage_name(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.as_str().to_lowercase())
    }
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell; heredoc bodies are in [`Instruction::heredocs`].
    Shell(Text),
    /// `["program", "argument"]`, run without a shell.
    Exec(Vec<Text>),
}

/// `RUN [flags] command`, also with heredocs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Values of `--mount` in order.
    pub mounts: Vec<MountFlag>,
    /// Value of `--network`; `None` when absent.
    pub network: Option<Spanned<NetworkMode>>,
    /// Value of `--security`; `None` when absent.
    pub security: Option<Spanned<SecurityMode>>,
    /// Values of `--device` in order.
    pub devices: Vec<Device>,
    /// Command in shell or exec form.
    pub command: CommandLine,
}

impl Run {
    /// True when the command consists of one heredoc only, whose body then is the command.
    pub fn is_heredoc_alone(&self) -> bool {
        match &self.command {
            CommandLine::Shell(text) => crate::grammar::heredoc::marker(text.as_str()).is_some(),
            CommandLine::Exec(_) => false,
        }
    }
}

/// One `--mount=` value, split at its commas; keys and values as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    /// Whole value of the flag.
    pub text: Text,
    /// Comma-separated fields of the value.
    pub fields: Vec<Text>,
}

/// One `--device=`: a device of the Container Device Interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `vendor.com/class=device`, `=*` for all of them, or only the class.
    pub name: Text,
    /// Whether the step fails when the host lacks the device.
    pub required: bool,
}

/// Network of a RUN step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// The mode that the build was started with.
    Default,
    /// A loopback interface and nothing else.
    None,
    /// The host's network; needs an entitlement from the command line.
    Host,
}

/// Confinement of a RUN step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityMode {
    /// The confinement of an ordinary container.
    Sandbox,
    /// All capabilities and no seccomp filter; needs an entitlement from the command line.
    Insecure,
}

/// `COPY [flags] source… destination`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Sources, heredocs included, in order.
    pub sources: Vec<CopySource>,
    /// Destination path of the copy, unexpanded.
    pub destination: Text,
    /// Value of `--from`: a stage, an image or a named context.
    pub from: Option<Text>,
    /// Flags shared with ADD.
    pub options: CopyOptions,
    /// Whether `--parents` is set.
    pub parents: bool,
}

/// `ADD [flags] source… destination`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Sources, heredocs included, in order.
    pub sources: Vec<CopySource>,
    /// Destination path of the copy, unexpanded.
    pub destination: Text,
    /// Flags shared with COPY.
    pub options: CopyOptions,
    /// Value of `--keep-git-dir`; `None` when absent.
    pub keep_git_dir: Option<bool>,
    /// Value of `--checksum`, unexpanded.
    pub checksum: Option<Text>,
    /// Value of `--unpack`; `None` when absent.
    pub unpack: Option<bool>,
}

/// Flags that COPY and ADD share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Value of `--chown`, unexpanded.
    pub chown: Option<Text>,
    /// Value of `--chmod`, unexpanded.
    pub chmod: Option<Text>,
    /// Whether `--link` is set.
    pub link: bool,
    /// `--exclude` patterns; variables in them are not expanded.
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
    /// Name after quote removal: file name and terminator.
    pub name: String,
    /// Span of the `<<NAME` word.
    pub word: Span,
    /// Whether variables in the body are expanded: false when any part of the word was quoted.
    pub expand: bool,
    /// Whether the operator is `<<-`, which strips leading tabs.
    pub strip_tabs: bool,
    /// File descriptor number before `<<`; 0 when absent.
    pub descriptor: u32,
    /// Span of the body in the source.
    pub body: Span,
    /// Body as instructions read it: line ends are `\n`, tabs not yet stripped.
    pub content: String,
}

impl Heredoc {
    /// Body, with leading tabs stripped for `<<-`.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Pairs of an ENV or LABEL.
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
    /// Text before the first `=`.
    pub key: Text,
    /// Text after the first `=`.
    pub value: Text,
}

/// One variable of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgItem {
    /// Name of the variable.
    pub key: Text,
    /// Default after `=`, unexpanded and with its quotes.
    pub value: Option<Text>,
}

/// `ONBUILD instruction` with its trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// Trigger as stored in the image: its line and its heredocs.
    pub trigger: String,
    /// Trigger parsed as an instruction of this file.
    pub instruction: Box<Kind>,
}

/// `HEALTHCHECK NONE` or `HEALTHCHECK [flags] CMD …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: disables the base image's check.
    None,
    /// `CMD …` with its timing; durations in nanoseconds, 0 for the default.
    Command {
        /// Command in shell or exec form.
        command: CommandLine,
        /// Time between checks, from `--interval`.
        interval: i64,
        /// Longest duration of a check, from `--timeout`.
        timeout: i64,
        /// Time in which failures do not count, from `--start-period`.
        start_period: i64,
        /// Time between checks meanwhile, from `--start-interval`.
        start_interval: i64,
        /// Value of `--retries`; 0 for the default.
        retries: u32,
    },
}
