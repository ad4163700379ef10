//! Suggestions for misspelt words ("did you mean …?").

/// Largest edit distance of a suggestion; the reference builder uses two as well.
const MAX_EDITS: usize = 2;

/// Candidate nearest to `word`, ignoring case, in the letter case of `word`.
///
/// `None` when no candidate is near, or when one equals the word: then the word is not the error.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = edit_distance(&lower, &candidate.to_lowercase());
        if distance == 0 {
            return None;
        }
        if distance <= MAX_EDITS && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| match_case(candidate, word))
}

/// Candidate nearest to the name of a variable, whose letter case counts; `None` as in [`nearest`].
pub fn nearest_variable<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().filter(|candidate| !candidate.is_empty()) {
        let distance = edit_distance(word, candidate);
        if distance == 0 {
            return None;
        }
        if distance <= MAX_EDITS && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn match_case(candidate: &str, like: &str) -> String {
    if like == like.to_lowercase() {
        candidate.to_lowercase()
    } else if like == like.to_uppercase() {
        candidate.to_uppercase()
    } else {
        candidate.to_owned()
    }
}

/// Levenshtein distance; words whose lengths differ too much count as far apart.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > MAX_EDITS {
        return MAX_EDITS + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_in_the_case_of_the_word() {
        let names = ["FROM", "RUN", "COPY"];
        assert_eq!(nearest("FROMM", names), Some("FROM".into()));
        assert_eq!(nearest("cpoy", names), Some("copy".into()));
        assert_eq!(nearest("xyzzy", names), None);
        assert_eq!(nearest("run", names), None);
    }
}
