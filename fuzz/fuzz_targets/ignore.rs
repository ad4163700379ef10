//! Pruning never changes the ignored paths. Input: patterns, a line `=`, paths.
#![no_main]

use kiln_parser::ignore::Patterns;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (patterns, paths) = text.split_once("\n=\n").unwrap_or((text, "a\na/b\na/b/c"));
    let Ok(patterns) = Patterns::parse(patterns) else { return };
    for path in paths.lines().filter(|path| is_clean(path)).take(20) {
        let decision = patterns.decide_without_parent(path);
        patterns.decided_by(&decision);
        // No directory above an included path may have been pruned.
        if !decision.is_ignored() {
            for (end, _) in path.match_indices('/') {
                let dir = patterns.decide_without_parent(&path[..end]);
                assert!(!patterns.prunes(&path[..end], &dir), "{:?} is pruned, {path:?} stays", &path[..end]);
            }
        }
    }
});

fn is_clean(path: &str) -> bool {
    path.len() < 200 && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
