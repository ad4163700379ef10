//! `--format`: Go templates over the output of a command, with Docker's functions.

pub mod typed;

use crate::error::CliError;
use crate::{text, ui};
use gotmpl::{MissingKey, Template, TemplateError, Value};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Format of a list.
pub enum Format {
    /// Table of the default columns.
    Table,
    /// One JSON object per line.
    Json,
    /// Template for each row.
    Rows(Template),
    /// Table with a template for its rows, and the heads of its columns.
    TableOf(Template, Vec<String>),
}

impl Format {
    /// Reads the value of `--format`. `head` has the heads of columns by field name; `R` is the type of the rows, whose
    /// fields a template may name.
    ///
    /// # Errors
    ///
    /// Fails when the template cannot be parsed or names a field that rows do not have, so that a list without rows fails
    /// like one with rows.
    pub fn read<R: Serialize + Default>(
        text: Option<&str>,
        head: &[(&str, &str)],
    ) -> Result<Format, CliError> {
        match text.map(unescape).as_deref() {
            None | Some("table" | "") => Ok(Format::Table),
            Some("json") => Ok(Format::Json),
            Some(text) => match text.strip_prefix("table ") {
                Some(rows) => {
                    let rows = without_methods(rows);
                    Ok(Format::TableOf(checked::<R>(&rows)?, heads(&rows, head)?))
                }
                None => Ok(Format::Rows(checked::<R>(&without_methods(text))?)),
            },
        }
    }

    /// True when the text of `--format` names a field, outside of the default table.
    pub fn names(text: Option<&str>, field: &str) -> bool {
        text.is_some_and(|text| text.contains(&format!(".{field}")))
    }

    /// Prints rows; `usual` returns the table that is shown without `--format`.
    ///
    /// # Errors
    ///
    /// Fails when the template cannot be executed.
    pub fn print<T: Serialize>(&self, rows: &[T], usual: impl FnOnce() -> String) -> Result<(), CliError> {
        self.print_labelled(rows, |_| None, usual)
    }

    /// Prints rows like [`Format::print`]; templates may ask for labels by `.Label "NAME"`.
    ///
    /// # Errors
    ///
    /// Fails when the template cannot be executed.
    pub fn print_labelled<T: Serialize>(
        &self,
        rows: &[T],
        labels: impl Fn(&T) -> Option<&BTreeMap<String, String>>,
        usual: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let text = self.show(rows, labels, usual)?;
        match self {
            Format::Table | Format::TableOf(..) => ui::print(&text),
            Format::Json | Format::Rows(_) => ui::data(&text),
        }
        Ok(())
    }

    /// Returns the text of rows; `usual` returns the table that is shown without `--format`.
    fn show<T: Serialize>(
        &self,
        rows: &[T],
        labels: impl Fn(&T) -> Option<&BTreeMap<String, String>>,
        usual: impl FnOnce() -> String,
    ) -> Result<String, CliError> {
        let line = |template: &Template, row: &T| {
            let value = gotmpl::to_value(row).map_err(|error| failed(&error))?;
            execute(template, &with_labels(value, labels(row)))
        };
        let lines =
            |template: &Template| rows.iter().map(|row| line(template, row)).collect::<Result<_, _>>();
        match self {
            Format::Table => Ok(usual()),
            Format::Json => Ok(rows.iter().map(|row| json_of(row) + "\n").collect()),
            Format::Rows(template) => {
                let lines: Vec<String> = lines(template)?;
                Ok(lines.into_iter().map(|line| line + "\n").collect())
            }
            Format::TableOf(template, head) => {
                let lines: Vec<String> = lines(template)?;
                let cut = |line: &String| -> Vec<String> {
                    let mut cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
                    cells.resize(head.len(), String::new());
                    cells
                };
                let rows: Vec<Vec<String>> = lines.iter().map(cut).collect();
                let head: Vec<&str> = head.iter().map(String::as_str).collect();
                Ok(text::table(&head, &rows))
            }
        }
    }
}

/// Parses a template with Docker's functions.
///
/// # Errors
///
/// Fails when the template cannot be parsed.
pub fn template(source: &str) -> Result<Template, CliError> {
    Template::new("")
        .missing_key(MissingKey::Error)
        .func("json", |arguments| Ok(string(arguments.first().map_or_else(|| "null".to_owned(), to_json))))
        .func("join", |arguments| {
            let separator = argument(arguments, 1);
            let items = match arguments.first() {
                Some(Value::List(items)) => items.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            };
            Ok(string(items.join(&separator)))
        })
        .func("split", |arguments| {
            let (text, separator) = (argument(arguments, 0), argument(arguments, 1));
            Ok(Value::List(text.split(&separator).map(|part| string(part.to_owned())).collect()))
        })
        .func("index", |arguments| match arguments.split_first() {
            Some((value, keys)) => index(value, keys),
            None => Ok(Value::Nil),
        })
        .func("label", |arguments| Ok(string(label(arguments.first(), &argument(arguments, 1)))))
        .func("lower", |arguments| Ok(string(argument(arguments, 0).to_lowercase())))
        .func("upper", |arguments| Ok(string(argument(arguments, 0).to_uppercase())))
        .func("title", |arguments| Ok(string(title(&argument(arguments, 0)))))
        .func("pad", |arguments| {
            let blanks = |at: usize| " ".repeat(argument(arguments, at).parse().unwrap_or(0));
            Ok(string(format!("{}{}{}", blanks(1), argument(arguments, 0), blanks(2))))
        })
        .func("truncate", |arguments| {
            let length = argument(arguments, 1).parse().unwrap_or(usize::MAX);
            Ok(string(argument(arguments, 0).chars().take(length).collect()))
        })
        .parse(source)
        .map_err(|error| {
            CliError::failed(format!("template parsing error: {error}"))
                .hint("--format takes a Go template such as '{{.ID}}', or `json`, or `table …`")
        })
}

/// Parses a template for rows of type `R`, and checks that its fields and functions exist.
fn checked<R: Serialize + Default>(source: &str) -> Result<Template, CliError> {
    let template = template(source)?;
    let value = gotmpl::to_value(&R::default()).map_err(|error| failed(&error))?;
    match template.execute_to_string(&value) {
        Err(
            error @ (TemplateError::MissingKey { .. }
            | TemplateError::UndefinedFunction(_)
            | TemplateError::UndefinedTemplate(_)
            | TemplateError::UndefinedVariable(_)),
        ) => Err(failed_on(&value, &error)),
        // Other errors may be due to the empty row, such as `index` beyond the end of a list.
        _ => Ok(template),
    }
}

/// Executes a template.
///
/// # Errors
///
/// Fails when the template names a field that the value does not have, or a function fails.
pub fn render<T: Serialize>(template: &Template, value: &T) -> Result<String, CliError> {
    execute(template, &gotmpl::to_value(value).map_err(|error| failed(&error))?)
}

fn execute(template: &Template, value: &Value) -> Result<String, CliError> {
    template.execute_to_string(value).map_err(|error| failed_on(value, &error))
}

/// Key of a row's labels, which only the function `label` sees.
const LABELS: &str = "\u{4}";

fn with_labels(value: Value, labels: Option<&BTreeMap<String, String>>) -> Value {
    let (Value::Map(fields), Some(labels)) = (&value, labels) else { return value };
    let labels = labels.iter().map(|(name, text)| (Arc::from(name.as_str()), string(text.clone()))).collect();
    let mut fields = fields.as_ref().clone();
    fields.insert(Arc::from(LABELS), Value::Map(Arc::new(labels)));
    Value::Map(Arc::new(fields))
}

/// Value of a row's label; of what is no row, the head of the column (docker/cli `formatter.SubHeaderContext`).
fn label(row: Option<&Value>, name: &str) -> String {
    match row {
        Some(Value::Map(fields)) if let Some(Value::Map(labels)) = fields.get(LABELS) => {
            labels.get(name).map(ToString::to_string).unwrap_or_default()
        }
        _ => name.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " "),
    }
}

/// Replaces the method call `.Label "NAME"` of Docker's rows by a call of the function `label`: values of templates have
/// no methods here.
fn without_methods(source: &str) -> String {
    const METHOD: &str = ".Label";
    let mut out = String::new();
    let (mut in_action, mut quote) = (false, None);
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        let follows = |text: &str| rest.starts_with(text);
        let is_call = || rest[METHOD.len()..].starts_with(char::is_whitespace) && !out.ends_with([')', '$']);
        if in_action && quote.is_none() && follows(METHOD) && is_call() {
            out.push_str("label .");
            rest = &rest[METHOD.len()..];
            continue;
        }
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '`') if in_action => quote = Some(character),
            (None, '{') if follows("{{") => in_action = true,
            (None, '}') if follows("}}") => in_action = false,
            _ => {}
        }
        out.push(character);
        rest = &rest[character.len_utf8()..];
    }
    out
}

fn failed(error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("template parsing error: template: {error}"))
}

/// Error of a template, with the fields of the value.
fn failed_on(value: &Value, error: &TemplateError) -> CliError {
    let names = match value {
        Value::Map(map) => map.keys().filter(|key| key.as_ref() != LABELS).map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let failed = match error {
        TemplateError::MissingKey { key } => failed(&format!("map has no entry for key {key:?}")),
        error => failed(error),
    };
    failed.hint(format!("fields: {}", names.join(", ")))
}

/// Serializes a value as one line of JSON.
pub fn json_of<T: Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&kiln_image::json::to_vec(value)).into_owned()
}

/// Returns the heads of a table: the names of the fields between the tabs.
fn heads(rows: &str, known: &[(&str, &str)]) -> Result<Vec<String>, CliError> {
    let map: BTreeMap<&str, &str> = known.iter().copied().collect();
    let line = render(&template(rows)?, &map)?;
    Ok(line.split('\t').map(str::to_owned).collect())
}

/// Replaces `\t` and `\n`, which shells pass on as two characters.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn string(text: String) -> Value {
    Value::String(text.into())
}

fn argument(arguments: &[Value], at: usize) -> String {
    arguments.get(at).map(ToString::to_string).unwrap_or_default()
}

fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn to_json(value: &Value) -> String {
    typed::json(value).unwrap_or_else(|| json_of(&json_value(value)))
}

/// Go's `index`. A missing key of a map of strings is the empty string.
fn index(value: &Value, keys: &[Value]) -> Result<Value, gotmpl::TemplateError> {
    let wrong = |what: String| Err(gotmpl::TemplateError::Exec(what));
    let Some((key, rest)) = keys.split_first() else { return Ok(value.clone()) };
    let item = match (value, key) {
        (Value::Map(map), Value::String(key)) => match map.get(key.as_ref()) {
            Some(item) => item.clone(),
            None if map.values().all(|item| matches!(item, Value::String(_))) => string(String::new()),
            None => Value::Nil,
        },
        (Value::List(list), Value::Int(at)) => match usize::try_from(*at).ok().and_then(|at| list.get(at)) {
            Some(item) => item.clone(),
            None => return wrong(format!("error calling index: index out of range: {at}")),
        },
        (other, key) => return wrong(format!("error calling index: cannot index {other} by {key}")),
    };
    index(&item, rest)
}

fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text) => text.as_ref().into(),
        Value::List(items) => items.iter().map(json_value).collect(),
        Value::Map(map) => map
            .iter()
            .filter(|(key, _)| key.as_ref() != LABELS)
            .map(|(key, value)| (key.to_string(), json_value(value)))
            .collect(),
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn rows() -> Vec<BTreeMap<&'static str, &'static str>> {
        vec![BTreeMap::from([("ID", "1"), ("Name", "a<b")]), BTreeMap::from([("ID", "22"), ("Name", "c")])]
    }

    #[derive(Default, Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Row {
        #[serde(rename = "ID")]
        id: String,
        name: String,
    }

    fn check(format: &str, expected: &str) {
        let format = Format::read::<Row>(Some(format), &[("ID", "THE ID"), ("Name", "NAME")]).unwrap();
        assert_eq!(format.show(&rows(), |_| None, String::new).unwrap(), expected);
    }

    #[test]
    fn rows_are_shown_as_asked() {
        check("{{.ID}}:{{.Name}}", "1:a<b\n22:c\n");
        check("{{.ID | upper}}\\t{{json .Name}}", "1\t\"a\\u003cb\"\n22\t\"c\"\n");
        check("json", "{\"ID\":\"1\",\"Name\":\"a\\u003cb\"}\n{\"ID\":\"22\",\"Name\":\"c\"}\n");
        check("table {{.ID}}\\t{{.Name}}", "THE ID    NAME\n1         a<b\n22        c\n");
    }

    #[test]
    fn labels_are_asked_for_by_name() {
        let labels = BTreeMap::from([("a.b-c".to_owned(), "x".to_owned())]);
        let show = |text: &str| {
            let format = Format::read::<Row>(Some(text), &[("ID", "ID"), ("Name", "NAME")]).unwrap();
            format.show(&rows()[..1], |_| Some(&labels), String::new).unwrap()
        };
        assert_eq!(show("{{.Label \"a.b-c\"}}|{{.Label \"no\"}}|{{\".Label \"}}"), "x||.Label \n");
        assert_eq!(show("table {{.ID}}\\t{{.Label \"a.b-c\" | upper}}"), "ID        B C\n1         X\n");
        assert_eq!(show("{{if .Label \"a.b-c\"}}yes{{end}} .Label"), "yes .Label\n");
        assert_eq!(show("{{json .}}"), "{\"ID\":\"1\",\"Name\":\"a\\u003cb\"}\n");
    }

    #[test]
    fn mistakes_are_explained() {
        assert!(Format::read::<Row>(Some("{{.ID"), &[]).is_err());
        for wrong in ["{{.Nope}}", "{{nope .ID}}", "table {{.ID}}\\t{{.Nope}}"] {
            let error = Format::read::<Row>(Some(wrong), &[("ID", "ID"), ("Nope", "NOPE")]).err().unwrap();
            assert!(matches!(error, CliError::Failed { hints, .. } if hints[0] == "fields: ID, Name"));
        }
        // The second part of a name that the empty row does not have.
        assert!(Format::read::<Row>(Some("{{index (split .Name \"/\") 1}}"), &[]).is_ok());
    }
}
