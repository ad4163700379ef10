//! Time of whole commands, compared with a Docker daemon if one answers: `commands KILN [ROUNDS] [MEBIBYTES]`.
//!
//! Needs root and a mirror with a busybox image (`scripts/with-bases`). Prints minimum, median and 90th percentile of
//! the wall time in milliseconds, and the peak memory of a build that copies a large file.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use kiln_bench::{Outcome, samples::Samples};
use nix::sys::resource::{UsageWho, getrusage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, default: usize| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let Some(kiln) = arguments.first() else {
        eprintln!("usage: commands KILN [ROUNDS] [MEBIBYTES]");
        return ExitCode::FAILURE;
    };
    match measure(Path::new(kiln), number(1, 20), number(2, 2048)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("commands: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Number of bytes that each stage of work hashes.
const WORK_BYTES: u64 = 200_000_000;

fn measure(kiln: &Path, rounds: usize, mebibytes: usize) -> Outcome<()> {
    let kiln = fs::canonicalize(kiln)?.display().to_string();
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/var/tmp")?;
    let bench = Bench { root: dir.path().to_owned(), rounds };
    let hello = fs::canonicalize("testdata/hello")?.display().to_string();
    let ten = bench.context("ten", "FROM busybox\n".to_owned() + &"RUN true\n".repeat(10))?;

    // Measured first: the kernel keeps one peak for all children so far.
    let peak = bench.copy_peak(&kiln, mebibytes)?;
    println!("| COPY of {mebibytes} MiB, peak memory of one process | {peak} MiB |\n");

    println!("| | min ms | median ms | p90 ms |\n|---|---|---|---|");
    bench.run(&[&kiln, "build", "-q", "-t", "hello", &hello])?;
    bench.row("kiln build, ten RUN true, --no-cache", &[&kiln, "build", "-q", "--no-cache", &ten])?;
    bench.row("kiln build of testdata/hello, all cached", &[&kiln, "build", "-q", "-t", "hello", &hello])?;
    bench.row("kiln run --rm hello", &[&kiln, "run", "--rm", "hello"])?;
    bench.row("kiln run --rm --network none hello", &[&kiln, "run", "--rm", "--network", "none", "hello"])?;
    bench.objects(&kiln)?;
    let long = Bench { rounds: rounds.min(3), ..bench };
    // The longest path through the graph takes two seconds; on two processors it is half of the work.
    let sleeps = long.stages("sleeps", 6, "sleep 2")?;
    let work = long.stages("work", 4, &format!("head -c {} /dev/zero | sha256sum", WORK_BYTES))?;
    long.row(
        "kiln build, six stages of sleep 2, --no-cache",
        &[&kiln, "build", "-q", "--no-cache", &sleeps],
    )?;
    long.row("kiln build, four stages of work, --no-cache", &[&kiln, "build", "-q", "--no-cache", &work])?;
    let bench = Bench { rounds, ..long };
    if bench.run(&["docker", "build", "-q", "-t", "hello", &hello]).is_err() {
        println!("\nno Docker daemon to compare with: set DOCKER_HOST");
        return Ok(());
    }
    let few = Bench { rounds: rounds.min(5), ..bench };
    few.row("docker build, ten RUN true, --no-cache", &["docker", "build", "-q", "--no-cache", &ten])?;
    few.row(
        "docker build, six stages of sleep 2, --no-cache",
        &["docker", "build", "-q", "--no-cache", &sleeps],
    )?;
    few.row(
        "docker build, four stages of work, --no-cache",
        &["docker", "build", "-q", "--no-cache", &work],
    )?;
    few.row("docker build of testdata/hello, all cached", &["docker", "build", "-q", "-t", "hello", &hello])?;
    few.row("docker run --rm hello", &["docker", "run", "--rm", "hello"])
}

struct Bench {
    root: PathBuf,
    rounds: usize,
}

impl Bench {
    /// Creates a directory with a Dockerfile; returns its path.
    fn context(&self, name: &str, dockerfile: String) -> Outcome<String> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("Dockerfile"), dockerfile)?;
        Ok(dir.display().to_string())
    }

    /// Creates a context whose stages each run a command and store its output, and a last stage that copies all of it.
    fn stages(&self, name: &str, count: usize, command: &str) -> Outcome<String> {
        let mut dockerfile = String::new();
        for number in 0..count {
            dockerfile +=
                &format!("FROM busybox AS s{number}\nRUN echo {number} && {command} >/out{number}\n");
        }
        dockerfile += "FROM busybox\n";
        for number in 0..count {
            dockerfile += &format!("COPY --from=s{number} /out{number} /\n");
        }
        self.context(name, dockerfile)
    }

    fn run(&self, words: &[&str]) -> Outcome<Duration> {
        let begun = Instant::now();
        let status = Command::new(words[0])
            .args(&words[1..])
            .env("KILN_ROOT", self.root.join("store"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        let took = begun.elapsed();
        if status.success() {
            Ok(took)
        } else {
            Err(format!("`{}` failed: {status}", words.join(" ")).into())
        }
    }

    /// Rows about volumes, networks and a container that runs.
    fn objects(&self, kiln: &str) -> Outcome<()> {
        self.row_undone(
            "kiln volume create",
            &[kiln, "volume", "create", "bench"],
            &[kiln, "volume", "rm", "bench"],
        )?;
        self.row_undone(
            "kiln network create",
            &[kiln, "network", "create", "bench"],
            &[kiln, "network", "rm", "bench"],
        )?;
        self.run(&[kiln, "network", "create", "bench"])?;
        let outcome = (|| {
            self.row(
                "kiln run --rm --network USERS hello",
                &[kiln, "run", "--rm", "--network", "bench", "hello"],
            )?;
            self.run(&[
                kiln,
                "run",
                "-d",
                "--name",
                "idle",
                "--network",
                "bench",
                "busybox",
                "sleep",
                "9999",
            ])?;
            self.row("kiln exec true", &[kiln, "exec", "idle", "true"])?;
            self.row("kiln run -d", &[kiln, "run", "-d", "--rm", "hello"])?;
            self.row("kiln ps", &[kiln, "ps"])
        })();
        self.run(&[kiln, "rm", "-f", "idle"])?;
        self.run(&[kiln, "network", "rm", "bench"])?;
        outcome
    }

    fn row(&self, name: &str, words: &[&str]) -> Outcome<()> {
        self.row_undone(name, words, &[])
    }

    /// Like [`Bench::row`], with a command after each one that is not measured.
    fn row_undone(&self, name: &str, words: &[&str], undo: &[&str]) -> Outcome<()> {
        let once = || {
            let took = self.run(words)?;
            if undo.is_empty() { Ok(took) } else { self.run(undo).map(|_| took) }
        };
        once()?;
        let mut times = Samples::default();
        for _ in 0..self.rounds.max(1) {
            times.push(once()?.as_secs_f64() * 1e3);
        }
        println!("| {name} | {:.1} | {:.1} | {:.1} |", times.min(), times.median(), times.p90());
        Ok(())
    }

    /// Peak memory in MiB of a build that copies a file of that many MiB.
    fn copy_peak(&self, kiln: &str, mebibytes: usize) -> Outcome<i64> {
        let context = self.context("large", "FROM busybox\nCOPY large /\n".to_owned())?;
        let mut file = fs::File::create(Path::new(&context).join("large"))?;
        let mut block = vec![0u8; 1 << 20];
        for number in 0..mebibytes {
            // No two blocks are alike, and there are no holes.
            block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 + number * 17) as u8 | 1);
            std::io::Write::write_all(&mut file, &block)?;
        }
        drop((file, block));
        self.run(&[kiln, "build", "-q", &context])?;
        fs::remove_dir_all(&context)?;
        Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() / 1024)
    }
}
