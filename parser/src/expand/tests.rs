use super::*;
use std::collections::BTreeMap;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Formats a result for assertion messages: values may be long.
fn short(result: Result<&str, &str>) -> String {
    format!("{result:?}").chars().take(200).collect()
}

fn check(word: &str, pairs: &[(&str, &str)], expected: Result<&str, &str>) {
    let result = expand(word, &env(pairs), Rules::value('\\'));
    let shown =
        result.as_ref().map(|expansion| expansion.value.as_str()).map_err(|error| error.message.as_str());
    assert!(shown == expected, "{word:.100}: {} is not {}", short(shown), short(expected));
}

#[test]
fn plain_references_are_expanded() {
    let pairs = &[("A", "x"), ("E", "")];
    check("$A ${A} $B.", pairs, Ok("x x ."));
    check("$A_B$A", pairs, Ok("x"));
    check("$. $ a$", pairs, Ok("$. $ a$"));
    check("$1$@$?", pairs, Ok(""));
    check("\\$A '$A' \"$A\"", pairs, Ok("$A $A x"));
}

#[test]
fn modifiers_choose_defaults_and_errors() {
    let pairs = &[("A", "x"), ("E", "")];
    check("${U:-w}${E:-w}${A:-w}", pairs, Ok("wwx"));
    check("${U-w}${E-w}${A-w}", pairs, Ok("wx"));
    check("${U:+w}${E:+w}${A:+w}", pairs, Ok("w"));
    check("${U+w}${E+w}${A+w}", pairs, Ok("ww"));
    check("${U:-${A:+${A}y}}", pairs, Ok("xy"));
    check("${U:?}", pairs, Err("U: is not allowed to be unset"));
    check("${E:?}", pairs, Err("E: is not allowed to be empty"));
    check("${E?}", pairs, Ok(""));
    check("${U?say $A}", pairs, Err("U: say x"));
}

#[test]
fn patterns_trim_and_replace() {
    let pairs = &[("F", "xxyy"), ("P", "/tmp/tmp/bar.txt"), ("S", "a***yy*"), ("L", "a\nb")];
    check("${F#*x}${F##*x}", pairs, Ok("xyyyy"));
    check("${F%y*}${F%%y*}", pairs, Ok("xxyxx"));
    check("${F#*}${F##*}", pairs, Ok("xxyy"));
    check("${S%%\\**\\*}", pairs, Ok("a"));
    check("${P/tmp/x}-${P//tmp/x}", pairs, Ok("/x/tmp/bar.txt-/x/x/bar.txt"));
    check("${P//\\//\\/}", pairs, Ok("\\/tmp\\/tmp\\/bar.txt"));
    check("${F/$U/w}", pairs, Ok("wxxyy"));
    check("${F//$U/-}", pairs, Ok("-x-x-y-y-"));
    check("${F//*/z}", pairs, Ok("z"));
    check("${L##*}", pairs, Ok("\nb"));
    check("${F#\\x}", pairs, Err("invalid pattern (\\x) in substitution: invalid escape '\\x'"));
}

#[test]
fn syntax_errors_are_reported() {
    check("${}", &[], Err("syntax error: bad substitution"));
    check("${{A}", &[], Err("syntax error: bad substitution"));
    check("${:", &[], Err("syntax error: bad substitution"));
    check("${", &[], Err("syntax error: missing '}'"));
    check("${A", &[], Err("syntax error: missing '}'"));
    check("${A:-b", &[], Err("syntax error: missing '}'"));
    check("${A/b", &[], Err("syntax error: missing '/' in ${}"));
    check("${A/b/c", &[], Err("syntax error: missing '}'"));
    check("${A:#b}", &[], Err("unsupported modifier (:#) in substitution"));
    check("${A=b}", &[], Err("unsupported modifier (=) in substitution"));
    check("'a", &[], Err("unexpected end of statement while looking for matching single-quote"));
    check("\"a", &[], Err("unexpected end of statement while looking for matching double-quote"));
    let deep = "${A:-".repeat(10_000);
    check(&deep, &[], Err("substitutions are nested more than 100 deep"));
}

#[test]
fn variables_read_are_reported() {
    let result = expand("${A:-$B} $C", &env(&[("C", "c")]), Rules::value('\\')).unwrap();
    assert_eq!(result.read, BTreeSet::from(["C".to_owned()]));
    assert_eq!(result.missed, BTreeSet::from(["A".to_owned(), "B".to_owned()]));
}

#[test]
fn words_split_unless_quoted() {
    let words = |text: &str| {
        let list = expand_words(text, &env(&[("A", "1 2")]), Rules::value('\\')).unwrap().value;
        list.into_iter().map(|word| word.text).collect::<Vec<_>>()
    };
    assert_eq!(words("a  b$A c"), ["a", "b1", "2", "c"]);
    assert_eq!(words("'a b' \"$A\" c\\ d"), ["a b", "1 2", "c d"]);
    assert_eq!(words("80${A:-x}"), ["801", "2"]);
    assert_eq!(words("cat << EOF"), ["cat", "<< EOF"]);
}

#[test]
fn heredoc_bodies_keep_quotes() {
    let result = expand("\"$A\" 'b' \\$A", &env(&[("A", "x")]), Rules::heredoc_body()).unwrap();
    assert_eq!(result.value, "\"x\" 'b' $A");
}

/// Variables that record which names were looked up.
struct Watched(BTreeMap<String, String>, std::cell::RefCell<BTreeSet<String>>);

impl Environment for Watched {
    fn get(&self, name: &str) -> Option<&str> {
        self.1.borrow_mut().insert(name.to_owned());
        self.0.get(name).map(String::as_str)
    }
}

proptest::proptest! {
    #[test]
    fn no_variable_is_read_without_being_reported(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "$A", "${B", "${A:-", "${C:+", "${A#", "${B%%", "${A/", "//", "/", "}", "'", "\"", "\\", "x", " ", "*", "$", "?", "${U:?m}", "é",
        ]), 0..12,
    )) {
        let set = env(&[("A", "x y"), ("B", ""), ("X", "a*b")]);
        for rules in [Rules::value('\\'), Rules::value('`'), Rules::heredoc_body()] {
            let watched = Watched(set.clone(), std::cell::RefCell::default());
            if let Ok(expansion) = expand(&parts.concat(), &watched, rules) {
                proptest::prop_assert!(expansion.missed.iter().all(|name| !set.contains_key(name)));
                let reported: BTreeSet<String> = expansion.read.union(&expansion.missed).cloned().collect();
                proptest::prop_assert_eq!(reported, watched.1.take());
            }
        }
    }
}

/// A value that doubles forty times is an error.
#[test]
fn growth_of_a_value_is_bounded() {
    let big = "x".repeat(MAX_GROWTH / 2);
    let pairs = &[("A", big.as_str()), ("E", "")];
    let full = format!("{big}{big}");
    let too_much = Err("variables add more than 1 MiB to this value");
    check("$A$A", pairs, Ok(&full));
    for word in [
        "$A$A$A",
        "\"$A$A\"${A}",
        "${A:+$A$A$A}",
        "${E:-${E:-${E:-$A}}}${A}${A}",
        "$A$A${A#y}",
        "$A$A${A%%y}",
        "${A//x/yyy}",
        "${A/x/$A$A}",
    ] {
        check(word, pairs, too_much);
    }
    // Text of the file itself costs nothing.
    let long = "y".repeat(3 * MAX_GROWTH);
    check(&format!("{long}$E"), pairs, Ok(&long));
    let words = expand_words("$A$A$A", &env(pairs), Rules::value('\\'));
    assert_eq!(words.map_err(|error| (error.at, error.message)).unwrap_err().0, 4);
}

#[test]
fn patterns_spend_their_steps() {
    let big = "x".repeat(MAX_GROWTH / 8);
    let message = "variables of this file expand to more than 64 MiB altogether";
    // A match is tried at every position, each to the end.
    check("${A//*y/z}", &[("A", &big)], Err(message));
    check(&format!("${{A##{}y}}", "?*".repeat(1000)), &[("A", &big)], Err(message));
}

#[test]
fn words_of_a_file_share_one_budget() {
    let budget = Budget::default();
    let variables = env(&[("A", &"x".repeat(MAX_GROWTH))]);
    let limited = BudgetedVariables { variables: &variables, budget: &budget };
    let expanded = (0..100).filter(|_| expand("$A", &limited, Rules::value('\\')).is_ok()).count();
    assert_eq!(expanded, 64);
    assert_eq!(budget.spend(1), Err(BudgetExceeded::Total));
}
