//! Dump of a parsed Dockerfile: a line for each instruction and each diagnostic.

use kiln_parser::ast::{CommandLine, CopyOptions, CopySource, Healthcheck, Heredoc, Instruction, Kind, Run};
use kiln_parser::{Source, Text, parse};

/// Length in characters from which texts are truncated.
const MAX_TEXT: usize = 120;
/// Length in characters from which lines are truncated.
const MAX_LINE: usize = 500;

/// Dump of a file, in lines.
pub fn dump(bytes: &[u8]) -> Vec<String> {
    let source = Source::new("Dockerfile", bytes);
    let parse = parse(&source);
    let directives = &parse.file.directives;
    let mut lines = Vec::new();
    if directives.escape != '\\' {
        lines.push(format!("escape {}", directives.escape));
    }
    for (name, value) in [("syntax", &directives.syntax), ("check", &directives.check)] {
        lines.extend(value.iter().map(|value| format!("{name} {}", quoted(&value.value))));
    }
    for instruction in &parse.file.instructions {
        lines.push(self::instruction(instruction));
        lines.extend(instruction.heredocs.iter().map(heredoc));
    }
    for diagnostic in &parse.diagnostics {
        let line = diagnostic.one_line(&source);
        lines.push(line.strip_prefix("Dockerfile:").unwrap_or(&line).escape_debug().to_string());
        lines.extend(diagnostic.hints.iter().map(|hint| format!("  hint: {}", cut(hint))));
    }
    let plain = |line: String| line.replace("\\\"", "\"").replace("\\'", "'");
    lines.into_iter().map(|line| shortened(&plain(line), MAX_LINE).trim_end().to_owned()).collect()
}

fn cut(text: &str) -> String {
    shortened(text, MAX_TEXT)
}

fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}… {} bytes", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", cut(text).escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""))
}

fn word(text: &Text) -> String {
    quoted(text.as_str())
}

fn words<'a>(list: impl IntoIterator<Item = &'a Text>) -> String {
    list.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

fn optional(name: &str, text: Option<&Text>) -> String {
    text.map(|text| format!(" {name} {}", word(text))).unwrap_or_default()
}

fn instruction(instruction: &Instruction) -> String {
    match &instruction.kind {
        Kind::Invalid => format!("invalid {}", quoted(&cut(instruction.keyword.as_str()))),
        kind => format!("{} {}", instruction.keyword.as_str().to_lowercase(), self::kind(kind)),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::From(from) => {
            let (name, platform) = (optional("as", from.name.as_ref()), from.platform.as_ref());
            format!("{}{name}{}", word(&from.image), optional("platform", platform))
        }
        Kind::Run(run) => self::run(run),
        Kind::Cmd(line) | Kind::Entrypoint(line) => command(line),
        Kind::Copy(copy) => {
            let parents = if copy.parents { " parents" } else { "" };
            let from = optional("from", copy.from.as_ref());
            format!("{}{from}{parents}{}", transfer(&copy.sources, &copy.destination), options(&copy.options))
        }
        Kind::Add(add) => {
            let flag = |name: &str, value: Option<bool>| {
                value.map(|value| format!(" {name} {value}")).unwrap_or_default()
            };
            format!(
                "{}{}{}{}{}",
                transfer(&add.sources, &add.destination),
                options(&add.options),
                flag("keep-git-dir", add.keep_git_dir),
                optional("checksum", add.checksum.as_ref()),
                flag("unpack", add.unpack),
            )
        }
        Kind::Env(values) | Kind::Label(values) => {
            let pairs = values.pairs.iter().map(|pair| format!("{}={}", word(&pair.key), word(&pair.value)));
            let legacy = if values.legacy { "legacy " } else { "" };
            format!("{legacy}{}", pairs.collect::<Vec<_>>().join(" "))
        }
        Kind::Arg(items) => {
            let items = items.iter().map(|item| match &item.value {
                Some(value) => format!("{}={}", word(&item.key), word(value)),
                None => word(&item.key),
            });
            items.collect::<Vec<_>>().join(" ")
        }
        Kind::Expose(list) | Kind::Volume(list) | Kind::Shell(list) => words(list),
        Kind::User(text) | Kind::Workdir(text) | Kind::Maintainer(text) | Kind::Stopsignal(text) => {
            word(text)
        }
        Kind::Onbuild(onbuild) => {
            format!("{} = {}", quoted(&onbuild.trigger), self::kind(&onbuild.instruction))
        }
        Kind::Healthcheck(Healthcheck::None) => "none".to_owned(),
        Kind::Healthcheck(Healthcheck::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        }) => {
            let times = [
                ("interval", interval),
                ("timeout", timeout),
                ("start-period", start_period),
                ("start-interval", start_interval),
                ("retries", &i64::from(*retries)),
            ];
            let times = times.iter().filter(|(_, value)| **value != 0);
            let times: String = times.map(|(name, value)| format!(" {name} {value}")).collect();
            format!("{}{times}", self::command(command))
        }
        Kind::Invalid => "invalid".to_owned(),
    }
}

fn command(line: &CommandLine) -> String {
    match line {
        CommandLine::Shell(text) => format!("shell {}", word(text)),
        CommandLine::Exec(list) => format!("exec {}", words(list)).trim_end().to_owned(),
    }
}

fn run(run: &Run) -> String {
    let mut out = command(&run.command);
    for mount in &run.mounts {
        out.push_str(&format!(" mount [{}]", words(&mount.fields)));
    }
    out.push_str(&run.network.as_ref().map(|it| format!(" network {:?}", it.value)).unwrap_or_default());
    out.push_str(&run.security.as_ref().map(|it| format!(" security {:?}", it.value)).unwrap_or_default());
    for device in &run.devices {
        let required = if device.required { " required" } else { "" };
        out.push_str(&format!(" device {}{required}", word(&device.name)));
    }
    out
}

fn transfer(sources: &[CopySource], destination: &Text) -> String {
    let shown = sources.iter().map(|source| match source {
        CopySource::Path(path) => word(path),
        CopySource::Heredoc(index) => format!("<<{index}"),
    });
    format!("{} to {}", shown.collect::<Vec<_>>().join(" "), word(destination))
}

fn options(options: &CopyOptions) -> String {
    let mut out = optional("chown", options.chown.as_ref());
    out.push_str(&optional("chmod", options.chmod.as_ref()));
    if options.link {
        out.push_str(" link");
    }
    options.exclude.iter().for_each(|pattern| out.push_str(&format!(" exclude {}", word(pattern))));
    out
}

fn heredoc(heredoc: &Heredoc) -> String {
    let expand = if heredoc.expand { "" } else { " verbatim" };
    let tabs = if heredoc.strip_tabs { " tabs" } else { "" };
    let descriptor = match heredoc.descriptor {
        0 => String::new(),
        number => format!(" descriptor {number}"),
    };
    format!("  <<{}{descriptor}{tabs}{expand} {}", cut(&heredoc.name), quoted(&heredoc.content))
}
