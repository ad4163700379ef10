//! `--call=subrequests.describe`: list of the supported questions.

use super::{Call, print_json};
use crate::error::CliError;
use crate::text;
use crate::ui;
use serde_json::{Value, json};

const QUESTIONS: [(&str, &str); 4] = [
    ("outline", "List all parameters current build target supports"),
    ("targets", "List all targets current build supports"),
    ("lint", "Lint a Dockerfile"),
    ("subrequests.describe", "List available subrequest types"),
];
const VERSION: &str = "1.0.0";

pub(super) fn answer(call: Call) -> Result<u8, CliError> {
    if call.json {
        let describe = |(name, description): (&str, &str)| -> Value {
            json!({
                "name": format!("frontend.{name}"),
                "version": VERSION,
                "type": "rpc",
                "description": description,
            })
        };
        print_json(&Value::Array(QUESTIONS.map(describe).to_vec()));
        return Ok(0);
    }
    let rows = QUESTIONS.map(|(name, words)| vec![name.to_owned(), VERSION.to_owned(), words.to_owned()]);
    ui::print(&text::narrow_table(&["NAME", "VERSION", "DESCRIPTION"], &rows));
    Ok(0)
}
