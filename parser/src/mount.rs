//! `RUN --mount=` values: their fields, and their meaning once variables are expanded.
//!
//! Rules and messages follow moby/buildkit `frontend/dockerfile/instructions/commands_runmount.go`: fields are read
//! from left to right, keys ignore case, and an option that depends on the type must follow `type=`.

use crate::ast::MountFlag;
use crate::diagnostic::Diagnostic;
use crate::expand::ExpandError;
use crate::span::Span;
use crate::suggest;
use crate::text::{Text, TextBuilder};

/// Type of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that persists between builds.
    Cache,
    /// An empty file system in memory.
    Tmpfs,
    /// A secret as a file or a variable.
    Secret,
    /// An ssh agent's socket.
    Ssh,
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

/// Sharing of a cache mount between concurrent steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// All steps use it at once.
    Shared,
    /// Each concurrent step has a separate directory.
    Private,
    /// Steps wait for each other.
    Locked,
}

const SHARING: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];

/// A mount with its variables expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Type of the mount, from `type`.
    pub kind: MountKind,
    /// Value of `from`; empty for the default.
    pub from: String,
    /// Value of `source`; empty for the default.
    pub source: String,
    /// Value of `target`; empty for the default.
    pub target: String,
    /// Whether the mount is read-only.
    pub readonly: bool,
    /// Value of `size` in bytes; 0 for no limit.
    pub size: u64,
    /// Value of `id`; empty for the default.
    pub id: String,
    /// Value of `sharing`; `None` when absent.
    pub sharing: Option<Sharing>,
    /// Whether the step fails without the secret or socket.
    pub required: bool,
    /// Value of `env`: the variable that receives a secret.
    pub env: Option<String>,
    /// Permission bits from `mode`; `None` when absent.
    pub mode: Option<u32>,
    /// Owner from `uid`; `None` when absent.
    pub uid: Option<u32>,
    /// Group from `gid`; `None` when absent.
    pub gid: Option<u32>,
}

impl Mount {
    /// Id of a secret: `id`, or the last name of the target.
    pub fn secret_id(&self) -> String {
        let named = [&self.id, &self.source].into_iter().find(|name| !name.is_empty()).cloned();
        named.unwrap_or_else(|| base_name(&self.target).to_owned())
    }

    /// Id of an ssh socket: `id`, or `default`.
    pub fn ssh_id(&self) -> String {
        if self.id.is_empty() { "default".to_owned() } else { self.id.clone() }
    }
}

/// Last name of a path.
pub fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

impl MountKind {
    /// Name as written in a Dockerfile.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// An error in a mount value, with its span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountError {
    /// Span of the wrong word.
    pub span: Span,
    /// Message of the reference builder.
    pub message: String,
    /// Advice for the author, where the message is not enough.
    pub hint: Option<String>,
}

impl MountError {
    fn new(span: Span, message: impl Into<String>) -> MountError {
        MountError { span, message: message.into(), hint: None }
    }

    /// Diagnostic with the code `invalid-mount`.
    pub fn diagnostic(self) -> Diagnostic {
        let mut diagnostic = Diagnostic::error("invalid-mount", self.span, self.message);
        diagnostic.hints.extend(self.hint);
        diagnostic
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Splits a value at its commas; a field in double quotes may contain commas, and doubled quotes for quotes.
pub(crate) fn fields(value: &Text) -> Vec<Text> {
    let text = value.as_str();
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let rest = &text[start..];
        let next = match rest.strip_prefix('"').and_then(closing_quote) {
            Some(length) => {
                fields.push(without_doubled_quotes(value.slice(start + 1..start + 1 + length)));
                start + length + 2
            }
            None => {
                let length = rest.find(',').unwrap_or(rest.len());
                fields.push(value.slice(start..start + length));
                start + length
            }
        };
        match text[next..].find(',') {
            Some(comma) => start = next + comma + 1,
            None => return fields,
        }
    }
}

/// Offset of the first quote that is not doubled; `None` when there is none.
fn closing_quote(inner: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += inner[at..].find('"')?;
        if !inner[at + 1..].starts_with('"') {
            return Some(at);
        }
        at += 2;
    }
}

fn without_doubled_quotes(text: Text) -> Text {
    if !text.as_str().contains("\"\"") {
        return text;
    }
    let mut builder = TextBuilder::new();
    let mut start = 0;
    for (at, _) in text.as_str().match_indices("\"\"") {
        builder.push_text(&text, start..at + 1);
        start = at + 2;
    }
    builder.push_text(&text, start..text.len());
    builder.finish(text.span().start as usize)
}

/// Checks the parts of a mount that hold before variables are known: `from` takes none.
pub(crate) fn check(flag: &MountFlag) -> Result<(), MountError> {
    for field in &flag.fields {
        let (key, value) = split(field);
        let Some(value) = value.filter(|_| key == "from") else { continue };
        let dollar = value.as_str().find('$').filter(|at| at + 1 != value.as_str().len());
        if dollar.is_some() {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            return Err(MountError::new(value.span(), message));
        }
    }
    Ok(())
}

pub(crate) fn split(field: &Text) -> (String, Option<Text>) {
    let text = field.as_str();
    match text.find('=') {
        Some(equals) => (text[..equals].to_lowercase(), Some(field.slice(equals + 1..text.len()))),
        None => (text.to_lowercase(), None),
    }
}

/// Resolves a mount flag; `expand` returns each value with its variables expanded.
///
/// # Errors
/// Fails on an unknown or misplaced option, an invalid value, a missing target, and when `expand` fails.
pub fn resolve(
    flag: &MountFlag,
    expand: &mut dyn FnMut(&Text) -> Result<String, ExpandError>,
) -> Result<Mount, MountError> {
    let mut draft = Draft::new();
    for field in &flag.fields {
        let (key, value) = split(field);
        match value {
            None => draft.set_bare(&key, field)?,
            Some(value) => {
                let expanded =
                    expand(&value).map_err(|error| MountError::new(value.span(), error.message.clone()))?;
                draft.set(&key, field, &value, expanded)?;
            }
        }
    }
    draft.finish(flag.text.span())
}

struct Draft {
    mount: Mount,
    access_given: bool,
}

impl Draft {
    fn new() -> Draft {
        let mount = Mount {
            kind: MountKind::Bind,
            from: String::new(),
            source: String::new(),
            target: String::new(),
            readonly: true,
            size: 0,
            id: String::new(),
            sharing: None,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        };
        Draft { mount, access_given: false }
    }

    fn set_bare(&mut self, key: &str, field: &Text) -> Result<(), MountError> {
        match key {
            "readonly" | "ro" => self.set_access(true),
            "readwrite" | "rw" => self.set_access(false),
            "required" => {
                self.only_for(key, field, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = true;
            }
            _ => {
                let message = format!("invalid field '{}' must be a key=value pair", field.as_str());
                return Err(MountError::new(field.span(), message));
            }
        }
        Ok(())
    }

    fn set_access(&mut self, readonly: bool) {
        self.mount.readonly = readonly;
        self.access_given = true;
    }

    fn only_for(&self, key: &str, field: &Text, kinds: &[MountKind]) -> Result<(), MountError> {
        if kinds.contains(&self.mount.kind) {
            return Ok(());
        }
        let message = format!("unexpected key '{key}' for mount type '{}'", self.mount.kind.name());
        Err(MountError::new(field.span(), message))
    }

    fn set(&mut self, key: &str, field: &Text, word: &Text, value: String) -> Result<(), MountError> {
        let at = word.span();
        let invalid = |value: &str| MountError::new(at, format!("invalid value for {key}: {value}"));
        let invalid_number = |value: &str| MountError::new(at, format!("invalid value {value} for {key}"));
        match key {
            "type" => self.mount.kind = choose(&KINDS, &value, at, "mount type")?,
            "from" => self.mount.from = value,
            "source" | "src" => self.mount.source = value,
            "target" | "dst" | "destination" => self.mount.target = value,
            "readonly" | "ro" => self.set_access(go_bool(&value).ok_or_else(|| invalid(&value))?),
            "readwrite" | "rw" => self.set_access(!go_bool(&value).ok_or_else(|| invalid(&value))?),
            "required" => {
                self.only_for(key, field, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = go_bool(&value).ok_or_else(|| invalid(&value))?;
            }
            "size" => {
                self.only_for(key, field, &[MountKind::Tmpfs])?;
                self.mount.size = parse_bytes(&value).ok_or_else(|| invalid(&value))?;
            }
            "id" => self.mount.id = value,
            "sharing" => self.mount.sharing = Some(choose(&SHARING, &value, at, "sharing value")?),
            "mode" => {
                let mode = u32::from_str_radix(&value, 8).map_err(|_| invalid_number(&value))?;
                self.mount.mode = Some(mode);
            }
            "uid" => self.mount.uid = Some(id(&value).ok_or_else(|| invalid_number(&value))?),
            "gid" => self.mount.gid = Some(id(&value).ok_or_else(|| invalid_number(&value))?),
            "env" => self.mount.env = Some(value),
            _ => {
                let suggestion = did_you_mean(key, KEYS);
                let message = format!("unexpected key '{key}' in '{}'{suggestion}", field.as_str());
                return Err(MountError::new(field.span(), message));
            }
        }
        Ok(())
    }

    fn finish(mut self, span: Span) -> Result<Mount, MountError> {
        let mount = &mut self.mount;
        let fail = |message: String| Err(MountError::new(span, message));
        if matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs) {
            let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
            if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
                return fail(format!("{key} not allowed for \"{}\" type mounts", mount.kind.name()));
            }
        }
        if !self.access_given {
            mount.readonly = !matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        }
        if mount.kind == MountKind::Secret {
            if !mount.from.is_empty() {
                return fail("secret mount should not have a from".to_owned());
            }
            if mount.sharing.is_some() {
                return fail("secret mount should not define sharing".to_owned());
            }
            if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
                return fail("invalid secret mount. one of source, target required".to_owned());
            }
            if !mount.source.is_empty() && !mount.id.is_empty() {
                return fail("both source and id can't be set".to_owned());
            }
        }
        if mount.kind == MountKind::Ssh && !mount.source.is_empty() {
            return fail("ssh does not support source".to_owned());
        }
        if mount.sharing.is_some() && mount.kind != MountKind::Cache {
            return fail(format!("invalid cache sharing set for {} mount", mount.kind.name()));
        }
        Ok(self.mount)
    }
}

fn choose<T: Copy>(choices: &[(&str, T)], value: &str, at: Span, what: &str) -> Result<T, MountError> {
    let lower = value.to_lowercase();
    choices.iter().find(|(name, _)| *name == lower).map(|(_, choice)| *choice).ok_or_else(|| {
        let suggestion = did_you_mean(value, choices.iter().map(|(name, _)| *name));
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = suggestion.is_empty().then(|| format!("one of {}", names.join(", ")));
        MountError { hint, ..MountError::new(at, format!("unsupported {what} {value:?}{suggestion}")) }
    })
}

fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    suggest::nearest(word, candidates).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// Parses a uid or gid: digits alone. The largest 32-bit value, which means "no change" in the kernel's calls, is
/// accepted as in the reference.
fn id(value: &str) -> Option<u32> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

/// Parses a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn go_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Parses a number of bytes in powers of 1024, such as `64m`, `1.5GiB` or `100` (docker/go-units `RAMInBytes`); `None`
/// when the text is not a size.
pub fn parse_bytes(value: &str) -> Option<u64> {
    let digits_end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let number: f64 = value[..digits_end].parse().ok().filter(|_| !value.starts_with('.'))?;
    let unit = value[digits_end..].trim_start_matches(' ').to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    Some((number * 1024_f64.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_mount(value: &str, expected: Result<&dyn Fn(&Mount) -> bool, &str>) {
        let text = Text::verbatim(value, 0);
        let flag = MountFlag { fields: fields(&text), text };
        let result = resolve(&flag, &mut |word| Ok(word.as_str().to_owned()));
        match (&result, expected) {
            (Ok(mount), Ok(holds)) => assert!(holds(mount), "{value}: {mount:?}"),
            (Err(error), Err(message)) => assert_eq!(error.message, message, "{value}"),
            _ => panic!("{value}: {result:?}"),
        }
    }

    #[test]
    fn defaults_follow_the_type() {
        check_mount("target=/x", Ok(&|m| m.kind == MountKind::Bind && m.readonly));
        check_mount("type=cache,target=/x", Ok(&|m| !m.readonly && m.sharing.is_none()));
        check_mount("TYPE=Tmpfs,dst=/x,size=64m", Ok(&|m| m.size == 64 << 20 && !m.readonly));
        check_mount("type=bind,target=/x,rw", Ok(&|m| !m.readonly));
        check_mount("type=bind,target=/x,rw,ro=1", Ok(&|m| m.readonly));
        check_mount("type=secret,id=a,required,env=B", Ok(&|m| m.required && m.env.as_deref() == Some("B")));
        check_mount("type=cache,\"target=/a,\"\"b\",id=x", Ok(&|m| m.target == "/a,\"b" && m.id == "x"));
        check_mount("type=cache,\"target=/a,b\",mode=0700,uid=5", Ok(&|m| m.mode == Some(0o700)));
    }

    #[test]
    fn invalid_mounts_are_errors() {
        check_mount("type=bnd", Err("unsupported mount type \"bnd\" (did you mean bind?)"));
        check_mount("size=1,type=tmpfs", Err("unexpected key 'size' for mount type 'bind'"));
        check_mount(
            "type=cache,sharing=lockd",
            Err("unsupported sharing value \"lockd\" (did you mean locked?)"),
        );
        for wrong in ["4294967296", "+5", "-1", ""] {
            check_mount(
                &format!("type=cache,target=/a,gid={wrong}"),
                Err(&format!("invalid value {wrong} for gid")),
            );
        }
        check_mount("type=bind,uid=1", Err("uid not allowed for \"bind\" type mounts"));
        check_mount("type=secret", Err("invalid secret mount. one of source, target required"));
        check_mount("type=secret,id=a,src=b", Err("both source and id can't be set"));
        check_mount("type=bind,sharing=shared", Err("invalid cache sharing set for bind mount"));
        check_mount("target", Err("invalid field 'target' must be a key=value pair"));
        check_mount("targt=/x", Err("unexpected key 'targt' in 'targt=/x' (did you mean target?)"));
        check_mount("ro=maybe", Err("invalid value for ro: maybe"));
        check_mount("type=cache,mode=9", Err("invalid value 9 for mode"));
    }

    #[test]
    fn sizes_are_parsed() {
        assert_eq!(parse_bytes("1.5k"), Some(1536));
        assert_eq!(parse_bytes("2GiB"), Some(2 << 30));
        assert_eq!(parse_bytes("x"), None);
        assert_eq!(parse_bytes("1.2.3"), None);
    }
}
