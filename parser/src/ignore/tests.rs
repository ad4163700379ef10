use super::*;

fn ignored(patterns: &str, path: &str) -> bool {
    Patterns::parse(patterns).unwrap().decide_without_parent(path).is_ignored()
}

fn check(pattern: &str, matching: &[&str], others: &[&str]) {
    for path in matching {
        assert!(ignored(pattern, path), "{pattern:?} ignores {path}");
    }
    for path in others {
        assert!(!ignored(pattern, path), "{pattern:?} keeps {path}");
    }
}

#[test]
fn plain_patterns_are_anchored_and_cover_children() {
    check("a", &["a", "a/b", "a/b/c"], &["b/a", "ab"]);
    check("/a/b/", &["a/b", "a/b/c"], &["a", "b"]);
    check("./a/../b", &["b"], &["a"]);
    check("  a  ", &["a"], &[]);
}

#[test]
fn wildcards_stop_at_slashes() {
    check("*.go", &["a.go", ".go"], &["b/a.go", "a.gox"]);
    check("a?c", &["abc", "a\u{e9}c"], &["a/c", "ac"]);
    check("a[b-d]e", &["ace", "ade"], &["aee"]);
    check("a[^b]c", &["axc"], &["abc"]);
    check("a\\*b", &["a*b"], &["axb"]);
    check("a.b", &["a.b"], &["axb"]);
    check("*/*/x", &["a/b/x"], &["a/x"]);
}

#[test]
fn two_stars_span_dirs() {
    check("**/foo", &["foo", "a/foo", "a/b/foo", "a/foo/x"], &["xfoo", "a/xfoo"]);
    check("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["b", "ab", "a/xb"]);
    check("a/**", &["a/b", "a/b/c"], &["a", "b"]);
    check("**", &["a", "a/b"], &[]);
    check("**/*.go", &["a.go", "x/y/a.go"], &["a.got"]);
    check("**foo", &["foo", "xfoo", "a/xfoo"], &["foox"]);
    check("a**b", &["ab", "ax/b"], &["axb"]);
    check("**/**/x", &["x", "a/x", "a/b/x"], &["ax"]);
}

#[test]
fn the_last_matching_line_wins() {
    check("*\n!a", &["b"], &["a"]);
    check("a\n!a/keep\na/keep/not", &["a", "a/x", "a/keep/not"], &["a/keep", "a/keep/x"]);
    check("!a\na", &["a"], &[]);
    check("# comment\n #x\n\n", &["#x"], &["x", "# comment"]);
    check("\u{feff}a", &["a"], &[]);
}

#[test]
fn syntax_errors_name_line_and_pattern() {
    for (text, message) in [
        ("!", "illegal exclusion pattern: \"!\""),
        ("a[", "syntax error in pattern"),
        ("[]a]", "syntax error in pattern"),
        ("[-x]", "syntax error in pattern"),
        ("[x-]", "syntax error in pattern"),
        ("a\\", "syntax error in pattern"),
    ] {
        let error = Patterns::parse(&format!("ok\n{text}")).unwrap_err();
        assert_eq!((error.line, error.message), (2, message), "{text}");
    }
}

#[test]
fn the_deciding_line_is_returned() {
    let patterns = Patterns::parse("# head\n*.log\n!keep.log\n").unwrap();
    let line = |path: &str| patterns.decided_by(&patterns.decide_without_parent(path));
    assert_eq!(line("a.log"), Some((2, "*.log".into())));
    assert_eq!(line("keep.log"), Some((3, "!keep.log".into())));
    assert_eq!(line("other"), None);
}

#[test]
fn directories_with_possible_exceptions_are_not_pruned() {
    let prunes = |text: &str, path: &str| {
        let patterns = Patterns::parse(text).unwrap();
        patterns.prunes(path, &patterns.decide_without_parent(path))
    };
    assert!(prunes("a", "a"));
    assert!(!prunes("a\n!a/b/c", "a"));
    assert!(!prunes("a\n!a/b/c", "a/b"));
    assert!(prunes("a\n!a/b/c", "a/x"));
    assert!(!prunes("a\n!**/keep", "a"));
    assert!(!prunes("a\n!*/keep", "a"));
    assert!(prunes("a\n!*/keep", "a/b"));
    assert!(prunes("!a/b\na", "a"));
    assert!(!prunes("b", "a"));
}

proptest::proptest! {
    #[test]
    fn pruning_never_changes_the_result(
        lines in proptest::collection::vec("!?(\\*\\*/)?[ab*?]{1,3}(/[ab*]{1,2}|/\\*\\*)?", 0..5),
        path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
    ) {
        let text = lines.join("\n");
        if let Ok(patterns) = Patterns::parse(&text) {
            let result = patterns.decide_without_parent(&path);
            for (at, _) in path.match_indices('/') {
                let dir = &path[..at];
                if patterns.prunes(dir, &patterns.decide_without_parent(dir)) {
                    proptest::prop_assert!(result.is_ignored(), "{text:?} prunes {dir} but keeps {path}");
                }
            }
        }
    }
}
