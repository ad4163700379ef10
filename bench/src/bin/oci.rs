//! Cost of a container as whole commands: `oci [FLAGS] [KILN]`, as root. README.md shows how it is run.
//!
//! Measured in interleaved rounds: the program alone (fork and exec of a static `true`), the floor (the same program in
//! the cheapest container with the properties of ordinary ones, `floor/floor.c`), and `run` of one bundle by Kiln, crun
//! and runc, if installed. Prints tables in Markdown; times are milliseconds of wall time from before fork and exec of
//! the command to its reaped exit.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use kiln_bench::bundle::{self, Variant};
use kiln_bench::probe::{self, Probe};
use kiln_bench::samples::Samples;
use kiln_bench::step::Fixture;
use kiln_bench::{Outcome, busybox};
use kiln_runtime::Spawner;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: oci [FLAGS] [KILN]

  -n ROUNDS      how often each command is run (50)
  --limits       with a limit of memory and one of processes
  --no-seccomp   without a filter of system calls
  --pause MS     wait so long before each run (0)
  --syscalls     count the system calls of each command, too
  --memory       tell what the container's process has in memory before it runs its program, too
  --steps        measure a build step through the library, too

KILN, or else $KILN_BIN, is the program to measure. $CRUN and $RUNC name others than those in PATH, or none
when they are empty; $FLOOR a built floor.c (else cc builds it into target/bench), $BUSYBOX a static busybox,
$STRACE the words of a strace command.";
/// Number of rounds that are not counted: they fill the page cache and caches of programs.
const WARM_UP: usize = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.split_first() {
        Some((verb, command)) if verb == probe::VERB => probe::serve(command),
        _ => Options::read(&words).and_then(|options| measure(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oci: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    kiln: Option<String>,
    rounds: usize,
    pause: Duration,
    variant: Variant,
    syscalls: bool,
    memory: bool,
    steps: bool,
}

impl Options {
    fn read(words: &[String]) -> Outcome<Options> {
        let mut options = Options {
            kiln: std::env::var("KILN_BIN").ok().filter(|path| !path.is_empty()),
            rounds: 50,
            pause: Duration::ZERO,
            variant: Variant { limits: false, seccomp: true },
            syscalls: false,
            memory: false,
            steps: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || words.next().ok_or(USAGE)?.parse::<u64>().map_err(|_| USAGE);
            match word.as_str() {
                "-n" => options.rounds = number()?.max(1) as usize,
                "--pause" => options.pause = Duration::from_millis(number()?),
                "--limits" => options.variant.limits = true,
                "--no-seccomp" => options.variant.seccomp = false,
                "--syscalls" => options.syscalls = true,
                "--memory" => options.memory = true,
                "--steps" => options.steps = true,
                flag if flag.starts_with('-') => return Err(USAGE.into()),
                path => options.kiln = Some(path.to_owned()),
            }
        }
        Ok(options)
    }
}

fn measure(options: &Options) -> Outcome<()> {
    let hidden = hide_unified_hierarchy()?;
    // The helper of the library is forked before anything else is in memory.
    let spawner = options.steps.then(Spawner::start).transpose()?;
    let busybox = busybox()?;
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/var/tmp")?;
    bundle::write(dir.path(), &busybox, options.variant)?;
    let mut rows = rows(options, dir.path())?;

    println!("{}\n", host_line(options, hidden)?);
    time(&mut rows, options);
    print_times(&rows);
    if options.syscalls {
        print_system_calls(&rows, &dir.path().join("strace"));
    }
    if options.memory {
        print_memory(&rows, &dir.path().join("pid"));
    }
    if let Some(spawner) = spawner {
        print_steps(&spawner, &Fixture::new(&busybox)?, options.rounds)?;
    }
    // Other runtimes may fail for their own reasons; the rows of this project must work.
    let ours = |row: &&Row| [PLAIN, FLOOR, KILN].contains(&row.name.as_str());
    match rows.iter().filter(ours).find(|row| row.failure.is_some()) {
        Some(row) => Err(format!("{} fails", row.name).into()),
        None => Ok(()),
    }
}

/// A command and the results of its rounds.
struct Row {
    name: String,
    words: Vec<String>,
    wall: Samples,
    cpu: Samples,
    /// Peak memory in MiB.
    peak: f64,
    failure: Option<String>,
}

impl Row {
    fn new(name: impl Into<String>, words: &[&str]) -> Row {
        Row {
            name: name.into(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            wall: Samples::default(),
            cpu: Samples::default(),
            peak: 0.0,
            failure: None,
        }
    }

    /// Reason of the command's failure: its error output, if there is any.
    fn diagnose(&self, otherwise: String) -> String {
        let output = probe::command(&self.words, &format!("bench-{}-failed", std::process::id()))
            .and_then(|mut command| Ok(command.output()?));
        let said = output.map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
        match said {
            Ok(said) if !said.is_empty() => said.lines().collect::<Vec<_>>().join(" ").replace('|', "\\|"),
            _ => otherwise,
        }
    }
}

const PLAIN: &str = "fork+exec of the program";
const FLOOR: &str = "floor";
const KILN: &str = "kiln oci run";

fn rows(options: &Options, bundle: &Path) -> Outcome<Vec<Row>> {
    let root = bundle.join("rootfs").display().to_string();
    let bundle = bundle.display().to_string();
    let floor = floor()?.display().to_string();
    let run = |program: &str, words: &[&str]| -> Vec<String> {
        let words = [&[program], words, &["run", "-b", &bundle, probe::FRESH]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let row = |name: String, words: Vec<String>| Row { words, ..Row::new(name, &[]) };

    let mut rows = vec![Row::new(PLAIN, &[&format!("{root}/bin/true")]), Row::new(FLOOR, &[&floor, &root])];
    if let Some(kiln) = &options.kiln {
        let kiln = fs::canonicalize(kiln).map_err(|error| format!("{kiln}: {error}"))?.display().to_string();
        rows.push(row(KILN.to_owned(), run(&kiln, &["oci"])));
    }
    if let Some(crun) = program("crun", "CRUN") {
        let name = version(&crun)?;
        rows.push(row(format!("{name} run"), run(&crun, &[])));
        if !options.variant.limits {
            let words = run(&crun, &["--cgroup-manager=disabled"]);
            rows.push(row(format!("{name} run, no control group"), words));
        }
    }
    if let Some(runc) = program("runc", "RUNC") {
        rows.push(row(format!("{} run", version(&runc)?), run(&runc, &[])));
    }
    Ok(rows)
}

/// Program that a variable names (`None` if it is empty), or else that of the host.
fn program(name: &str, variable: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(path) if path.is_empty() => None,
        Ok(path) => Some(path),
        Err(_) => {
            let dirs = std::env::var_os("PATH").unwrap_or_default();
            let dirs = std::env::split_paths(&dirs).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
            let mut paths = dirs.map(|dir| dir.join(name));
            Some(paths.find(|path| path.exists())?.display().to_string())
        }
    }
}

/// Name and version of a runtime, from a first line `NAME version 1.2`.
fn version(program: &str) -> Outcome<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().ok_or_else(|| format!("`{program} --version` prints nothing"))?;
    Ok(line.replace(" version ", " "))
}

/// Compiles the floor, unless a variable names it.
fn floor() -> Outcome<PathBuf> {
    if let Some(path) = std::env::var_os("FLOOR") {
        return Ok(fs::canonicalize(path)?);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = target.join("bench");
    fs::create_dir_all(&dir)?;
    let path = fs::canonicalize(dir)?.join("floor");
    let mut compiler = Command::new("cc")
        .args(["-O2", "-static", "-x", "c", "-", "-o"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cc: {error} (set FLOOR to one that was built elsewhere)"))?;
    let mut input = compiler.stdin.take().ok_or("the compiler has no input")?;
    input.write_all(include_bytes!("../../floor/floor.c"))?;
    drop(input);
    let status = compiler.wait()?;
    if status.success() { Ok(path) } else { Err(format!("cc of floor.c failed: {status}").into()) }
}

/// Unmounts cgroup2 where it is mounted beside v1 controllers: there crun refuses to run. Done in a separate mount
/// namespace, which all measured commands share. Returns whether there was such a mount.
fn hide_unified_hierarchy() -> Outcome<bool> {
    let root = || "needs root: it makes a mount namespace";
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("{}: {error}", root()))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let beside = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(path, kind)| *kind == "cgroup2" && path.starts_with("/sys/fs/cgroup/"));
    let mut hidden = false;
    for (path, _) in beside {
        umount2(path, MntFlags::MNT_DETACH)?;
        hidden = true;
    }
    Ok(hidden)
}

fn host_line(options: &Options, hidden: bool) -> Outcome<String> {
    let system = rustix::system::uname();
    let load = fs::read_to_string("/proc/loadavg")?;
    let processors = std::thread::available_parallelism()?;
    let groups = match (hidden, Path::new("/sys/fs/cgroup/cgroup.controllers").exists()) {
        (true, _) => "cgroup v1 (a cgroup2 mount beside it is hidden)",
        (false, true) => "cgroup v2",
        (false, false) => "cgroup v1",
    };
    let with = |yes: bool| if yes { "with" } else { "without" };
    Ok(format!(
        "{} rounds; Linux {}, {processors} processors, {groups}, load {} at the start; {} limits, {} seccomp",
        options.rounds,
        system.release().to_string_lossy(),
        load.split(' ').next().unwrap_or_default(),
        with(options.variant.limits),
        with(options.variant.seccomp),
    ))
}

/// Runs all rows round by round, every second round backwards, so that no row always follows the same one.
fn time(rows: &mut [Row], options: &Options) {
    let mut probes: Vec<Option<Probe>> = Vec::new();
    for row in &mut *rows {
        let probe = Probe::start(&row.words).map_err(|error| row.failure = Some(error.to_string()));
        probes.push(probe.ok());
    }
    for round in 0..WARM_UP + options.rounds {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let (row, Some(probe)) = (&mut rows[index], &mut probes[index]) else { continue };
            std::thread::sleep(options.pause);
            match probe.run() {
                Ok(run) if round >= WARM_UP => {
                    row.wall.push(run.wall);
                    row.cpu.push(run.cpu);
                    row.peak = run.peak as f64 / 1024.0;
                }
                Ok(_) => {}
                Err(error) => {
                    row.failure = Some(row.diagnose(error.to_string()));
                    probes[index] = None;
                }
            }
        }
    }
}

fn print_times(rows: &[Row]) {
    let median = |start: &str| {
        let mut found = rows.iter().filter(|row| row.failure.is_none() && row.name.starts_with(start));
        found.next().map(|row| row.wall.median())
    };
    let (floor, crun) = (median(FLOOR), median("crun"));
    println!("| command | min | median | p90 | CPU median | peak MiB | × floor | × crun |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in rows {
        if let Some(failure) = &row.failure {
            println!("| {} | fails: {failure} | | | | | | |", row.name);
            continue;
        }
        let times = |other: Option<f64>| {
            other.map_or(String::new(), |other| format!("{:.2}", row.wall.median() / other))
        };
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} |",
            row.name,
            row.wall.min(),
            row.wall.median(),
            row.wall.p90(),
            row.cpu.median(),
            row.peak,
            times(floor),
            times(crun)
        );
    }
}

fn print_system_calls(rows: &[Row], report: &Path) {
    println!("\n| command | system calls |\n|---|---|");
    for row in rows.iter().filter(|row| row.failure.is_none()) {
        match system_calls(&row.words, report) {
            Ok(count) => println!("| {} | {count} |", row.name),
            Err(error) => println!("| {} | {error} |", row.name),
        }
    }
}

/// Number of system calls of a command and its descendants: the median of three runs, as threads make it vary.
fn system_calls(words: &[String], report: &Path) -> Outcome<u64> {
    let strace = std::env::var("STRACE").unwrap_or_else(|_| "strace".to_owned());
    let mut traced: Vec<String> = strace.split_whitespace().map(str::to_owned).collect();
    traced.extend(["-f".to_owned(), "-c".to_owned(), "-o".to_owned(), report.display().to_string()]);
    traced.extend(words.iter().cloned());
    let mut counts = Samples::default();
    for number in 0..3 {
        let id = format!("bench-{}-traced-{number}", std::process::id());
        let mut command = probe::command(&traced, &id)?;
        let output = command.output().map_err(|error| format!("{strace}: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ").into());
        }
        counts.push(total(&fs::read_to_string(report)?).ok_or("strace gives no total")?);
    }
    Ok(counts.median() as u64)
}

/// Number of calls in the last line of strace's summary: `% time, seconds, usecs/call, calls, errors, total`.
fn total(summary: &str) -> Option<f64> {
    let line = summary.lines().rfind(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn print_memory(rows: &[Row], pid_file: &Path) {
    println!("\n| before its program runs | peak MiB of the container's process |\n|---|---|");
    let runs = |row: &&Row| row.failure.is_none() && row.words.iter().any(|word| word == "run");
    for row in rows.iter().filter(runs) {
        match peak_of_waiting(&row.words, pid_file) {
            Ok(peak) => println!("| {} | {:.2} |", row.name, peak as f64 / 1024.0),
            Err(error) => println!("| {} | {error} |", row.name),
        }
    }
}

/// Peak memory in KiB of a container's init process while it waits for the start: only its program is not executed yet.
fn peak_of_waiting(run: &[String], pid_file: &Path) -> Outcome<u64> {
    let id = format!("bench-{}-waits", std::process::id());
    let verb = run.iter().position(|word| word == "run").ok_or("it does not run")?;
    let command = |words: &[&str]| -> Outcome<()> {
        let mut command = Command::new(&run[0]);
        command.args(&run[1..verb]).args(words);
        // The waiting process keeps the streams open, so waiting for their end would block.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", words[0]).into()) }
    };
    let bundle = run.get(verb + 2).ok_or("it has no bundle")?;
    let file = pid_file.display().to_string();
    command(&["create", "--bundle", bundle, "--pid-file", &file, &id])?;
    let peak = peak_of(fs::read_to_string(pid_file)?.trim());
    command(&["delete", "--force", &id])?;
    peak
}

fn peak_of(pid: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("it has ended")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Prints the additional time of a program in a complete container of the library.
fn print_steps(spawner: &Spawner, fixture: &Fixture, rounds: usize) -> Outcome<()> {
    let spec = fixture.spec(|_| {});
    let (mut alone, mut contained) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + rounds {
        let begun = Instant::now();
        fixture.plain()?;
        let between = Instant::now();
        fixture.container(spawner, &spec)?;
        if round >= WARM_UP {
            alone.push((between - begun).as_secs_f64() * 1e3);
            contained.push(between.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!("\n| a build step through the library | min | median | p90 |\n|---|---|---|---|");
    for (name, times) in [("the program alone", &alone), ("in a complete container", &contained)] {
        println!("| {name} | {:.2} | {:.2} | {:.2} |", times.min(), times.median(), times.p90());
    }
    let (least, usual) = (contained.min() - alone.min(), contained.median() - alone.median());
    println!("| difference; claimed are at most 3 | {least:.2} | {usual:.2} | |");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_of_a_summary_is_found_with_and_without_errors() {
        let head = "% time     seconds  usecs/call     calls    errors syscall\n";
        let with = format!("{head}100.00    0.001426          16        89        10 total\n");
        let without = format!("{head}100.00    0.001426          16        15           total\n");
        assert_eq!((total(&with), total(&without), total(head)), (Some(89.0), Some(15.0), None));
    }
}
