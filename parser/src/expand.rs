//! Expansion of variables and removal of quotes, given an environment.
//!
//! A pure step after parsing. The grammar follows the reference builder's shell lexer (moby/buildkit
//! `frontend/dockerfile/shell/lex.go`): `$x`, `${x}`, the modifiers `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/`
//! `//`, single and double quotes, and an escape character. It is not a shell: there is no command substitution, and no
//! splitting except in [`expand_words`].
//!
//! The growth of texts is bounded: of each word by [`MAX_GROWTH`], and of all words of a file by a [`Budget`], so that
//! forty lines of `ENV A=$A$A` are an error instead of a terabyte. The cost of a text is spent before memory is
//! allocated for it.
//!
//! The result names every variable that was read: lints, the outline and cache keys depend on that.

mod budget;
mod glob;

pub use budget::{Budget, BudgetExceeded, BudgetedVariables, MAX_GROWTH};

use budget::Allowance;
use glob::Pattern;
use std::collections::BTreeSet;

/// A set of variables by name.
pub trait Environment {
    /// The value of `name`, or `None` when it is unset.
    fn get(&self, name: &str) -> Option<&str>;

    /// Budget shared by all expansions with these variables; `None` when each expansion is bounded on its own.
    fn budget(&self) -> Option<&Budget> {
        None
    }
}

impl<F: Fn(&str) -> Option<&'static str>> Environment for F {
    fn get(&self, name: &str) -> Option<&str> {
        self(name)
    }
}

/// An environment without variables.
#[derive(Clone, Copy, Debug)]
pub struct NoVariables;

impl Environment for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

impl Environment for std::collections::BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        std::collections::BTreeMap::get(self, name).map(String::as_str)
    }
}

/// Treatment of quote characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotes {
    /// Quotes group and are removed.
    Remove,
    /// Quotes group and are kept.
    Keep,
    /// Quotes are ordinary characters (bodies of heredocs).
    Literal,
}

/// Options of an expansion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Escape character of the file: `\` or a backquote.
    pub escape: char,
    /// Treatment of single and double quotes.
    pub quotes: Quotes,
    /// Whether escape characters stay in the result.
    pub keep_escapes: bool,
    /// Whether references to unset variables stay as written instead of becoming empty.
    pub keep_unset: bool,
}

impl Rules {
    /// Rules for values of instructions: quotes are removed, unset variables are empty.
    pub fn value(escape: char) -> Rules {
        Rules { escape, quotes: Quotes::Remove, keep_escapes: false, keep_unset: false }
    }

    /// Rules for the body of a COPY or ADD heredoc: the escape is always `\`, quotes are ordinary characters.
    pub fn heredoc_body() -> Rules {
        Rules { quotes: Quotes::Literal, ..Rules::value('\\') }
    }
}

/// An expanded value and the variables it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion<T> {
    /// The expanded text or list of words.
    pub value: T,
    /// Names of variables that were read and set.
    pub read: BTreeSet<String>,
    /// Names of variables that were read and not set.
    pub missed: BTreeSet<String>,
}

/// Failure of an expansion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError {
    /// Message of the reference builder.
    pub message: String,
    /// Byte offset in the word at which the error was noticed.
    pub at: usize,
}

impl std::fmt::Display for ExpandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExpandError {}

/// A word of a list and the byte offset at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListWord {
    /// Text of the word after expansion.
    pub text: String,
    /// Byte offset of the first character in the unexpanded text.
    pub at: usize,
}

/// Expands `word` to one value; white space stays.
///
/// # Errors
/// Fails on an unterminated quote or brace, an unknown modifier, a `?` modifier whose variable is unset, and when the
/// result exceeds [`MAX_GROWTH`] or the environment's budget.
pub fn expand(word: &str, env: &dyn Environment, rules: Rules) -> Result<Expansion<String>, ExpandError> {
    let mut lexer = Lexer::new(word, env, rules);
    let (value, _) = lexer.read_until(None, rules.keep_escapes)?;
    Ok(Expansion { value, read: lexer.read, missed: lexer.missed })
}

/// Expands `text` and splits the result at white space that is neither quoted nor escaped.
///
/// # Errors
/// Fails in the cases of [`expand`].
pub fn expand_words(
    text: &str,
    env: &dyn Environment,
    rules: Rules,
) -> Result<Expansion<Vec<ListWord>>, ExpandError> {
    let mut lexer = Lexer::new(text, env, rules);
    let (_, value) = lexer.read_until(None, rules.keep_escapes)?;
    Ok(Expansion { value, read: lexer.read, missed: lexer.missed })
}

/// Deepest nesting of `${a:-${b:-…}}`; a limit keeps hostile files from exhausting the stack.
const MAX_NESTING: usize = 100;

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    env: &'a dyn Environment,
    rules: Rules,
    nesting: usize,
    /// Offset of the `$` of the innermost variable being read.
    variable_at: usize,
    allowance: Allowance,
    read: BTreeSet<String>,
    missed: BTreeSet<String>,
}

/// Words of a list, collected while a text is read.
#[derive(Default)]
struct Words {
    done: Vec<ListWord>,
    current: String,
    start: usize,
    inside: bool,
}

impl Words {
    /// Appends a character that splits the word when it is white space.
    fn push(&mut self, character: char, at: usize) {
        if !character.is_whitespace() {
            self.push_raw(character, at);
        } else if self.inside && !self.current.is_empty() {
            self.end_word();
        }
    }

    /// Appends a character that never splits a word.
    fn push_raw(&mut self, character: char, at: usize) {
        self.begin(at);
        self.current.push(character);
    }

    fn push_str(&mut self, text: &str, at: usize) {
        text.chars().for_each(|character| self.push(character, at));
    }

    fn push_raw_str(&mut self, text: &str, at: usize) {
        self.begin(at);
        self.current.push_str(text);
    }

    fn begin(&mut self, at: usize) {
        if self.current.is_empty() {
            self.start = at;
        }
        self.inside = true;
    }

    fn end_word(&mut self) {
        self.done.push(ListWord { text: std::mem::take(&mut self.current), at: self.start });
        self.inside = false;
    }

    fn finish(mut self) -> Vec<ListWord> {
        if !self.current.is_empty() {
            self.end_word();
        }
        self.done
    }
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, env: &'a dyn Environment, rules: Rules) -> Lexer<'a> {
        let allowance = Allowance::new(env.budget());
        let (read, missed) = (BTreeSet::new(), BTreeSet::new());
        Lexer { text, at: 0, env, rules, nesting: 0, variable_at: 0, allowance, read, missed }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ExpandError> {
        Err(ExpandError { message: message.into(), at: self.at.min(self.text.len()) })
    }

    /// Copies a value into the result and spends its cost.
    fn grown(&mut self, value: &str) -> Result<String, ExpandError> {
        match self.allowance.grow(value.len()) {
            Ok(()) => Ok(value.to_owned()),
            Err(spent) => self.spent(spent),
        }
    }

    /// Error at the variable whose cost exceeds the limit.
    fn spent<T>(&self, spent: BudgetExceeded) -> Result<T, ExpandError> {
        Err(ExpandError { message: spent.to_string(), at: self.variable_at })
    }

    /// Reads up to `stop`, which is consumed, or to the end of the text when `stop` is `None`.
    fn read_until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
    ) -> Result<(String, Vec<ListWord>), ExpandError> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(character) = self.peek() {
            let at = self.at;
            match character {
                _ if Some(character) == stop => {
                    self.next();
                    return Ok((result, words.finish()));
                }
                '$' => {
                    let value = self.dollar()?;
                    words.push_str(&value, at);
                    result.push_str(&value);
                }
                '\'' | '"' if self.rules.quotes != Quotes::Literal => {
                    let value = if character == '"' {
                        self.double_quoted(keep_escapes)?
                    } else {
                        self.single_quoted()?
                    };
                    words.push_raw_str(&value, at);
                    result.push_str(&value);
                }
                '<' => {
                    let value = self.heredoc_arrow();
                    words.push_raw_str(&value, at);
                    result.push_str(&value);
                }
                _ if character == self.rules.escape => {
                    self.next();
                    if keep_escapes {
                        words.push_raw(character, at);
                        result.push(character);
                    }
                    let Some(escaped) = self.next() else { break };
                    words.push_raw(escaped, at);
                    result.push(escaped);
                }
                _ => {
                    self.next();
                    words.push(character, at);
                    result.push(character);
                }
            }
        }
        match stop {
            None => Ok((result, words.finish())),
            Some(stop) => {
                self.error(format!("unexpected end of statement while looking for matching {stop}"))
            }
        }
    }

    /// Reads `<<` and the blanks after it as part of one word: `<< EOF` names a heredoc.
    fn heredoc_arrow(&mut self) -> String {
        self.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.next();
        let mut arrow = String::from("<<");
        while let Some(blank @ ('\t' | '\r' | ' ')) = self.peek() {
            self.next();
            arrow.push(blank);
        }
        arrow
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let open = self.at;
        self.next();
        let Some(length) = self.text[self.at..].find('\'') else {
            self.at = open;
            return self.error("unexpected end of statement while looking for matching single-quote");
        };
        let inner = &self.text[self.at..self.at + length];
        self.at += length + 1;
        Ok(self.requote(inner.to_owned(), '\''))
    }

    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        let open = self.at;
        self.next();
        let mut result = String::new();
        while let Some(character) = self.peek() {
            match character {
                '"' => {
                    self.next();
                    return Ok(self.requote(result, '"'));
                }
                '$' => result.push_str(&self.dollar()?),
                _ if character == self.rules.escape => {
                    self.next();
                    self.escaped_in_quotes(character, keep_escapes, &mut result);
                }
                _ => {
                    self.next();
                    result.push(character);
                }
            }
        }
        self.at = open;
        self.error("unexpected end of statement while looking for matching double-quote")
    }

    /// Reads an escape within double quotes, where it applies to `"`, `$` and itself only.
    fn escaped_in_quotes(&mut self, escape: char, keep_escapes: bool, result: &mut String) {
        if keep_escapes {
            result.push(escape);
        }
        match self.peek() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == escape => {
                self.next();
                result.push(next);
            }
            Some(_) => result.push(escape),
        }
    }

    fn requote(&self, inner: String, quote: char) -> String {
        match self.rules.quotes {
            Quotes::Keep => format!("{quote}{inner}{quote}"),
            Quotes::Remove | Quotes::Literal => inner,
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.variable_at, self.at);
        let value = self.variable()?;
        self.variable_at = outer;
        Ok(value)
    }

    fn variable(&mut self) -> Result<String, ExpandError> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            if self.nesting >= MAX_NESTING {
                return self.error(format!("substitutions are nested more than {MAX_NESTING} deep"));
            }
            self.nesting += 1;
            let value = self.braced();
            self.nesting -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.look_up(&name) {
            Some(value) => self.grown(value),
            None if self.rules.keep_unset => Ok(format!("${name}")),
            None => Ok(String::new()),
        }
    }

    /// Reads the rest of `${…}` after the brace.
    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.peek() {
            None => return self.error("syntax error: missing '}'"),
            Some('{' | '}' | ':') => return self.error("syntax error: bad substitution"),
            Some(_) => {}
        }
        let name = self.name();
        let modifier_at = self.at;
        match self.next() {
            None => self.error("syntax error: missing '}'"),
            Some('}') => match self.look_up(&name) {
                Some(value) => self.grown(value),
                None if self.rules.keep_unset => Ok(format!("${{{name}}}")),
                None => Ok(String::new()),
            },
            Some(':') => {
                let Some(modifier) = self.next() else { return self.error("syntax error: missing '}'") };
                if !matches!(modifier, '-' | '+' | '?') {
                    self.at = modifier_at;
                    return self.error(format!("unsupported modifier (:{modifier}) in substitution"));
                }
                self.modified(&name, modifier, true)
            }
            Some(modifier @ ('-' | '+' | '?' | '#' | '%')) => self.modified(&name, modifier, false),
            Some('/') => self.replaced(&name),
            Some(modifier) => {
                self.at = modifier_at;
                self.error(format!("unsupported modifier ({modifier}) in substitution"))
            }
        }
    }

    /// Reads the rest of `${name-word}`, `${name:-word}` and similar forms after the modifier.
    fn modified(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Result<String, ExpandError> {
        let trims = matches!(modifier, '#' | '%');
        let word = self.operand('}', trims, "syntax error: missing '}'")?;
        // The word is copied once for each level of nesting.
        self.allowance.work(word.len()).or_else(|spent| self.spent(spent))?;
        let value = self.look_up(name);
        if value.is_none() && self.rules.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let present = value.is_some_and(|value| !(empty_is_unset && value.is_empty()));
        match modifier {
            '-' | '?' if present => self.grown(value.unwrap_or_default()),
            '-' => Ok(word),
            '+' if present => Ok(word),
            '+' => Ok(String::new()),
            '?' => {
                let state = if value.is_some() { "empty" } else { "unset" };
                let message = if word.is_empty() { format!("is not allowed to be {state}") } else { word };
                self.error(format!("{name}: {message}"))
            }
            _ => self.trimmed(modifier, &word, value.unwrap_or_default()),
        }
    }

    fn trimmed(&mut self, modifier: char, word: &str, value: &str) -> Result<String, ExpandError> {
        let (longest, word) = match word.strip_prefix(modifier) {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        let pattern = self.pattern(word)?;
        let kept = match modifier {
            '#' => pattern
                .match_prefix(value, longest, &mut self.allowance)
                .map(|end| &value[end.unwrap_or(0)..]),
            _ => pattern
                .match_suffix(value, longest, &mut self.allowance)
                .map(|start| &value[..start.unwrap_or(value.len())]),
        };
        match kept {
            Ok(kept) => self.grown(kept),
            Err(spent) => self.spent(spent),
        }
    }

    /// Reads the rest of `${name/pattern/replacement}` after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let word = self.operand('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true, "syntax error: missing '}'")?;
        let value = self.look_up(name);
        if value.is_none() && self.rules.keep_unset {
            let slashes = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slashes}{word}/{replacement}}}"));
        }
        let pattern = self.pattern(&word)?;
        let replaced = pattern.replace(value.unwrap_or_default(), &replacement, all, &mut self.allowance);
        replaced.or_else(|spent| self.spent(spent))
    }

    fn operand(&mut self, stop: char, keep_escapes: bool, at_end: &str) -> Result<String, ExpandError> {
        match self.read_until(Some(stop), keep_escapes) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.peek().is_none() => self.error(at_end),
            Err(error) => Err(error),
        }
    }

    fn pattern(&self, word: &str) -> Result<Pattern, ExpandError> {
        Pattern::new(word)
            .or_else(|reason| self.error(format!("invalid pattern ({word}) in substitution: {reason}")))
    }

    /// Reads a name, a run of digits, or one special parameter such as `@`; empty when none follows.
    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else { return String::new() };
        let length = if first.is_ascii_digit() {
            rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
        } else if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            1
        } else {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        };
        self.at += length;
        rest[..length].to_owned()
    }

    fn look_up(&mut self, name: &str) -> Option<&'a str> {
        let value = self.env.get(name);
        let seen = if value.is_some() { &mut self.read } else { &mut self.missed };
        seen.insert(name.to_owned());
        value
    }
}

#[cfg(test)]
mod tests;
