//! One compiled pattern.

/// Element of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`: any character but `/`.
    Any,
    /// `*`: any run of characters but `/`.
    Star,
    /// `**` at the end: any text.
    Rest,
    /// `**` before other parts: continue after [`Part::Dirs`], or pass through it.
    Enter,
    /// Any text that ends in `/`; always follows [`Part::Enter`].
    Dirs,
    /// A character class such as `[a-z]` or `[^a]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    Exact(String),
    Prefix(String),
    /// `**` followed by plain text: paths that end in the text; if it begins with `/`, also paths equal to the rest.
    Suffix(String),
    Parts,
}

/// A compiled pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    matcher: Matcher,
    parts: Vec<Part>,
}

impl Pattern {
    /// Compiles a cleaned pattern; `None` when its syntax is wrong.
    pub(super) fn new(text: &str) -> Option<Pattern> {
        let parts = compile(text)?;
        let literal = |parts: &[Part]| parts.iter().map(plain).collect::<Option<String>>();
        // An escape makes the reference use the general form, whatever else the pattern contains.
        let general = text.contains('\\');
        let matcher = match parts.as_slice() {
            [Part::Rest] => Matcher::Suffix(String::new()),
            [head @ .., Part::Rest] if !general => literal(head).map_or(Matcher::Parts, Matcher::Prefix),
            [Part::Enter, Part::Dirs, tail @ ..] if !general => match literal(tail) {
                Some(_) => Matcher::Suffix(text[2..].to_owned()),
                None => Matcher::Parts,
            },
            all => literal(all).map_or(Matcher::Parts, Matcher::Exact),
        };
        Some(Pattern { matcher, parts })
    }

    /// True when the whole `path` matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => path == exact,
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/').is_some_and(|name| path == name)
            }
            Matcher::Parts => self.run(path.chars())[self.parts.len()],
        }
    }

    /// True when some path below the directory `path` may match.
    pub(super) fn may_match_below(&self, path: &str) -> bool {
        matches!(self.matcher, Matcher::Suffix(_))
            || self.run(path.chars().chain(['/'])).iter().any(|alive| *alive)
    }

    /// Follows all paths through the parts at once; state `i` is alive when the parts before `i` are matched.
    fn run(&self, characters: impl Iterator<Item = char>) -> Vec<bool> {
        let mut alive = vec![false; self.parts.len() + 1];
        alive[0] = true;
        self.pass_optional(&mut alive);
        let mut next = vec![false; self.parts.len() + 1];
        for character in characters {
            next.fill(false);
            for (state, part) in self.parts.iter().enumerate().filter(|(state, _)| alive[*state]) {
                part.step(character, state, &mut next);
            }
            self.pass_optional(&mut next);
            std::mem::swap(&mut alive, &mut next);
        }
        alive
    }

    fn pass_optional(&self, alive: &mut [bool]) {
        for (state, part) in self.parts.iter().enumerate() {
            if !alive[state] {
                continue;
            }
            match part {
                Part::Star | Part::Rest => alive[state + 1] = true,
                Part::Enter => {
                    alive[state + 1] = true;
                    alive[state + 2] = true;
                }
                _ => {}
            }
        }
    }
}

impl Part {
    fn step(&self, character: char, state: usize, next: &mut [bool]) {
        match self {
            Part::Char(expected) => next[state + 1] |= *expected == character,
            Part::Any => next[state + 1] |= character != '/',
            Part::Star => next[state] |= character != '/',
            Part::Rest => next[state] = true,
            Part::Enter => {}
            Part::Dirs => {
                next[state] = true;
                next[state + 1] |= character == '/';
            }
            Part::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                next[state + 1] |= inside != *negated;
            }
        }
    }
}

fn plain(part: &Part) -> Option<char> {
    match part {
        Part::Char(character) => Some(*character),
        _ => None,
    }
}

fn compile(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.next_if_eq(&'*').is_some() => {
                characters.next_if_eq(&'/');
                match characters.peek() {
                    None => parts.push(Part::Rest),
                    Some(_) => parts.extend([Part::Enter, Part::Dirs]),
                }
            }
            '*' => parts.push(Part::Star),
            '?' => parts.push(Part::Any),
            '[' => parts.push(class(&mut characters)?),
            '\\' => parts.push(Part::Char(characters.next()?)),
            other => parts.push(Part::Char(other)),
        }
    }
    Some(parts)
}

/// Parses a class after its `[` as Go's `filepath.Match` does.
fn class(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Part> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || characters.next_if_eq(&']').is_none() {
        let low = class_character(characters)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => class_character(characters)?,
            None => low,
        };
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
    Some(Part::Class { negated, ranges })
}

fn class_character(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match characters.next()? {
        '-' | ']' => None,
        '\\' => characters.next(),
        other => Some(other),
    }
}
