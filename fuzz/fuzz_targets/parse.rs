//! Any bytes parse as a Dockerfile with or without errors: it prints unchanged, all lints accept it, and formatting it
//! is idempotent.
#![no_main]

use kiln_parser::diagnostic::{Color, render};
use kiln_parser::lint::{Choice, Facts, lint};
use kiln_parser::{Source, format::format, outline, parse};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("Dockerfile", bytes);
    let tree = parse(&source);
    assert_eq!(tree.file.print(&source), bytes);
    for finding in &tree.diagnostics {
        assert!(finding.span.end as usize <= bytes.len(), "a span outside the file");
        if tree.diagnostics.len() < 10 {
            render(&source, finding, Color::Never);
        }
    }
    lint(&tree, &source, &Facts::default(), &Choice { own: true, ..Choice::default() });
    outline::outline(&tree.file, None, &BTreeMap::new());
    if tree.errors().next().is_none() {
        let once = format(&tree, &source);
        let again = Source::new("Dockerfile", once.as_bytes());
        let tree = parse(&again);
        assert!(tree.errors().next().is_none(), "laying out made a mistake: {once:?}");
        assert_eq!(format(&tree, &again), once);
    }
});
