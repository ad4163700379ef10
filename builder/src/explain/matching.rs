//! Matching of steps with similar steps of the last build.

use super::Step;

/// Maximum length of compared texts; longer ones are compared by their beginnings.
const LONGEST: usize = 400;
/// Maximum number of compared pairs of steps; in larger builds only equal steps are matched.
const MOST_PAIRS: usize = 250_000;
/// Minimum similarity of two steps of a kind: a rewritten command still counts as a changed one.
const LEAST: f64 = 0.05;

/// Similar step of `before` for each step of `now`; `None` for new ones. Matches keep the order and maximize the sum of
/// similarities.
pub(super) fn matches(now: &[Step], before: &[Step]) -> Vec<Option<usize>> {
    let is_same = |(step, other): (&Step, &Step)| {
        (&step.kind, &step.stage, &step.text) == (&other.kind, &other.stage, &other.text)
    };
    if now.len() == before.len() && now.iter().zip(before).all(is_same) {
        return (0..now.len()).map(Some).collect();
    }
    let is_large = now.len() * before.len() > MOST_PAIRS;
    let pairs = |steps: &[Step]| steps.iter().map(|step| pairs(&step.text)).collect::<Vec<_>>();
    let (own, others) = if is_large { (Vec::new(), Vec::new()) } else { (pairs(now), pairs(before)) };
    let similarity = |a: usize, b: usize| -> f64 {
        let (step, other) = (&now[a], &before[b]);
        if step.kind != other.kind {
            return 0.0;
        }
        let alike = if step.text == other.text {
            1.0
        } else if is_large {
            0.0
        } else {
            LEAST + (0.9 - LEAST) * shared(&own[a], &others[b])
        };
        // Of several equal steps, the one of the same stage is preferred.
        if step.stage == other.stage { alike } else { alike * 0.9 }
    };
    // `best[a][b]` is the largest sum for the steps from `a` and `b` on.
    let mut best = vec![vec![0.0f64; before.len() + 1]; now.len() + 1];
    for a in (0..now.len()).rev() {
        for b in (0..before.len()).rev() {
            let apart = best[a + 1][b].max(best[a][b + 1]);
            let alike = similarity(a, b);
            best[a][b] = if alike > 0.0 { apart.max(alike + best[a + 1][b + 1]) } else { apart };
        }
    }
    let mut matched = vec![None; now.len()];
    let (mut a, mut b) = (0, 0);
    while a < now.len() && b < before.len() {
        let alike = similarity(a, b);
        if alike > 0.0 && best[a][b] == alike + best[a + 1][b + 1] {
            matched[a] = Some(b);
            (a, b) = (a + 1, b + 1);
        } else if best[a][b] == best[a + 1][b] {
            a += 1;
        } else {
            b += 1;
        }
    }
    matched
}

/// Pairs of adjacent characters of a text, sorted.
fn pairs(text: &str) -> Vec<[char; 2]> {
    let characters: Vec<char> = text.chars().take(LONGEST).collect();
    let mut pairs: Vec<[char; 2]> = characters.windows(2).map(|pair| [pair[0], pair[1]]).collect();
    pairs.sort_unstable();
    pairs
}

/// Similarity of two sorted lists, from 0 to 1.
fn shared(one: &[[char; 2]], other: &[[char; 2]]) -> f64 {
    let (mut a, mut b, mut both) = (0, 0, 0usize);
    while a < one.len() && b < other.len() {
        match one[a].cmp(&other[b]) {
            std::cmp::Ordering::Less => a += 1,
            std::cmp::Ordering::Greater => b += 1,
            std::cmp::Ordering::Equal => {
                (a, b) = (a + 1, b + 1);
                both += 1;
            }
        }
    }
    let all = one.len() + other.len();
    if all == 0 { 0.0 } else { 2.0 * both as f64 / all as f64 }
}
