//! Time to parse and lint Dockerfiles, by size: it must grow linearly.
//!
//! `cargo bench -p kiln-bench --bench parse`. The limits: parsing and linting 10,000 lines, and 1 MiB in one
//! instruction, takes less than 10 ms each.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kiln_parser::lint::{self, Choice, Facts};
use kiln_parser::{Source, parse};
use std::hint::black_box;
use std::time::Duration;

/// Generator of a text of at least `size` bytes.
type Shape = fn(usize) -> String;

const SHAPES: [(&str, Shape); 5] = [
    ("many instructions", many),
    ("one instruction", one),
    ("many stages", stages),
    ("many arguments", arguments),
    ("one heredoc", heredoc),
];

fn read(text: &str) -> usize {
    let source = Source::new("Dockerfile", text);
    parse(&source).diagnostics.len()
}

fn read_and_lint(text: &str) -> usize {
    let source = Source::new("Dockerfile", text);
    let choice = Choice { own: true, ..Choice::default() };
    lint::lint(&parse(&source), &source, &Facts::default(), &choice).findings.len()
}

/// Measures the two files with limits.
fn limits(criterion: &mut Criterion) {
    let lines: String = std::iter::once("FROM busybox:1\n".to_owned())
        .chain((0..9_999).map(|number| format!("RUN echo {number} > /file{number}\n")))
        .collect();
    let mut group = criterion.benchmark_group("limits");
    for (name, text) in [("10,000 lines", lines), ("1 MiB in one instruction", one(1 << 20))] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("parse", name), |bencher| {
            bencher.iter(|| read(black_box(&text)))
        });
        group.bench_function(BenchmarkId::new("parse and lint", name), |bencher| {
            bencher.iter(|| read_and_lint(black_box(&text)));
        });
    }
    group.finish();
}

/// Measures sizes from 1 KiB to 16 MiB: the time for each byte must not grow.
fn sizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse and lint");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (name, shape) in SHAPES {
        for size in [1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 24] {
            let text = shape(size);
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(BenchmarkId::new(name, format!("{} KiB", size >> 10)), |bencher| {
                bencher.iter(|| read_and_lint(black_box(&text)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, limits, sizes);
criterion_main!(benches);

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
