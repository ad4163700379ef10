//! Plans of containers as text, compared with golden files: `runtime/testdata/plans.cases`.
//!
//! A case changes the default specification and request; its golden lines are the changes of the default plan. No plan
//! is carried out, so no privileges are needed. `BLESS=1` writes the lines anew.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_runtime::container::{
    Affinity, Cgroups, DeviceNodes, Entry, ExecMethod, Filter, Gate, Home, Identity, Keyring, LineEnds,
    Modules, ParentWork, Pivot, ProgramFile, Request, SupplementaryGroups, Terminal,
};
use kiln_runtime::op::{ConsoleSize, FdSlot};
use kiln_runtime::plan::plan;
use kiln_runtime::spec;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/plans.cases");

/// A case: its name, changes, and golden lines.
struct Case {
    name: String,
    /// A merge patch (RFC 7396) of the specification, in which `key+` appends to a list.
    patch: Value,
    /// Keywords for the request, see [`request`].
    words: Vec<String>,
    expected: String,
}

fn read(text: &str) -> Vec<Case> {
    let blocks = text.split("\n== ").skip(1);
    let case = |block: &str| {
        let (name, rest) = block.split_once('\n').unwrap_or((block, ""));
        let mut case =
            Case { name: name.to_owned(), patch: Value::Null, words: Vec::new(), expected: String::new() };
        for line in rest.lines() {
            if let Some(patch) = line.strip_prefix("spec ") {
                case.patch = serde_json::from_str(patch).unwrap_or_else(|error| panic!("{name}: {error}"));
            } else if let Some(words) = line.strip_prefix("request ") {
                case.words = words.split(' ').map(str::to_owned).collect();
            } else if !line.is_empty() {
                case.expected += line;
                case.expected.push('\n');
            }
        }
        case
    };
    blocks.map(case).collect()
}

fn base() -> Value {
    let mut value = serde_json::to_value(spec::default("/store/root".into())).unwrap();
    value["process"]["args"] = serde_json::json!(["/bin/true"]);
    value["process"]["env"] = serde_json::json!(["PATH=/bin"]);
    value
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    for (key, value) in patch {
        match (key.strip_suffix('+'), value) {
            (Some(key), Value::Array(more)) => {
                if !target[key].is_array() {
                    target[key] = Value::Array(Vec::new());
                }
                target[key].as_array_mut().unwrap().extend(more.iter().cloned());
            }
            (_, Value::Null) => {
                target.as_object_mut().unwrap().remove(key);
            }
            _ => merge(&mut target[key], value),
        }
    }
}

/// Request with the settings of the keywords.
fn request<'a>(
    words: &'a [String],
    nodes: &'a mut Vec<(PathBuf, FdSlot)>,
    sources: &'a mut Vec<(usize, FdSlot)>,
) -> Request<'a> {
    let mut request = Request::default();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let slot = || FdSlot(value.parse().unwrap());
        match name {
            "network" => request.network = Some(slot()),
            "born-in" => request.cgroups.born_in = Some(slot()),
            "bound" => request.devices = DeviceNodes::Bound,
            "exclusive" => request.devices = DeviceNodes::Exclusive,
            "waits" => request.parent = request.parent.and(ParentWork::START),
            "cgroups" => request.parent = request.parent.and(ParentWork::CGROUPS),
            "device-rules" => request.parent = request.parent.and(ParentWork::DEVICES),
            "filter-follows" => request.parent = request.parent.and(ParentWork::FILTER),
            "hooks" => request.parent = request.parent.and(ParentWork::HOOKS),
            "gate" => request.gate = Some(Gate { socket: slot(), finds_program: false }),
            "gate-finds" => request.gate = Some(Gate { socket: slot(), finds_program: true }),
            "move" => request.pivot = Pivot::Move,
            "keep-keyring" => request.keyring = Keyring::Caller,
            "any-processor" => request.affinity = Affinity::Any,
            "size" => {
                let (columns, rows) = value.split_once('x').unwrap();
                request.terminal.size =
                    ConsoleSize { columns: columns.parse().unwrap(), rows: rows.parse().unwrap() };
            }
            "plain" => request.terminal = Terminal { lines: LineEnds::Plain, ..request.terminal },
            "user" => request.identity.user = Some(value),
            "home" => request.identity.home = Home::Looked,
            "keep-groups" => request.identity.groups = SupplementaryGroups::Caller,
            "default-filter" => request.identity.filter = Filter::Default,
            "selinux" => request.identity.modules = Modules { selinux: true, ..request.identity.modules },
            "apparmor" => request.identity.modules = Modules { apparmor: true, ..request.identity.modules },
            "kept" => request.program = ProgramFile { kept_fds: value.parse().unwrap(), ..request.program },
            "by-handle" => request.program = ProgramFile { run: ExecMethod::Handle, ..request.program },
            "self-entry" => request.cgroups = Cgroups { entry: Entry::BySelf, ..request.cgroups },
            "bundle" => request.bundle = Some(Path::new(value)),
            "node" => {
                let (path, slot) = value.split_once(':').unwrap();
                nodes.push((path.into(), FdSlot(slot.parse().unwrap())));
            }
            "source" => {
                let (index, slot) = value.split_once(':').unwrap();
                sources.push((index.parse().unwrap(), FdSlot(slot.parse().unwrap())));
            }
            other => panic!("unknown word {other}"),
        }
    }
    request.nodes = nodes;
    request.sources = sources;
    let _: Identity<'_> = request.identity;
    request
}

/// The plan as text, or the error.
fn printed(patch: &Value, words: &[String]) -> String {
    let mut value = base();
    merge(&mut value, patch);
    let spec = match serde_json::from_value(value) {
        Ok(spec) => spec,
        Err(error) => return format!("unreadable: {error}\n"),
    };
    let (mut nodes, mut sources) = Default::default();
    match plan(&spec, &request(words, &mut nodes, &mut sources)) {
        Ok(plan) => plan.to_string(),
        Err(error) => format!("refused: {error}\n"),
    }
}

/// Lines that `new` lacks (`-`) or adds (`+`), in order; a refusal unchanged.
fn changes(old: &str, new: &str) -> String {
    if new.starts_with("refused: ") || new.starts_with("unreadable: ") {
        return new.to_owned();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // Length of the longest common subsequence of the lines from each pair of positions on.
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            writeln!(text, "- {}", old[i]).unwrap();
            i += 1;
        } else {
            writeln!(text, "+ {}", new[j]).unwrap();
            j += 1;
        }
    }
    if text.is_empty() { "no change\n".to_owned() } else { text }
}

#[test]
fn plans_are_as_recorded() {
    let text = std::fs::read_to_string(CASES).unwrap();
    let head = text.split("\n== ").next().unwrap().to_owned();
    let default = printed(&Value::Null, &[]);
    let mut blessed = head;
    let mut wrong = String::new();
    let cases = read(&text);
    for case in &cases {
        let plan = match case.name.as_str() {
            "default" => default.lines().map(|line| format!("  {line}\n")).collect(),
            _ => changes(&default, &printed(&case.patch, &case.words)),
        };
        assert!(!plan.contains("{ "), "{}: an operation has no text: {plan}", case.name);
        if plan != case.expected {
            writeln!(wrong, "== {}\nrecorded:\n{}now:\n{plan}", case.name, case.expected).unwrap();
        }
        write!(blessed, "\n== {}\n", case.name).unwrap();
        if !case.patch.is_null() {
            writeln!(blessed, "spec {}", case.patch).unwrap();
        }
        if !case.words.is_empty() {
            writeln!(blessed, "request {}", case.words.join(" ")).unwrap();
        }
        blessed += &plan;
    }
    assert!(cases.len() >= 120, "{} cases", cases.len());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(CASES, blessed).unwrap();
    } else {
        assert!(wrong.is_empty(), "BLESS=1 records these:\n{wrong}");
    }
}
