//! Quoting state of a text, read one character at a time.

/// Construct that encloses a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Single,
    Double,
    /// `$(…)` or `(…)` of a shell: quotes start over, also within double quotes.
    Parentheses,
    Backquotes,
}

/// Quoting state in an instruction's words or in a shell command.
pub(super) struct Quotes {
    escape: char,
    is_shell: bool,
    stack: Vec<Inside>,
    is_escaped: bool,
    /// Whether a `#` that may begin a comment of the shell, `$'…'` or an unpaired parenthesis was read.
    has_doubt: bool,
    before: char,
}

impl Quotes {
    /// Quoting of words that the builder itself parses.
    pub(super) fn of_words(escape: char) -> Quotes {
        let (stack, before) = (Vec::new(), ' ');
        Quotes { escape, is_shell: false, stack, is_escaped: false, has_doubt: false, before }
    }

    /// Quoting of a shell command.
    pub(super) fn of_shell(escape: char) -> Quotes {
        Quotes { is_shell: true, ..Quotes::of_words(escape) }
    }

    /// True when the next character is quoted or escaped.
    pub(super) fn is_protected(&self) -> bool {
        self.is_escaped
            || matches!(self.stack.last(), Some(Inside::Single | Inside::Double | Inside::Backquotes))
    }

    /// True when the text read so far is ambiguous.
    pub(super) fn is_unclear(&self) -> bool {
        self.has_doubt || !self.stack.is_empty()
    }

    /// Reads the next character.
    pub(super) fn read(&mut self, character: char) {
        let before = std::mem::replace(&mut self.before, character);
        let inside = self.stack.last().copied();
        let escapes = character == self.escape || (self.is_shell && character == '\\');
        match (character, inside) {
            _ if self.is_escaped => self.is_escaped = false,
            ('\'', Some(Inside::Single)) | ('"', Some(Inside::Double)) | ('`', Some(Inside::Backquotes)) => {
                self.stack.pop();
            }
            (_, Some(Inside::Single)) => {}
            _ if escapes => self.is_escaped = true,
            ('"', _) => self.stack.push(Inside::Double),
            ('\'', None | Some(Inside::Parentheses)) => {
                self.has_doubt |= self.is_shell && before == '$';
                self.stack.push(Inside::Single);
            }
            _ if self.is_shell => self.read_of_shell(character, inside, before),
            _ => {}
        }
    }

    fn read_of_shell(&mut self, character: char, inside: Option<Inside>, before: char) {
        match (character, inside) {
            ('(', Some(Inside::Double)) if before == '$' => self.stack.push(Inside::Parentheses),
            ('(', None | Some(Inside::Parentheses)) => self.stack.push(Inside::Parentheses),
            (')', Some(Inside::Parentheses)) => {
                self.stack.pop();
            }
            // Patterns of `case` have no opening parenthesis.
            (')', None) => {}
            // The end of a `case` arm within an apparent string: a parenthesis was paired wrongly.
            (';', Some(Inside::Double)) => self.has_doubt |= before == ';',
            ('`', _) => self.stack.push(Inside::Backquotes),
            ('#', None | Some(Inside::Parentheses)) => self.has_doubt |= before.is_whitespace(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Quotes;

    /// Text with unprotected characters as dots; `None` when it is ambiguous.
    fn protected(text: &str) -> Option<String> {
        let mut quotes = Quotes::of_shell('\\');
        let mut shown = String::new();
        for character in text.chars() {
            shown.push(if quotes.is_protected() { character } else { '.' });
            quotes.read(character);
        }
        (!quotes.is_unclear()).then_some(shown)
    }

    #[test]
    fn quotes_of_commands_protect_blanks() {
        assert_eq!(protected(r"a 'b c' \ d").as_deref(), Some("...b c'.. ."));
        assert_eq!(protected(r#""a $(b "c" d) e""#).as_deref(), Some(r#".a $(...c"... e""#));
        assert_eq!(protected("$'a'"), None);
        assert_eq!(protected("a # b"), None);
        assert_eq!(protected("a 'b"), None);
        assert_eq!(protected("\"$(case a in b) echo \"c  d\";; esac)\""), None);
        assert_eq!(protected("case a in b) c ;; esac").as_deref(), Some("......................"));
    }
}
