//! Values of Docker's types, made of the JSON output of a command: every field is present, and absent ones have the zero
//! value of their type.
//!
//! Templates see what Docker's see: names of Go's fields, `<nil>` for a pointer to nothing, `[]` for no list, a struct
//! in braces without names. The template engine knows lists and maps only, so a struct is a map with three more
//! keys: its text, its JSON, and a last one. [`plain`] replaces such maps in the printed text.

use gotmpl::Value;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Key of a struct's text, as Go prints it.
const TEXT: &str = "\u{1}";
/// Key of a struct's JSON.
const JSON: &str = "\u{2}";
/// Prefix of keys that sort after all names.
const LAST: &str = "\u{10ffff}";
/// End of a struct's text.
const END: &str = "\u{3}";

/// No list, other than an empty one.
static NO_LIST: LazyLock<Arc<[Value]>> = LazyLock::new(|| Arc::from(Vec::new()));
/// No map, other than an empty one.
static NO_MAP: LazyLock<Arc<BTreeMap<Arc<str>, Value>>> = LazyLock::new(Arc::default);
/// Text of an empty struct.
static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("{}"));

/// The types of a Go package: `Name` begins a struct, `Field type` or `Field=JsonName type` follow, with `omit` where
/// zero values are left out of JSON, and `@Name` for the fields of another struct.
pub struct Types(BTreeMap<&'static str, Vec<&'static str>>);

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    /// A `string` of Go.
    Text(String),
    /// A `bool` of Go.
    Bool(bool),
    /// Any of Go's integers.
    Int(i64),
    /// `time.Time`, in RFC 3339.
    Time(String),
    /// The empty `struct{}` of Go.
    Empty,
    /// A slice `[]T` of Go; `None` for nil.
    List(Option<Vec<Typed>>),
    /// A `map[string]T` of Go; `None` for nil.
    Map(Option<BTreeMap<String, Typed>>),
    /// A pointer `*T` of Go; `None` for nil.
    Pointer(Option<Box<Typed>>),
    /// A struct's fields in order.
    Struct(Vec<Field>),
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    name: &'static str,
    json: &'static str,
    omit: bool,
    is_embedded: bool,
    value: Typed,
}

impl Types {
    /// Reads the description of types.
    pub fn read(text: &'static str) -> Types {
        let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut current = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.starts_with(' ') {
                true => types.entry(current).or_default().push(line.trim()),
                false => current = line,
            }
        }
        Types(types)
    }

    /// Converts JSON to a value of a type.
    pub fn value(&self, kind: &'static str, json: Option<&Json>) -> Typed {
        let json = json.filter(|json| !json.is_null());
        if let Some(kind) = kind.strip_prefix('*') {
            return Typed::Pointer(json.map(|json| Box::new(self.value(kind, Some(json)))));
        }
        if let Some(kind) = kind.strip_prefix("[]") {
            let items = json.and_then(Json::as_array);
            return Typed::List(
                items.map(|items| items.iter().map(|it| self.value(kind, Some(it))).collect()),
            );
        }
        if let Some(kind) = kind.strip_prefix("map:") {
            let items = json.and_then(Json::as_object).map(|items| {
                items.iter().map(|(key, item)| (key.clone(), self.value(kind, Some(item)))).collect()
            });
            return Typed::Map(items);
        }
        let text = || json.and_then(Json::as_str).unwrap_or_default().to_owned();
        match kind {
            "string" => Typed::Text(text()),
            "bool" => Typed::Bool(json.and_then(Json::as_bool).unwrap_or_default()),
            "int" => Typed::Int(json.and_then(Json::as_i64).unwrap_or_default()),
            "time" => Typed::Time(text()),
            "empty" => Typed::Empty,
            name => {
                let fields = self.0.get(name).into_iter().flatten();
                Typed::Struct(fields.map(|line| self.field(line, json)).collect())
            }
        }
    }

    fn field(&self, line: &'static str, json: Option<&Json>) -> Field {
        if let Some(name) = line.strip_prefix('@') {
            return Field { name, json: name, omit: false, is_embedded: true, value: self.value(name, json) };
        }
        let mut parts = line.split(' ');
        let names = parts.next().unwrap_or_default();
        let (name, json_name) = names.split_once('=').unwrap_or((names, names));
        let kind = parts.next().unwrap_or("string");
        let value = self.value(kind, json.and_then(|json| json.get(json_name)));
        Field { name, json: json_name, omit: parts.next() == Some("omit"), is_embedded: false, value }
    }
}

impl Typed {
    /// Converts the value for the template engine.
    pub fn to_value(&self) -> Value {
        match self {
            Typed::Text(text) => Value::String(text.as_str().into()),
            Typed::Bool(value) => Value::Bool(*value),
            Typed::Int(value) => Value::Int(*value),
            Typed::Empty => Value::String(Arc::clone(&EMPTY)),
            Typed::List(None) => Value::List(Arc::clone(&NO_LIST)),
            Typed::List(Some(items)) => Value::List(items.iter().map(Typed::to_value).collect()),
            Typed::Map(None) => Value::Map(Arc::clone(&NO_MAP)),
            Typed::Map(Some(items)) => {
                let items = items.iter().map(|(key, item)| (Arc::from(key.as_str()), item.to_value()));
                Value::Map(Arc::new(items.collect()))
            }
            Typed::Pointer(None) => Value::Nil,
            Typed::Pointer(Some(value)) => value.to_value(),
            Typed::Time(_) | Typed::Struct(_) => Value::Map(Arc::new(self.with_text())),
        }
    }

    fn with_text(&self) -> BTreeMap<Arc<str>, Value> {
        let mut map = BTreeMap::new();
        self.add_fields(&mut map);
        for (key, text) in
            [(TEXT, format!("{self}{END}")), (JSON, super::json_of(self)), (LAST, END.to_owned())]
        {
            map.insert(Arc::from(key), Value::String(text.into()));
        }
        map
    }

    fn add_fields(&self, map: &mut BTreeMap<Arc<str>, Value>) {
        let Typed::Struct(fields) = self else { return };
        for field in fields {
            map.insert(Arc::from(field.name), field.value.to_value());
            if field.is_embedded {
                field.value.add_fields(map);
            }
        }
    }

    /// True for values that `omitempty` leaves out.
    fn is_zero(&self) -> bool {
        match self {
            Typed::Text(text) => text.is_empty(),
            Typed::Bool(value) => !value,
            Typed::Int(value) => *value == 0,
            Typed::List(items) => items.as_ref().is_none_or(Vec::is_empty),
            Typed::Map(items) => items.as_ref().is_none_or(BTreeMap::is_empty),
            Typed::Pointer(value) => value.is_none(),
            Typed::Time(_) | Typed::Empty | Typed::Struct(_) => false,
        }
    }

    fn serialize_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let Typed::Struct(fields) = self else { return Ok(()) };
        for field in fields {
            match field.is_embedded {
                true => field.value.serialize_fields(map)?,
                false if field.omit && field.value.is_zero() => {}
                false => map.serialize_entry(field.json, &field.value)?,
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Typed {
    /// Formats the value like Go's `fmt`, with pointers followed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spaced = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
        match self {
            Typed::Text(text) => f.write_str(text),
            Typed::Bool(value) => write!(f, "{value}"),
            Typed::Int(value) => write!(f, "{value}"),
            Typed::Time(time) => write!(f, "{} +0000 UTC", time.trim_end_matches('Z').replace('T', " ")),
            Typed::Empty => f.write_str("{}"),
            Typed::List(items) => {
                write!(f, "[{}]", spaced(&mut items.iter().flatten().map(ToString::to_string)))
            }
            Typed::Map(items) => {
                let mut items = items.iter().flatten().map(|(key, item)| format!("{key}:{item}"));
                write!(f, "map[{}]", spaced(&mut items))
            }
            Typed::Pointer(None) => f.write_str("<nil>"),
            Typed::Pointer(Some(value)) => write!(f, "{value}"),
            Typed::Struct(fields) => {
                write!(f, "{{{}}}", spaced(&mut fields.iter().map(|field| field.value.to_string())))
            }
        }
    }
}

impl Serialize for Typed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Typed::Text(text) | Typed::Time(text) => serializer.serialize_str(text),
            Typed::Bool(value) => serializer.serialize_bool(*value),
            Typed::Int(value) => serializer.serialize_i64(*value),
            Typed::Empty => serializer.serialize_map(Some(0))?.end(),
            Typed::List(items) => items.serialize(serializer),
            Typed::Map(items) => items.serialize(serializer),
            Typed::Pointer(value) => value.serialize(serializer),
            Typed::Struct(_) => {
                let mut map = serializer.serialize_map(None)?;
                self.serialize_fields(&mut map)?;
                map.end()
            }
        }
    }
}

/// JSON of a value that a template passes to `json`; `None` where it follows from the shape of the value.
pub(super) fn json(value: &Value) -> Option<String> {
    match value {
        Value::List(items) if Arc::ptr_eq(items, &NO_LIST) => Some("null".to_owned()),
        Value::Map(items) if Arc::ptr_eq(items, &NO_MAP) => Some("null".to_owned()),
        Value::String(text) if Arc::ptr_eq(text, &EMPTY) => Some("{}".to_owned()),
        Value::Map(items) => match items.get(JSON) {
            Some(Value::String(json)) => Some(json.to_string()),
            _ => {
                let pair = |(key, item): (&Arc<str>, &Value)| {
                    format!("{}:{}", super::json_of(&key.to_string()), super::to_json(item))
                };
                let shown = items.iter().filter(|(key, _)| key.as_ref() != super::LABELS);
                Some(format!("{{{}}}", shown.map(pair).collect::<Vec<_>>().join(",")))
            }
        },
        Value::List(items) => {
            Some(format!("[{}]", items.iter().map(super::to_json).collect::<Vec<_>>().join(",")))
        }
        _ => None,
    }
}

/// Replaces structs in the text that a template printed by Go's form, and nil pointers by `<nil>`.
pub fn plain(printed: &str) -> String {
    let begin = format!("map[{TEXT}:");
    let end = format!("{LAST}:{END}]");
    let mut out = String::new();
    let mut rest = printed;
    while let Some(at) = rest.find(&begin) {
        out.push_str(&rest[..at]);
        rest = &rest[at + begin.len()..];
        let Some(length) = rest.find(END) else { break };
        out.push_str(&rest[..length]);
        rest = &rest[length + END.len()..];
        // Structs in this one are part of its text.
        let mut depth = 1;
        while depth > 0 {
            let Some(close) = rest.find(&end) else { return out };
            depth += rest[..close].matches(&begin).count();
            depth -= 1;
            rest = &rest[close + end.len()..];
        }
    }
    out.push_str(rest);
    out.replace("<no value>", "<nil>")
}

/// True for a text that contains a key of [`Typed::to_value`] other than a field's name: a template that ranged over a
/// struct printed it.
pub fn shows_struct(printed: &str) -> bool {
    [TEXT, JSON, LAST].iter().any(|key| printed.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: &str = "A\n ID=Id string\n List []string\n Map map:empty omit\n B *B omit\n @C\n At time\nB\n N int\n C C\nC\n Flag bool\n";

    fn shown(json: &str, template: &str) -> String {
        let json: Json = serde_json::from_str(json).unwrap();
        let value = Types::read(TYPES).value("A", Some(&json));
        let template = super::super::template(template).unwrap();
        plain(&template.execute_to_string(&value.to_value()).unwrap())
    }

    #[test]
    fn absent_fields_have_zero_values() {
        let none = "{}";
        for (template, expected) in [
            ("{{.ID}}|{{.List}}|{{.Map}}|{{.B}}|{{.Flag}}", "|[]|map[]|<nil>|false"),
            ("{{json .List}} {{json .Map}} {{json .B}} {{json .C}}", "null null null {\"Flag\":false}"),
            ("{{if .B}}b{{else}}no{{end}}{{with .List}}x{{end}}", "no"),
            ("{{len .List}} {{range .List}}x{{end}}{{index .Map \"a\"}}", "0 "),
            ("{{json .}}", "{\"Id\":\"\",\"List\":null,\"Flag\":false,\"At\":\"\"}"),
        ] {
            assert_eq!(shown(none, template), expected, "{template}");
        }
    }

    #[test]
    fn ranging_over_a_struct_is_noticed() {
        let json = r#"{"Id":"i","B":{"N":2}}"#;
        assert!(shows_struct(&shown(json, "{{range $k, $v := .B}}{{$k}} {{end}}")));
        assert!(!shows_struct(&shown(json, "{{.B}}{{json .B}}{{range $k, $v := .Map}}{{$k}}{{end}}")));
    }

    #[test]
    fn values_are_printed_as_go_prints_them() {
        let json = r#"{"Id":"i","List":[],"Map":{"80/tcp":{}},"B":{"N":2,"C":{"Flag":true}},"At":"2026-01-02T03:04:05.6Z"}"#;
        for (template, expected) in [
            ("{{.Map}} {{.B}} {{.B.C}} {{.C}}", "map[80/tcp:{}] {2 {true}} {true} {false}"),
            ("{{.}}", "{i [] map[80/tcp:{}] {2 {true}} {false} 2026-01-02 03:04:05.6 +0000 UTC}"),
            ("{{.At}} {{json .At}}", "2026-01-02 03:04:05.6 +0000 UTC \"2026-01-02T03:04:05.6Z\""),
            (
                "{{json .List}} {{json .Map}} {{json .B}}",
                "[] {\"80/tcp\":{}} {\"N\":2,\"C\":{\"Flag\":true}}",
            ),
            ("{{range $k, $v := .Map}}{{$k}}{{json $v}}{{end}}", "80/tcp{}"),
        ] {
            assert_eq!(shown(json, template), expected, "{template}");
        }
    }
}
