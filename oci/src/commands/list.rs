//! Commands `state`, `list` and `ps`.

use crate::arguments::Arguments;
use crate::error::{OciError, PsError};
use crate::state::Container;
use crate::{Globals, print};
use std::process::Command;

pub(super) fn state(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let container = globals.store.open(arguments.id("state")?)?;
    let text = serde_json::to_string_pretty(&container.report()).unwrap_or_default();
    print(&format!("{text}\n"))
}

pub(super) fn list(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let containers = globals.store.list()?;
    if arguments.has("quiet") {
        let ids: String = containers.iter().map(|container| format!("{}\n", container.record.id)).collect();
        return print(&ids);
    }
    match arguments.get("format").unwrap_or("table") {
        "json" => {
            let reports: Vec<_> = containers.iter().map(Container::report).collect();
            // As in runc, an empty list is `null`.
            let text = if reports.is_empty() {
                "null".to_owned()
            } else {
                serde_json::to_string(&reports).unwrap_or_default()
            };
            print(&format!("{text}\n"))
        }
        "table" => {
            let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            for container in &containers {
                let report = container.report();
                rows.push([
                    report.id.to_owned(),
                    report.pid.to_string(),
                    report.status.to_string(),
                    report.bundle.display().to_string(),
                    report.created.to_owned(),
                    report.owner.to_owned(),
                ]);
            }
            print(&table(&rows))
        }
        other => Err(OciError::usage(format!("invalid format option {other:?}: table and json exist"))),
    }
}

/// Table whose columns are as wide as their widest cell, three spaces apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn ps(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    let Some((id, options)) = arguments.words.split_first() else {
        return Err(OciError::usage("ps: the container's id is missing"));
    };
    let container = globals.store.open(id)?;
    let pids = processes(&container)?;
    // Flags may also follow the id.
    let later =
        Arguments::read(options, &[crate::arguments::value(&["format", "f"])], true).unwrap_or_default();
    let format = arguments.get("format").or_else(|| later.get("format")).unwrap_or("table");
    if format == "json" {
        return print(&format!("{}\n", serde_json::to_string(&pids).unwrap_or_default()));
    }
    if format != "table" {
        return Err(OciError::usage(format!("invalid format option {format:?}: table and json exist")));
    }
    let options: Vec<&str> = if options.is_empty() || later.has("format") {
        vec!["-ef"]
    } else {
        options.iter().map(String::as_str).collect()
    };
    let output = Command::new("ps").args(options).output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => PsError::Missing,
        _ => PsError::Start(error),
    })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        return Err(PsError::Failed { status: output.status, message }.into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        return Err(PsError::NoPids.into());
    };
    let of_container = lines.filter(|line| {
        let pid = line.split_whitespace().nth(column).and_then(|text| text.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    });
    let shown: String = std::iter::once(header).chain(of_container).map(|line| format!("{line}\n")).collect();
    print(&shown)
}

/// Pids of all processes of a container: those in its cgroups, or those in its pid namespace.
pub(crate) fn processes(container: &Container) -> Result<Vec<i32>, OciError> {
    let listed = container.record.groups.processes()?;
    if !listed.is_empty() {
        return Ok(listed);
    }
    const PROCESSES: u64 = 0x2000_0000;
    if container.pidfd().is_none() {
        return Ok(Vec::new());
    }
    if container.record.namespaces & PROCESSES == 0 {
        return Ok(vec![container.record.pid]);
    }
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&container.record.pid.to_string());
    let entries = std::fs::read_dir("/proc").map_err(OciError::file("read", "/proc".as_ref()))?;
    let mut found: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().map(str::to_owned))
        .filter(|name| own.is_some() && name.parse::<i32>().is_ok() && namespace(name) == own)
        .filter_map(|name| name.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}
