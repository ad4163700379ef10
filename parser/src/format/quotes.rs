//! Which characters are quoted, read one at a time.

/// What a character stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Single,
    Double,
    /// `$(…)` or `(…)` of a shell: quotes begin anew, also within double quotes.
    Parentheses,
    Backquotes,
}

/// The quotes of an instruction's words, or of a shell command.
pub(super) struct Quotes {
    escape: char,
    is_shell: bool,
    stack: Vec<Inside>,
    is_escaped: bool,
    /// A `#` that may begin a comment of the shell, `$'…'` or a parenthesis without its partner was read.
    has_doubt: bool,
    before: char,
}

impl Quotes {
    /// Quotes of words that the builder itself reads.
    pub(super) fn of_words(escape: char) -> Quotes {
        let (stack, before) = (Vec::new(), ' ');
        Quotes { escape, is_shell: false, stack, is_escaped: false, has_doubt: false, before }
    }

    /// Quotes of a command.
    pub(super) fn of_shell(escape: char) -> Quotes {
        Quotes { is_shell: true, ..Quotes::of_words(escape) }
    }

    /// True when the next character is quoted or escaped.
    pub(super) fn is_protected(&self) -> bool {
        self.is_escaped
            || matches!(self.stack.last(), Some(Inside::Single | Inside::Double | Inside::Backquotes))
    }

    /// True when what was read so far may mean something else than it seems to.
    pub(super) fn is_unclear(&self) -> bool {
        self.has_doubt || !self.stack.is_empty()
    }

    /// Takes the next character.
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
            // Patterns of `case` have no opening one.
            (')', None) => {}
            // The end of a `case` arm in what seems to be a string: a parenthesis was taken for another one.
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

    /// The characters that are protected, others as dots; `None` when the text is unclear.
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
    fn quotes_of_commands() {
        assert_eq!(protected(r"a 'b c' \ d").as_deref(), Some("...b c'.. ."));
        assert_eq!(protected(r#""a $(b "c" d) e""#).as_deref(), Some(r#".a $(...c"... e""#));
        assert_eq!(protected("$'a'"), None);
        assert_eq!(protected("a # b"), None);
        assert_eq!(protected("a 'b"), None);
        assert_eq!(protected("\"$(case a in b) echo \"c  d\";; esac)\""), None);
        assert_eq!(protected("case a in b) c ;; esac").as_deref(), Some("......................"));
    }
}
