//! Expansion reports every variable that it reads, and those it reports as missing are unset.
//!
//! Input: pairs of name and value in lines, then the word after a line that consists of `=`.
#![no_main]

use kiln_parser::expand::{self, Environment, Rules};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

struct Watched {
    values: BTreeMap<String, String>,
    asked: RefCell<BTreeSet<String>>,
}

impl Environment for Watched {
    fn get(&self, name: &str) -> Option<&str> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.values.get(name).map(String::as_str)
    }
}

fuzz_target!(|text: &str| {
    let (head, word) = text.split_once("\n=\n").unwrap_or(("", text));
    let pairs = head.lines().filter_map(|line| line.split_once('='));
    let values: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for rules in [Rules::value('\\'), Rules::value('`'), Rules::heredoc_body()] {
        let env = Watched { values: values.clone(), asked: RefCell::default() };
        if let Ok(expansion) = expand::expand(word, &env, rules) {
            let reported: BTreeSet<String> = expansion.read.union(&expansion.missed).cloned().collect();
            assert_eq!(reported, env.asked.take());
            assert!(expansion.missed.iter().all(|name| !values.contains_key(name)));
        }
        if let Ok(words) = expand::expand_words(word, &values, rules) {
            assert!(words.value.iter().all(|found| found.at <= word.len()));
        }
    }
});
