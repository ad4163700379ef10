//! Published test vectors of the projects that define the language. Each file in `testdata/vectors` names its source;
//! deviations are listed here with their reasons.

#![allow(clippy::disallowed_methods, reason = "tests read files")]

use kiln_parser::ast::{CommandLine, CopySource, Healthcheck, Instruction, Kind};
use kiln_parser::expand::{self, Rules};
use kiln_parser::git::{self, GitReference, Mtime};
use kiln_parser::ignore::Patterns;
use kiln_parser::{Parse, Source, Text, parse, port};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn load(name: &str) -> Value {
    let path = format!("{}/../testdata/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

fn strings(value: &Value) -> Vec<String> {
    list(value).iter().map(|item| text(item).to_owned()).collect()
}

fn variables(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), text(value).to_owned())).collect()
}

/// Mismatches, collected so that one run shows all of them.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &dyn std::fmt::Display,
        found: T,
        expected: T,
    ) {
        if found != expected {
            self.0.push(format!("{what}\n    found    {found:?}\n    expected {expected:?}"));
        }
    }

    /// Compares an error; `error` must be part of its message, and is empty for any message.
    fn compare_error<T: std::fmt::Debug>(&mut self, case: &Value, found: Result<T, String>, error: &str) {
        match found {
            Err(message) if message.contains(error) => {}
            other => self.0.push(format!("{case}\n    found    {other:?}\n    expected an error {error:?}")),
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} do not hold:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

fn read(text: &str) -> (Source, Parse) {
    let source = Source::new("Dockerfile", text);
    let parse = parse(&source);
    (source, parse)
}

/// Error messages of a file that need not begin with FROM.
fn errors(parse: &Parse) -> Vec<&str> {
    let errors = parse.errors().filter(|error| error.code != "no-stage" && error.code != "no-from");
    errors.map(|error| error.message.as_str()).collect()
}

#[test]
fn expansion_follows_the_reference() {
    let mut failures = Failures::default();
    let file = load("expansion");
    let env = variables(&file["env"]);
    for case in list(&file["cases"]) {
        let found = expand::expand(text(&case["word"]), &env, Rules::value('\\'));
        let found = found.map(|expansion| expansion.value).map_err(|error| error.message);
        match case.get("error") {
            Some(error) => failures.compare_error(case, found, text(error)),
            None => failures.compare(case, found, Ok(text(&case["expected"]).to_owned())),
        }
    }
}

#[test]
fn word_splitting_follows_the_reference() {
    let mut failures = Failures::default();
    for case in list(&load("words")["cases"]) {
        let found = expand::expand_words(text(&case["word"]), &variables(&case["env"]), Rules::value('\\'));
        let found = found.map(|expansion| expansion.value.into_iter().map(|word| word.text).collect());
        let found: Result<Vec<String>, String> = found.map_err(|error| error.message);
        match case.get("error") {
            Some(error) => failures.compare_error(case, found, text(error)),
            None => failures.compare(case, found, Ok(strings(&case["words"]))),
        }
    }
}

#[test]
fn lexing_follows_the_reference() {
    let mut failures = Failures::default();
    for case in list(&load("lexer")["cases"]) {
        let found = expand::expand(text(&case["word"]), &variables(&case["env"]), Rules::value('\\'));
        if let Some(error) = case.get("error") {
            let found = found.map(|expansion| expansion.value).map_err(|error| error.message);
            failures.compare_error(case, found, text(error));
            continue;
        }
        let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
        failures.compare(case, found.value, text(&case["expected"]).to_owned());
        for (field, names) in [("matched", found.read), ("unmatched", found.missed)] {
            if let Some(expected) = case.get(field) {
                failures.compare(case, names, strings(expected).into_iter().collect::<BTreeSet<_>>());
            }
        }
    }
}

/// Invalid patterns of `${x#p}`. The table lists the reference's regular expressions; Kiln has none, and the strings
/// that patterns match are in the tables above. For the same reason nothing is reversed.
#[test]
fn invalid_globs_are_refused() {
    let mut failures = Failures::default();
    for case in list(&load("globs")["cases"]) {
        // The pattern is a variable's value, so that the lexer does not change it.
        let env = BTreeMap::from([
            ("p".to_owned(), text(&case["glob"]).to_owned()),
            ("x".to_owned(), "value".to_owned()),
        ]);
        let found = expand::expand("${x#$p}", &env, Rules::value('\\'));
        failures.compare(case, found.is_err(), case.get("error").is_some());
    }
}

#[test]
fn ignore_patterns_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("ignore");
    let cases = list(&file["cases"]).iter().filter(|case| case["table"] != "compile");
    for case in cases {
        let patterns = strings(&case["patterns"]);
        let wants_error = case.get("error").is_some_and(|error| error != false);
        let compiled = Patterns::compile(patterns.iter().map(String::as_str));
        // An invalid pattern is refused when it is compiled, not when it first meets a path.
        failures.compare(case, compiled.is_err(), wants_error);
        let Ok(compiled) = compiled else { continue };
        if let Some(exclusions) = case.get("exclusions") {
            failures.compare(case, compiled.has_exceptions(), exclusions == true);
        }
        let Some(expected) = case.get("matches") else { continue };
        let path = text(&case["path"]);
        failures.compare(case, compiled.decide_without_parent(path).is_ignored(), expected == true);
    }
}

#[test]
fn ignore_files_follow_the_reference() {
    let mut failures = Failures::default();
    for case in list(&load("ignorefile")["cases"]) {
        // The reference accepts a lone `!` and fails later; Kiln fails at once.
        let expected = strings(&case["patterns"]);
        let found = Patterns::parse(text(&case["text"])).map(|_| ()).map_err(|error| error.message);
        let wanted = match expected.iter().any(|pattern| pattern == "!") {
            true => Err("illegal exclusion pattern: \"!\""),
            false => Ok(()),
        };
        failures.compare(case, found, wanted);
    }
}

#[test]
fn ports_follow_the_reference() {
    let mut failures = Failures::default();
    for case in list(&load("expose")["cases"]) {
        let ports = strings(&case["ports"]);
        let found: Result<Vec<Vec<String>>, _> =
            ports.iter().map(|word| port::container_ports(word)).collect();
        let found = found.map(|ports| ports.concat()).map_err(|error| error.to_string());
        match case.get("error") {
            Some(error) => failures.compare_error(case, found, text(error)),
            None => failures.compare(case, found, Ok(strings(&case["expected"]))),
        }
    }
}

#[test]
fn git_references_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("git");
    for case in list(&file["cases"]) {
        let found = GitReference::parse(text(&case["url"]));
        if case.get("not_git").is_some() {
            failures.compare(case, found.is_some(), false);
            continue;
        }
        let Some(found) = found else {
            failures.0.push(format!("{case}: is no reference"));
            continue;
        };
        if let Some(error) = case.get("error_contains") {
            failures.compare_error(case, found.map_err(|error| error.to_string()), text(error));
            continue;
        }
        let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
        let fields = [
            ("remote", found.remote),
            ("short_name", found.short_name),
            ("ref", found.reference),
            ("subdir", found.subdir),
            ("checksum", found.checksum),
            (
                "mtime",
                found.mtime.map_or("", |m| if m == Mtime::Commit { "commit" } else { "checkout" }).to_owned(),
            ),
            ("fetch_by_commit", found.fetch_by_commit.to_string()),
            ("unencrypted_tcp", found.unencrypted.to_string()),
            ("indistinguishable_from_local", found.looks_local.to_string()),
        ];
        for (field, value) in fields {
            let expected = case[field].as_str().map_or_else(|| case[field].to_string(), str::to_owned);
            failures.compare(&format!("{case} {field}"), value, expected);
        }
    }
    for case in list(&file["fragments"]) {
        let address = text(&case["url"]);
        let found = GitReference::parse(address).and_then(Result::ok);
        failures.compare(case, found.is_some(), case["ok"] == true);
        let with_subdir = case["with_subdir"] == true;
        let shown = found.map_or(address.to_owned(), |found| found.fragment_form(with_subdir));
        failures.compare(case, shown, text(&case["expected"]).to_owned());
    }
    for case in list(&file["commits"]) {
        failures.compare(case, git::is_commit(text(&case["commit"])), case["expected"] == true);
    }
}

/// Each word of the table is tested on a separate line.
#[test]
fn heredoc_words_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("heredocs");
    for case in list(&file["words"]) {
        let word = text(&case["word"]);
        let name = case["heredoc"]["name"].as_str();
        let body = name.map(|name| format!("{name}\n")).unwrap_or_default();
        let (_, parse) = read(&format!("RUN {word}\n{body}"));
        let found: Vec<&str> =
            parse.file.instructions[0].heredocs.iter().map(|heredoc| heredoc.name.as_str()).collect();
        // `<<EOF sh` is not a word but a line, whose first word announces a body. `<<- EOF` is two words, neither of
        // which does.
        let expected = match word {
            "<<EOF sh" => Some("EOF"),
            "<<- EOF" => None,
            _ => name,
        };
        failures.compare(case, found, expected.into_iter().collect());
    }
    for case in list(&file["lines"]) {
        let names = if case["line"] == "RUN <<- EOF" { vec![] } else { strings(&case["heredocs"]) };
        let (_, parse) = read(&format!("{}\n{}\n", text(&case["line"]), names.join("\n")));
        let found = &parse.file.instructions[0].heredocs;
        let found: Vec<String> = found.iter().map(|heredoc| heredoc.name.clone()).collect();
        failures.compare(case, found, names);
    }
}

#[test]
fn heredoc_bodies_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("heredocs");
    for case in list(&file["files"]) {
        let (_, parse) = read(text(&case["dockerfile"]));
        let first = usize::try_from(case["first"].as_u64().unwrap_or(0)).unwrap_or(0);
        for (index, expected) in list(&case["heredocs"]).iter().enumerate() {
            let instruction = &parse.file.instructions[first + index];
            let found: Vec<Value> = instruction
                .heredocs
                .iter()
                .map(|it| {
                    serde_json::json!({"name": it.name, "content": it.content, "expand": it.expand,
                        "chomp": it.strip_tabs, "fd": it.descriptor})
                })
                .collect();
            failures.compare(&instruction.line.as_str(), Value::Array(found), expected.clone());
        }
    }
    for case in list(&file["copy"]) {
        let (_, parse) = read(text(&case["dockerfile"]));
        let instruction = &parse.file.instructions[0];
        let Kind::Copy(copy) = &instruction.kind else { panic!("{case}") };
        failures.compare(case, copy.destination.as_str(), text(&case["dest"]));
        let (mut paths, mut contents) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            match source {
                CopySource::Path(path) => paths.push(path.as_str().to_owned()),
                CopySource::Heredoc(index) => {
                    let heredoc = &instruction.heredocs[*index];
                    contents.push(serde_json::json!({"path": heredoc.name, "data": heredoc.text(),
                        "expand": heredoc.expand}));
                }
            }
        }
        failures.compare(case, paths, strings(&case["sources"]));
        failures.compare(case, Value::Array(contents), case["contents"].clone());
    }
    for case in list(&file["run"]) {
        let (_, parse) = read(text(&case["dockerfile"]));
        let instruction = &parse.file.instructions[0];
        let Kind::Run(run) = &instruction.kind else { panic!("{case}") };
        let (is_shell, words) = command(&run.command);
        failures.compare(case, is_shell, case["shell"] == true);
        failures.compare(case, words, strings(&case["command"]));
        let files = instruction
            .heredocs
            .iter()
            .map(|it| serde_json::json!({"name": it.name, "data": it.content, "chomp": it.strip_tabs}));
        failures.compare(case, Value::Array(files.collect()), case["files"].clone());
    }
    for case in list(&file["errors"]) {
        let (_, parse) = read(text(&case["dockerfile"]));
        failures.compare(case, errors(&parse), vec![text(&case["error"])]);
    }
}

fn command(line: &CommandLine) -> (bool, Vec<String>) {
    match line {
        CommandLine::Shell(text) => (true, vec![text.as_str().to_owned()]),
        CommandLine::Exec(words) => (false, words.iter().map(|word| word.as_str().to_owned()).collect()),
    }
}

/// Files of the first parser test in its notation: `(keyword ["--flag"] "argument" …)` for each line.
#[test]
fn files_follow_the_reference() {
    /// Words that the reference's first stage accepts and its second refuses; Kiln parses in one stage.
    const REFUSED: [(&str, &[&str]); 6] = [
        ("args", &[]),
        (
            "flags",
            &[
                "unknown flag: --user",
                "unknown flag: --doit",
                "unknown flag: --user",
                "unknown flag: --doit",
                "unknown flag: --doit",
                "unknown flag: --doit",
                "unknown flag: --doit",
                "unknown flag: --doit",
            ],
        ),
        (
            "health",
            &[
                "HEALTHCHECK requires at least one argument",
                "Missing command after HEALTHCHECK CMD",
                "Unknown type \"CONNECT\" in HEALTHCHECK (try CMD)",
            ],
        ),
        ("env", &[]),
        ("json", &[]),
        ("lk4d4-the-edge-case-generator", &[]),
    ];
    let mut failures = Failures::default();
    for case in list(&load("parser")["cases"]) {
        let name = text(&case["name"]);
        let (source, parse) = read(text(&case["dockerfile"]));
        assert_eq!(parse.file.print(&source), source.bytes(), "{name}");
        if case.get("negative").is_some() {
            failures.compare(&name, parse.errors().next().is_some(), true);
            continue;
        }
        let refused = REFUSED.iter().find(|(refused, _)| *refused == name).map_or(&[][..], |(_, list)| list);
        failures.compare(&name, errors(&parse), refused.to_vec());
        let lines = text(&case["result"]).lines().filter(|line| !line.is_empty());
        for (instruction, expected) in parse.file.instructions.iter().zip(lines) {
            // The tree has parsed flags instead of their text.
            let flags = expected
                .find(" [")
                .zip(expected.find("] "))
                .filter(|(from, _)| !expected[..*from].contains('"'));
            let bare = flags.map(|(from, to)| format!("{}{}", &expected[..from], &expected[to + 1..]));
            if instruction.kind != Kind::Invalid {
                failures.compare(&name, sexpr(instruction), bare.unwrap_or(expected.to_owned()));
            }
        }
    }
}

/// Formats an instruction in the notation of the table.
fn sexpr(instruction: &Instruction) -> String {
    let keyword = instruction.keyword.as_str().to_lowercase();
    let escape = |word: &str| go_quoted(word);
    let words = |list: &[Text]| list.iter().map(|word| escape(word.as_str())).collect::<Vec<_>>();
    format!(
        "({keyword}{})",
        shown(&instruction.kind, &words).into_iter().map(|word| format!(" {word}")).collect::<String>()
    )
}

fn shown(kind: &Kind, words: &dyn Fn(&[Text]) -> Vec<String>) -> Vec<String> {
    let of_command = |line: &CommandLine| match line {
        CommandLine::Shell(text) => words(std::slice::from_ref(text)),
        CommandLine::Exec(list) => words(list),
    };
    let of_sources = |sources: &[CopySource], destination: &Text| {
        let paths = sources.iter().filter_map(|source| match source {
            CopySource::Path(path) => Some(path.clone()),
            CopySource::Heredoc(_) => None,
        });
        words(&paths.chain([destination.clone()]).collect::<Vec<_>>())
    };
    match kind {
        Kind::From(from) => words(std::slice::from_ref(&from.image)),
        Kind::Run(run) => of_command(&run.command),
        Kind::Cmd(line) | Kind::Entrypoint(line) => of_command(line),
        Kind::Copy(copy) => of_sources(&copy.sources, &copy.destination),
        Kind::Add(add) => of_sources(&add.sources, &add.destination),
        Kind::Env(values) | Kind::Label(values) => {
            let separator = if values.legacy { "\"\"" } else { "\"=\"" };
            let pairs = values.pairs.iter().flat_map(|pair| {
                let mut pair = words(&[pair.key.clone(), pair.value.clone()]);
                pair.push(separator.to_owned());
                pair
            });
            pairs.collect()
        }
        Kind::Arg(items) => items
            .iter()
            .map(|item| {
                let value =
                    item.value.as_ref().map(|value| format!("={}", value.as_str())).unwrap_or_default();
                go_quoted(&format!("{}{value}", item.key.as_str()))
            })
            .collect(),
        Kind::Expose(list) | Kind::Volume(list) | Kind::Shell(list) => words(list),
        Kind::User(one) | Kind::Workdir(one) | Kind::Maintainer(one) | Kind::Stopsignal(one) => {
            words(std::slice::from_ref(one))
        }
        Kind::Onbuild(onbuild) => {
            let keyword = onbuild.trigger.split_whitespace().next().unwrap_or_default().to_lowercase();
            let inner = shown(&onbuild.instruction, words);
            vec![format!(
                "({keyword}{})",
                inner.into_iter().map(|word| format!(" {word}")).collect::<String>()
            )]
        }
        Kind::Healthcheck(Healthcheck::None) => vec!["\"NONE\"".to_owned()],
        Kind::Healthcheck(Healthcheck::Command { command, .. }) => {
            [vec!["\"CMD\"".to_owned()], of_command(command)].concat()
        }
        Kind::Invalid => vec!["invalid".to_owned()],
    }
}

/// Quotes a word as Go's `strconv.Quote` does, for the characters in the table.
fn go_quoted(word: &str) -> String {
    let mut quoted = String::from("\"");
    for character in word.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\0' => quoted.push_str("\\x00"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[test]
fn lines_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("lines");
    for case in list(&file["cases"]) {
        let (source, parse) = read(text(&case["dockerfile"]));
        let line = |offset: u32| source.position(offset as usize).line;
        let found = parse.file.instructions.iter().map(|it| vec![line(it.span.start), line(it.span.end)]);
        failures.compare(case, serde_json::json!(found.collect::<Vec<_>>()), case["lines"].clone());
    }
    for case in list(&file["warnings"]) {
        let (source, parse) = read(text(&case["dockerfile"]));
        let warned: BTreeSet<&str> = parse
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.code == "empty-continuation")
            .filter_map(|diagnostic| {
                let mut all = parse.file.instructions.iter();
                all.find(|it| it.span.contains(diagnostic.span.start as usize))
            })
            .map(|instruction| source.slice(instruction.span).lines().next().unwrap_or_default())
            .collect();
        failures.compare(case, warned.len(), list(&case["warnings"]).len());
        for (found, warning) in warned.iter().rev().zip(list(&case["warnings"])) {
            let expected = strings(&warning["short_contains"]).pop().unwrap_or_default();
            failures.compare(
                case,
                found.starts_with(expected.split(" \\").next().unwrap_or_default().trim_end())
                    || expected.contains(found.trim_end_matches(" \\")),
                true,
            );
        }
    }
    for case in list(&file["long_lines"]) {
        let count = usize::try_from(case["count"].as_u64().unwrap_or(0)).unwrap_or(0);
        let long = text(&case["repeat"]).repeat(count);
        let (_, parse) = read(&format!("{}{long}{}", text(&case["prefix"]), text(&case["suffix"])));
        failures.compare(case, errors(&parse), vec![text(&case["error"])]);
    }
}

#[test]
fn directives_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("directives");
    for case in list(&file["cases"]) {
        let (_, parse) = read(text(&case["dockerfile"]));
        let directives = &parse.file.directives;
        failures.compare(
            case,
            directives.escape.to_string(),
            text(&case["directives"][0]["value"]).to_owned(),
        );
        failures.compare(case, directives.syntax.is_none() && directives.check.is_none(), true);
    }
    for case in list(&file["detect"]) {
        let dockerfile = text(&case["dockerfile"]);
        // Files of other languages that name their frontend in a different way: their first line is an unknown
        // instruction.
        if case["key"] == "syntax" && (dockerfile.contains("//syntax") || dockerfile.starts_with('{')) {
            assert!(!errors(&read(dockerfile).1).is_empty(), "{case}");
            continue;
        }
        let (_, parse) = read(dockerfile);
        let directives = &parse.file.directives;
        let found = if case["key"] == "syntax" { &directives.syntax } else { &directives.check };
        failures.compare(case, found.is_some(), case["found"] == true);
        if let (Some(found), Some(value)) = (found, case.get("value")) {
            failures.compare(case, found.value.split(' ').next().unwrap_or_default(), text(value));
        }
    }
}

#[test]
fn json_form_follows_the_reference() {
    let mut failures = Failures::default();
    for case in list(&load("json")["cases"]) {
        let (_, parse) = read(&format!("CMD {}\n", text(&case["json"])));
        match &parse.file.instructions[0].kind {
            Kind::Cmd(line) => failures.compare(case, command(line).1, strings(&case["words"])),
            _ => failures.compare(case, errors(&parse), vec![text(&case["error"])]),
        }
    }
}

#[test]
fn instructions_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("instructions");
    for case in list(&file["cases"]) {
        let (_, parse) = read(text(&case["dockerfile"]));
        let found = errors(&parse).first().copied().unwrap_or_default().to_owned();
        let expected = text(&case["error"]);
        let holds = if case["whole"] == true { found == expected } else { found.contains(expected) };
        failures.compare(case, (holds, found.as_str()), (true, found.as_str()));
    }
    for case in list(&file["no_panic"]) {
        let (source, parse) = read(text(&case["dockerfile"]));
        assert_eq!(parse.file.print(&source), source.bytes());
    }
    for case in list(&file["intervals"]) {
        let (_, parse) = read(&format!("HEALTHCHECK --interval={} CMD x", text(&case["value"])));
        match case.get("error") {
            Some(error) => failures.compare(case, errors(&parse)[0].contains(text(error)), true),
            None => failures.compare(case, errors(&parse), vec![]),
        }
    }
    for case in list(&file["name_values"]) {
        let (_, parse) = read(&format!("{} {}", text(&case["command"]), text(&case["text"])));
        match case.get("error") {
            Some(error) => failures.compare(case, errors(&parse), vec![text(error)]),
            None => {
                let words: Vec<String> = strings(&case["words"]).iter().map(|word| go_quoted(word)).collect();
                let expected = format!("(label {})", words.join(" "));
                failures.compare(case, sexpr(&parse.file.instructions[0]), expected);
            }
        }
    }
    for case in list(&file["parse_words"]) {
        let (_, parse) = read(&format!("ARG {}", text(&case["text"])));
        let words: Vec<String> = strings(&case["words"]).iter().map(|word| go_quoted(word)).collect();
        failures.compare(case, sexpr(&parse.file.instructions[0]), format!("(arg {})", words.join(" ")));
    }
    for case in list(&file["devices"]) {
        let (_, parse) = read(&format!("RUN --device={} x", text(&case["device"])));
        match (&parse.file.instructions[0].kind, case.get("error")) {
            (_, Some(error)) => failures.compare(case, errors(&parse), vec![text(error)]),
            (Kind::Run(run), None) => {
                let device = &run.devices[0];
                failures.compare(case, device.name.as_str(), text(&case["name"]));
                failures.compare(case, device.required, case["required"] == true);
            }
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn descriptions_follow_the_reference() {
    let mut failures = Failures::default();
    let file = load("instructions");
    let case = &file["comments"][0];
    let (_, parse) = read(text(&case["dockerfile"]));
    let all = &parse.file.instructions;
    let doc = |index: usize, name: &str| all[index].description(name).unwrap_or_default().to_owned();
    let stage = &case["stages"][0];
    let arguments: Vec<&Value> = list(&stage["commands"]).iter().flat_map(|it| list(&it["args"])).collect();
    failures.compare(case, doc(0, "foo"), text(&case["meta_args"][0]["doc"]).to_owned());
    failures.compare(case, doc(1, "base"), text(&stage["doc"]).to_owned());
    for (index, argument) in [2, 3, 3].into_iter().zip(arguments) {
        failures.compare(argument, doc(index, text(&argument["name"])), text(&argument["doc"]).to_owned());
    }
}
