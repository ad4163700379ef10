//! The modules of the builder do not depend on each other in circles, so that each can be read with only those below
//! it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Paths of all source files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let of_entry = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(of_entry).collect()
}

/// Modules that the code of a file names, without its tests and comments: `event` for `crate::event::Row`.
fn named_modules(text: &str) -> impl Iterator<Item = String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| line.split("crate::").skip(1));
    names.map(|rest| {
        rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
    })
}

/// Modules of the crate, each with those that it depends on.
fn modules() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&root) {
        let below = path.strip_prefix(&root).unwrap().with_extension("");
        let name = below.iter().next().unwrap().to_str().unwrap().to_owned();
        let named = named_modules(&fs::read_to_string(&path).unwrap()).collect::<Vec<_>>();
        modules.entry(name).or_default().extend(named);
    }
    let names: BTreeSet<String> = modules.keys().cloned().collect();
    for (name, below) in &mut modules {
        below.retain(|other| other != name && names.contains(other));
    }
    modules
}

#[test]
fn modules_form_no_circle() {
    let mut open = modules();
    assert!(open.len() > 20, "too few modules were found: {:?}", open.keys());
    loop {
        let bottom: Vec<String> =
            open.iter().filter(|(_, below)| below.is_empty()).map(|(name, _)| name.clone()).collect();
        if bottom.is_empty() {
            break;
        }
        open.retain(|name, _| !bottom.contains(name));
        open.values_mut().for_each(|below| below.retain(|name| !bottom.contains(name)));
    }
    assert!(open.is_empty(), "circles go through these modules, or they stand on one: {open:#?}");
}
