//! How long reading and linting Dockerfiles takes, by size: it must grow as the file does.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use kiln_parser::lint::{self, Choice, Facts};
use kiln_parser::{Source, parse};
use std::time::Instant;

const ROUNDS: usize = 15;

/// Builds a text of at least `size` bytes.
type Shape = fn(usize) -> String;

const SHAPES: [(&str, Shape); 5] = [
    ("many instructions", many),
    ("one long RUN", one),
    ("many stages", stages),
    ("many ARGs", arguments),
    ("one heredoc", heredoc),
];

fn main() {
    println!("| shape | KiB | lines | parse ms | parse and lint ms | ns a byte |\n|---|---|---|---|---|---|");
    for (name, shape) in SHAPES {
        for size in [1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 24] {
            row(name, &shape(size));
        }
    }
    let lines: String = std::iter::once("FROM busybox:1\n".to_owned())
        .chain((0..9_999).map(|number| format!("RUN echo {number} > /file{number}\n")))
        .collect();
    row("10,000 lines", &lines);
}

fn row(name: &str, text: &str) {
    let rounds = if text.len() > 1 << 21 { 3 } else { ROUNDS };
    let choice = Choice { own: true, ..Choice::default() };
    let (mut parsing, mut all) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        let source = Source::new("Dockerfile", text);
        let parsed = parse(&source);
        parsing.push(begun.elapsed());
        std::hint::black_box(lint::lint(&parsed, &source, &Facts::default(), &choice));
        all.push(begun.elapsed());
    }
    let median = |mut times: Vec<std::time::Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let (parsing, all) = (median(parsing), median(all));
    let (kib, lines) = (text.len() as f64 / 1024.0, text.lines().count());
    let each = all * 1e6 / text.len() as f64;
    println!("| {name} | {kib:.0} | {lines} | {parsing:.2} | {all:.2} | {each:.1} |");
}

fn repeat(head: &str, size: usize, line: impl Fn(usize) -> String) -> String {
    let mut text = head.to_owned();
    for number in 0.. {
        if text.len() >= size {
            break;
        }
        text.push_str(&line(number));
    }
    text
}

fn many(size: usize) -> String {
    repeat("FROM busybox:1\n", size, |number| {
        format!(
            "RUN make target-{number} && echo \"$HOME\" done\nENV NAME{number}=value\nCOPY file{number} /dir/\n"
        )
    })
}

fn one(size: usize) -> String {
    repeat("FROM busybox:1\nRUN true", size, |number| {
        format!(" && \\\n    step-{number} --with 'an argument'")
    }) + "\n"
}

fn stages(size: usize) -> String {
    repeat("", size, |number| format!("FROM busybox:1 AS stage{number}\nCOPY --from=stage0 /a /b\n"))
}

fn arguments(size: usize) -> String {
    repeat("FROM busybox:1\n", size, |number| format!("ARG NAME{number}=value\n"))
}

fn heredoc(size: usize) -> String {
    repeat("FROM busybox:1\nRUN <<EOF\nset -e\n", size, |number| format!("echo line {number} of $many\n"))
        + "EOF\n"
}
