//! Lints: rules about style and likely mistakes of a Dockerfile, one file for each rule.
//!
//! The rules of the reference builder have its names, messages and spans (moby/buildkit `frontend/dockerfile/linter`);
//! rules of our own have no documentation page there. A rule sees the tree and, where the caller has them, facts about
//! base images and the build.
//!
//! `# check=skip=A,B;error=true` at the head of a file, and `# check=skip=A` directly above an instruction, switch
//! rules off; with `error=true` findings fail the build.

mod add_instead_of_copy;
mod apt_get_update_alone;
mod arg_shadows_env;
mod cd_in_run;
mod consistent_instruction_casing;
mod copy_ignored_file;
mod copy_outside_context;
mod duplicate_stage_name;
mod expose_invalid_format;
mod expose_proto_casing;
mod from_as_casing;
mod from_platform_flag_const_disallowed;
mod heredoc_without_errexit;
mod invalid_base_image_platform;
mod invalid_default_arg_in_from;
mod invalid_definition_description;
mod json_args_recommended;
mod legacy_key_value_format;
mod maintainer_deprecated;
mod missing_cache_mount;
mod multiple_instructions_disallowed;
mod no_empty_continuation;
mod recursive_change_of_copied_files;
mod redundant_target_platform;
mod reference_name;
mod remote_add_without_checksum;
mod reserved_stage_name;
mod scope;
mod secrets_used_in_arg_or_env;
mod shell;
mod stage_name_casing;
#[cfg(test)]
mod testing;
mod undefined_arg_in_from;
mod undefined_var;
mod unpinned_base_image;
mod unused_arg;
mod unused_stage;
mod workdir_relative_path;

use crate::Parse;
use crate::ast::{Dockerfile, From, Instruction, Kind};
use crate::diagnostic::{Diagnostic, Severity};
use crate::expand::{self, Budget, BudgetedVariables, Rules};
use crate::ignore::Patterns;
use crate::mount::go_bool;
use crate::source::Source;
use crate::span::Span;
use crate::stages::{StageSlice, split};
use std::collections::{BTreeMap, BTreeSet};

/// Address under which the reference builder's rules are documented.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// A lint rule and its function.
pub struct Rule {
    /// Name of the rule, as in `skip=`.
    pub name: &'static str,
    /// Description in one sentence.
    pub summary: &'static str,
    /// Last part of the page's address, empty when there is no page; `None` for rules of our own.
    page: Option<&'static str>,
    check: fn(&View<'_>, &mut Findings),
}

/// All rules; those of the reference builder come first.
pub static RULES: [&Rule; 34] = [
    &stage_name_casing::RULE,
    &from_as_casing::RULE,
    &no_empty_continuation::RULE,
    &consistent_instruction_casing::RULE,
    &duplicate_stage_name::RULE,
    &reserved_stage_name::RULE,
    &json_args_recommended::RULE,
    &maintainer_deprecated::RULE,
    &invalid_default_arg_in_from::RULE,
    &undefined_arg_in_from::RULE,
    &undefined_var::RULE,
    &workdir_relative_path::RULE,
    &multiple_instructions_disallowed::RULE,
    &legacy_key_value_format::RULE,
    &invalid_base_image_platform::RULE,
    &redundant_target_platform::RULE,
    &secrets_used_in_arg_or_env::RULE,
    &from_platform_flag_const_disallowed::RULE,
    &copy_ignored_file::RULE,
    &invalid_definition_description::RULE,
    &expose_proto_casing::RULE,
    &expose_invalid_format::RULE,
    &add_instead_of_copy::RULE,
    &apt_get_update_alone::RULE,
    &arg_shadows_env::RULE,
    &cd_in_run::RULE,
    &copy_outside_context::RULE,
    &heredoc_without_errexit::RULE,
    &recursive_change_of_copied_files::RULE,
    &remote_add_without_checksum::RULE,
    &unpinned_base_image::RULE,
    &unused_stage::RULE,
    &unused_arg::RULE,
    &missing_cache_mount::RULE,
];

/// Rules that run only when `experimental=` at the head of a file names them.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

impl Rule {
    /// Address of the rule's documentation; `None` for rules of our own and rules without a page.
    pub fn url(&self) -> Option<String> {
        self.page.filter(|page| !page.is_empty()).map(|page| format!("{PAGES}{page}/"))
    }

    /// True for rules that the reference builder does not have.
    pub fn is_extension(&self) -> bool {
        self.page.is_none()
    }

    fn findings(&'static self, view: &View<'_>) -> Vec<Diagnostic> {
        let mut findings = Findings { rule: self, list: Vec::new() };
        (self.check)(view, &mut findings);
        findings.list
    }
}

/// Rule with that name, ignoring case; `None` when there is none.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.name.eq_ignore_ascii_case(name))
}

/// Findings of one rule.
struct Findings {
    rule: &'static Rule,
    list: Vec<Diagnostic>,
}

impl Findings {
    fn add(&mut self, span: Span, message: impl Into<String>) {
        self.list.push(Diagnostic::warning(self.rule.name, span, message));
    }

    /// Adds a hint to the last finding.
    fn hint(&mut self, hint: impl Into<String>) {
        if let Some(last) = self.list.last_mut() {
            last.hints.push(hint.into());
        }
    }
}

/// A file as seen by rules.
struct View<'a> {
    source: &'a Source,
    file: &'a Dockerfile,
    diagnostics: &'a [Diagnostic],
    stages: Vec<Stage<'a>>,
    facts: &'a Facts,
}

/// A FROM and the instructions after it.
struct Stage<'a> {
    instruction: &'a Instruction,
    from: &'a From,
    /// Stage name in lower case, as look-ups compare it.
    name: Option<String>,
    /// Image of FROM in lower case, to be compared with stage names.
    base: String,
    body: &'a [Instruction],
}

impl<'a> View<'a> {
    fn new(parse: &'a Parse, source: &'a Source, facts: &'a Facts) -> View<'a> {
        let stages = split(&parse.file).into_iter().map(|StageSlice { instruction, from, body }| Stage {
            instruction,
            from,
            name: from.stage_name(),
            base: from.image.as_str().to_lowercase(),
            body,
        });
        View { source, file: &parse.file, diagnostics: &parse.diagnostics, stages: stages.collect(), facts }
    }

    /// All instructions from the first FROM on.
    fn in_stages(&self) -> impl Iterator<Item = &'a Instruction> {
        self.stages.iter().flat_map(|stage| std::iter::once(stage.instruction).chain(stage.body))
    }

    /// Values of the ARGs above the first FROM, empty where they have none, and of the predefined variables.
    fn global_arguments(&self) -> BTreeMap<String, String> {
        self.global_arguments_with(&self.facts.build_args)
    }

    /// Values of the global ARGs, given these `--build-arg` values.
    fn global_arguments_with(&self, build_args: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        const PREDEFINED: [&str; 8] = [
            "BUILDPLATFORM",
            "BUILDOS",
            "BUILDARCH",
            "BUILDVARIANT",
            "TARGETPLATFORM",
            "TARGETOS",
            "TARGETARCH",
            "TARGETVARIANT",
        ];
        let mut values: BTreeMap<String, String> =
            PREDEFINED.iter().map(|name| ((*name).to_owned(), "predefined".to_owned())).collect();
        let before = self.file.instructions.iter().take_while(|i| !matches!(i.kind, Kind::From(_)));
        let budget = Budget::default();
        for instruction in before {
            let Kind::Arg(items) = &instruction.kind else { continue };
            for item in items {
                let name = item.key.as_str();
                let default = item.value.as_ref().map_or("", |value| value.as_str());
                let rules = Rules::value(self.file.directives.escape);
                let limited = BudgetedVariables { variables: &values, budget: &budget };
                let default =
                    || expand::expand(default, &limited, rules).map(|e| e.value).unwrap_or_default();
                let value = build_args.get(name).cloned().unwrap_or_else(default);
                values.insert(name.to_owned(), value);
            }
        }
        values
    }
}

/// Facts about the build that are not in the file.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Patterns of the context's ignore file; `None` when the context is unknown.
    pub ignore: Option<Patterns>,
    /// `--build-arg` values by name.
    pub build_args: BTreeMap<String, String>,
    /// Base images by stage number; images that were not looked up are missing.
    pub bases: BTreeMap<usize, BaseFacts>,
    /// Numbers of the stages that are built; `None` for all.
    pub built: Option<BTreeSet<usize>>,
}

/// Facts about a base image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseFacts {
    /// Variables of the image's config.
    pub environment: BTreeMap<String, String>,
    /// Platform of the image and requested platform, when they differ.
    pub platform: Option<(String, String)>,
    /// Whether the image's config sets a shell for commands in shell form.
    pub has_shell: bool,
}

/// Effect of a rule's findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The rule does not run.
    Off,
    /// Findings are printed as warnings.
    Warning,
    /// Findings fail the build.
    Error,
}

/// Selection of the rules to run.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Whether rules that the reference builder does not have run, too.
    pub own: bool,
    /// Levels other than warning, by rule name in lower case. They override the settings in the file.
    pub levels: BTreeMap<String, Level>,
}

/// Rules about the file as a whole, whichever stages are built.
const WHOLE_FILE: [&str; 12] = [
    "StageNameCasing",
    "FromAsCasing",
    "NoEmptyContinuation",
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "ReservedStageName",
    "MaintainerDeprecated",
    "InvalidDefaultArgInFrom",
    "UndefinedArgInFrom",
    "RedundantTargetPlatform",
    "FromPlatformFlagConstDisallowed",
    "InvalidDefinitionDescription",
];

/// Settings from the `# check=` directive of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Names of rules that are off.
    pub skip: BTreeSet<String>,
    /// Whether all rules are off.
    pub skip_all: bool,
    /// Names of experimental rules that are on.
    pub experimental: BTreeSet<String>,
    /// Whether findings fail the build.
    pub error: bool,
}

impl Settings {
    /// Parses `skip=A,B;error=true;experimental=C`. Unknown options are ignored.
    pub fn parse(text: &str) -> Settings {
        let mut settings = Settings::default();
        for part in text.split(';') {
            let Some((key, value)) = part.split_once('=') else { continue };
            let names =
                || value.split(',').map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty());
            match key.trim() {
                "skip" => {
                    settings.skip_all |= names().any(|name| name == "all");
                    settings.skip.extend(names());
                }
                "experimental" => settings.experimental.extend(names()),
                "error" => {
                    settings.error = go_bool(value.trim()) == Some(true);
                }
                _ => {}
            }
        }
        settings
    }

    fn skips(&self, rule: &Rule) -> bool {
        self.skip_all || self.skip.contains(&rule.name.to_lowercase())
    }

    fn wants(&self, rule: &Rule) -> bool {
        let on = |name: &str| self.experimental.contains(&name.to_lowercase());
        match EXPERIMENTAL.contains(&rule.name) {
            // A rule that is asked for by name runs, whatever is skipped.
            true => on(rule.name) || on("all"),
            false => !self.skips(rule),
        }
    }
}

/// Findings of all rules, in file order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Findings; their codes are names of rules.
    pub findings: Vec<Diagnostic>,
    /// Settings from the head of the file.
    pub settings: Settings,
}

/// Runs the selected rules over a file.
pub fn lint(parse: &Parse, source: &Source, facts: &Facts, choice: &Choice) -> Report {
    let directive = parse.file.directives.check.as_ref();
    let mut settings = directive.map(|check| Settings::parse(&check.value)).unwrap_or_default();
    if let Some(given) = facts.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        settings = Settings::parse(given);
    }
    let view = View::new(parse, source, facts);
    let mut findings = Vec::new();
    for rule in RULES.iter().filter(|rule| choice.own || !rule.is_extension()) {
        let level = choice.levels.get(&rule.name.to_lowercase()).copied();
        let is_wanted = level.map_or_else(|| settings.wants(rule), |level| level != Level::Off);
        if !is_wanted {
            continue;
        }
        let mut found = rule.findings(&view);
        found.retain(|finding| view.is_built(rule, finding) && !is_skipped(&parse.file, finding));
        if settings.error || level == Some(Level::Error) {
            found.iter_mut().for_each(|finding| finding.severity = Severity::Error);
        }
        findings.append(&mut found);
    }
    // Within a line, findings have the order of the rules: that of the reference builder.
    findings.sort_by_key(|finding| source.position(finding.span.start as usize).line);
    Report { findings, settings }
}

impl View<'_> {
    /// False for findings in stages that are not built.
    fn is_built(&self, rule: &Rule, finding: &Diagnostic) -> bool {
        let Some(built) = self.facts.built.as_ref().filter(|_| !WHOLE_FILE.contains(&rule.name)) else {
            return true;
        };
        let stage = self.stages.partition_point(|stage| stage.instruction.span.start <= finding.span.start);
        stage.checked_sub(1).is_none_or(|stage| built.contains(&stage))
    }
}

impl Report {
    /// Names of the rules that fail the build, each once, in the order of the findings.
    pub fn violations(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for finding in self.findings.iter().filter(|finding| finding.severity == Severity::Error) {
            if !names.contains(&finding.code) {
                names.push(finding.code);
            }
        }
        names
    }
}

/// True when a comment directly above the instruction skips the rule.
fn is_skipped(file: &Dockerfile, finding: &Diagnostic) -> bool {
    let start = finding.span.start as usize;
    let at = file.instructions.partition_point(|instruction| instruction.span.start as usize <= start);
    let Some(instruction) = at.checked_sub(1).and_then(|at| file.instructions.get(at)) else { return false };
    let options = instruction.comments.iter().find_map(|comment| check_options(&comment.value));
    options.zip(rule(finding.code)).is_some_and(|(options, rule)| Settings::parse(options).skips(rule))
}

/// Options of a comment `check=OPTIONS reason`; the reason after the blank is ignored.
fn check_options(comment: &str) -> Option<&str> {
    let (key, value) = comment.split_once('=')?;
    let value = value.trim_start();
    key.trim().eq_ignore_ascii_case("check").then(|| value.split(' ').next().unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let source = Source::new("Dockerfile", text);
        let report = lint(&crate::parse(&source), &source, &Facts::default(), &Choice::default());
        report.findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn rules_are_switched_off_and_on() {
        assert_eq!(names("FROM a AS B\nMAINTAINER c\n"), ["StageNameCasing", "MaintainerDeprecated"]);
        assert_eq!(
            names("# check=skip=StageNameCasing\nFROM a AS B\nMAINTAINER c\n"),
            ["MaintainerDeprecated"]
        );
        assert_eq!(names("# check=skip=all\nFROM a AS B\nMAINTAINER c\n"), [""; 0]);
        assert_eq!(
            names("FROM a AS B\n# check=skip=MaintainerDeprecated\nMAINTAINER c\n"),
            ["StageNameCasing"]
        );
        let with_reason =
            "# MAINTAINER\n# Check = skip=MaintainerDeprecated // tools read it\nMAINTAINER c\n";
        assert_eq!(names(&format!("FROM a\n{with_reason}")), [""; 0]);
        assert_eq!(names("FROM a\n# check=skip=JSONArgsRecommended,\n# more\nCMD c\n"), [""; 0]);
        assert_eq!(names("# words\nARG A\nFROM a\n"), [""; 0]);
        let experimental = "# check=skip=all;experimental=all\n\n# words\nARG A\nFROM a\n";
        assert_eq!(names(experimental), ["InvalidDefinitionDescription"]);
    }

    #[test]
    fn levels_and_stages_are_chosen() {
        let text = "FROM a AS b\nCMD c\nMAINTAINER d\nFROM e\nCMD f\n";
        let source = Source::new("Dockerfile", text);
        let facts = Facts { built: Some(BTreeSet::from([1])), ..Facts::default() };
        let levels = BTreeMap::from([("jsonargsrecommended".to_owned(), Level::Error)]);
        let choice = Choice { levels, ..Choice::default() };
        let report = lint(&crate::parse(&source), &source, &facts, &choice);
        let lines: Vec<usize> =
            report.findings.iter().map(|it| source.position(it.span.start as usize).line).collect();
        assert_eq!(lines, [3, 5]);
        assert_eq!(report.violations(), ["JSONArgsRecommended"]);
        let levels = BTreeMap::from([("jsonargsrecommended".to_owned(), Level::Off)]);
        let report = lint(&crate::parse(&source), &source, &facts, &Choice { levels, own: false });
        assert_eq!(report.findings.len(), 1);
    }

    #[test]
    fn settings_are_read() {
        let settings = Settings::parse("skip=A, b;error=true;other=1");
        assert!(settings.error && !settings.skip_all);
        assert_eq!(settings.skip, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
    }
}
