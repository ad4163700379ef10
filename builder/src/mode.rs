//! Modes of `--chmod`: octal modes and symbolic changes.
//!
//! Symbolic changes are those of chmod(1) as POSIX defines them; the reference builder parses them with
//! tonistiigi/dchapes-mode.

/// Change of a file's permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Sets these bits, independent of the old ones.
    Set(u32),
    /// Symbolic changes such as `u=rwX,go=rX`.
    Symbolic(Vec<Clause>),
}

/// One clause: classes of users, an operator, permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    who: u32,
    operation: char,
    permissions: Vec<char>,
}

/// A text that is not a valid mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
pub struct ModeError(pub String);

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHERS: u32 = 0o1007;

impl ModeChange {
    /// Parses a `--chmod` value.
    ///
    /// # Errors
    /// Fails for a text that is neither an octal mode nor a list of symbolic changes.
    pub fn parse(text: &str) -> Result<ModeChange, ModeError> {
        let fail = || ModeError(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| fail())?;
            let change = ModeChange { text: text.to_owned(), rule: Rule::Set(mode) };
            return if mode <= 0o7777 { Ok(change) } else { Err(fail()) };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_clauses(part, &mut clauses).ok_or_else(fail)?;
        }
        Ok(ModeChange { text: text.to_owned(), rule: Rule::Symbolic(clauses) })
    }

    /// Permissions after the change of a file or directory with `mode`.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match &self.rule {
            Rule::Set(mode) => *mode,
            Rule::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }

    /// New permissions; `None` when they depend on the old ones.
    pub fn absolute(&self) -> Option<u32> {
        match &self.rule {
            Rule::Set(mode) => Some(*mode),
            Rule::Symbolic(_) => None,
        }
    }

    /// The value as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Parses `[ugoa]*([-+=][rwxXstugo]*)+`; `None` for other texts.
fn parse_clauses(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let operator = |c: char| matches!(c, '+' | '-' | '=');
    let at = text.find(operator)?;
    let mut who = 0;
    for c in text[..at].chars() {
        who |= match c {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHERS,
            'a' => USER | GROUP | OTHERS,
            _ => return None,
        };
    }
    if who == 0 {
        who = USER | GROUP | OTHERS;
    }
    let mut rest = &text[at..];
    while let Some(operation) = rest.chars().next() {
        let tail = &rest[1..];
        let end = tail.find(operator).unwrap_or(tail.len());
        let permissions: Vec<char> = tail[..end].chars().collect();
        if !permissions.iter().all(|c| "rwxXstugo".contains(*c)) {
            return None;
        }
        clauses.push(Clause { who, operation, permissions });
        rest = &tail[end..];
    }
    Some(())
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let mut bits = 0;
        for permission in &self.permissions {
            bits |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => spread(mode >> 6),
                'g' => spread(mode >> 3),
                'o' => spread(mode),
                _ => 0,
            };
        }
        let bits = bits & self.who;
        match self.operation {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !self.who) | bits,
        }
    }
}

/// Copies three bits to user, group and others.
fn spread(bits: u32) -> u32 {
    (bits & 7) * 0o111
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, mode: u32, file: u32, dir: u32) {
        let change = ModeChange::parse(text).unwrap();
        assert_eq!((change.apply(mode, false), change.apply(mode, true)), (file, dir), "{text}");
    }

    #[test]
    fn modes_change() {
        check("644", 0o777, 0o644, 0o644);
        check("4755", 0, 0o4755, 0o4755);
        check("+x", 0o644, 0o755, 0o755);
        check("u=rwX,go=rX", 0o600, 0o644, 0o755);
        check("u=rwX,go=rX", 0o700, 0o755, 0o755);
        check("go-w", 0o666, 0o644, 0o644);
        check("g=u", 0o740, 0o770, 0o770);
        check("a+rX,u+s", 0o100, 0o4555, 0o4555);
        check("o+t", 0o755, 0o1755, 0o1755);
        check("u+w-x", 0o555, 0o655, 0o655);
    }

    #[test]
    fn others_are_refused() {
        for bad in ["", "64a", "10000", "8", "z+x", "u", "u=q", "+x,"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}
