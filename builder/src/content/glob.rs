//! Wildcards in sources: Go's `filepath.Match`, one component of a path at a time.

/// Pattern for one component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Character(char),
    /// `?`: any character except a slash.
    Any,
    /// `*`: any number of characters.
    Many,
    /// `[a-z]`, `[^a-z]`: a character class.
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

/// Splits a clean path before its first component with a wildcard: literal part, and pattern.
pub(crate) fn split(path: &str) -> (String, String) {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let first = names.iter().position(|name| has_wildcard(name)).unwrap_or(names.len());
    (format!("/{}", names[..first].join("/")), names[first..].join("/"))
}

/// True when any component of a path has a wildcard.
pub(crate) fn has_wildcards(path: &str) -> bool {
    path.split('/').any(has_wildcard)
}

fn has_wildcard(name: &str) -> bool {
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' | '?' | '[' => return true,
            '\\' => {
                characters.next();
            }
            _ => {}
        }
    }
    false
}

/// Compiles the components of a pattern; `None` when one is malformed.
pub(crate) fn compile(pattern: &str) -> Option<Vec<Component>> {
    pattern.split('/').map(Component::new).collect()
}

impl Component {
    fn new(text: &str) -> Option<Component> {
        let mut pieces = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            pieces.push(match character {
                '*' => Piece::Many,
                '?' => Piece::Any,
                '[' => class(&mut rest)?,
                '\\' => Piece::Character(rest.next()?),
                other => Piece::Character(other),
            });
        }
        Some(Component(pieces))
    }

    /// True when the whole name matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Position to retry from when the pattern after the last `*` does not match.
        let (mut piece, mut at) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.0.get(piece) {
                Some(Piece::Many) => {
                    retry = Some((piece + 1, at));
                    piece += 1;
                    continue;
                }
                Some(one) if name.get(at).is_some_and(|character| one.takes(*character)) => {
                    piece += 1;
                    at += 1;
                    continue;
                }
                None if at == name.len() => return true,
                _ => {}
            }
            match &mut retry {
                Some((after, from)) if *from < name.len() => {
                    *from += 1;
                    (piece, at) = (*after, *from);
                }
                _ => return false,
            }
        }
    }
}

impl Piece {
    fn takes(&self, character: char) -> bool {
        match self {
            Piece::Character(own) => *own == character,
            Piece::Any => true,
            Piece::Many => false,
            Piece::Class { ranges, negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
        }
    }
}

/// Parses a character class after its `[`.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Piece> {
    let mut ahead = rest.clone();
    let negated = ahead.next() == Some('^');
    if negated {
        *rest = ahead;
    }
    let mut ranges = Vec::new();
    loop {
        let mut ahead = rest.clone();
        if ahead.next()? == ']' && !ranges.is_empty() {
            *rest = ahead;
            return Some(Piece::Class { ranges, negated });
        }
        let low = bound(rest)?;
        let mut ahead = rest.clone();
        let high = if ahead.next()? == '-' {
            *rest = ahead;
            bound(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn bound(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        '-' | ']' => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of Go's `path/filepath/match_test.go` within one component.
    #[test]
    fn names_match_as_in_go() {
        let check = |pattern: &str, name: &str, expected: Option<bool>| {
            let matched = Component::new(pattern).map(|component| component.matches(name));
            assert_eq!(matched, expected, "{pattern} {name}");
        };
        check("abc", "abc", Some(true));
        check("*", "abc", Some(true));
        check("*c", "abc", Some(true));
        check("a*", "ab", Some(true));
        check("a*b*c*d*e*", "axbxcxdxe", Some(true));
        check("a*b?c*x", "abxbbxdbxebxczzx", Some(true));
        check("a*b?c*x", "abxbbxdbxebxczzy", Some(false));
        check("ab[c]", "abc", Some(true));
        check("ab[b-d]", "abc", Some(true));
        check("ab[e-g]", "abc", Some(false));
        check("ab[^c]", "abc", Some(false));
        check("ab[^e-g]", "abc", Some(true));
        check("a\\*b", "a*b", Some(true));
        check("a\\*b", "ab", Some(false));
        check("a?b", "a☺b", Some(true));
        check("a[^a]b", "a☺b", Some(true));
        check("a???b", "a☺b", Some(false));
        check("[a-ζ]*", "α", Some(true));
        check("*[a-ζ]", "A", Some(false));
        check("[\\]a]", "]", Some(true));
        check("[\\-x]", "x", Some(true));
        check("[\\-x]", "-", Some(true));
        check("[x\\-]", "z", Some(false));
        check("[]a]", "]", None);
        check("[-]", "-", None);
        check("[x-]", "x", None);
        check("[a-b-c]", "a", None);
        check("[", "a", None);
        check("[^", "a", None);
        check("a[", "a", None);
        check("\\", "a", None);
        check("*x", "xxx", Some(true));
        check("*", "", Some(true));
        check("", "", Some(true));
        check("?", "", Some(false));
    }

    #[test]
    fn splitting() {
        assert_eq!(split("/a/b*/c"), ("/a".into(), "b*/c".into()));
        assert_eq!(split("/a/b"), ("/a/b".into(), String::new()));
        assert_eq!(split("/*"), ("/".into(), "*".into()));
        assert_eq!(split("/"), ("/".into(), String::new()));
        assert_eq!(split("/a\\*b"), ("/a\\*b".into(), String::new()));
    }
}
