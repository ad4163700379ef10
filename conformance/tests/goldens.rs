//! Each case of `testdata/parser` has the expected dump. `BLESS=1` writes the current one; review the difference.

use kiln_conformance::cases;
use kiln_conformance::dump::dump;
use kiln_parser::{Source, parse};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn cases_have_the_expected_dumps() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/parser");
    let bless = std::env::var_os("BLESS").is_some();
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for mut file in cases::read_dir(&dir).unwrap() {
        for case in &mut file.cases {
            assert!(names.insert(case.name.clone()), "{} stands twice", case.name);
            let bytes = case.bytes();
            let found = dump(&bytes);
            let source = Source::new("Dockerfile", bytes.clone());
            assert_eq!(parse(&source).file.print(&source), bytes, "{} is not printed as it was", case.name);
            if found != case.expected {
                wrong.push(format!(
                    "{}: {}\n  found\n    {}\n  expected\n    {}",
                    case.name,
                    case.rule,
                    found.join("\n    "),
                    case.expected.join("\n    ")
                ));
                case.expected = found;
            }
        }
        if bless {
            file.write().unwrap();
        }
    }
    assert!(names.len() >= 150, "only {} cases", names.len());
    assert!(bless || wrong.is_empty(), "{} cases are read otherwise:\n{}", wrong.len(), wrong.join("\n"));
}
