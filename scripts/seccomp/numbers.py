#!/usr/bin/env python3
"""Writes runtime/src/seccomp/numbers.rs from a table of system calls.

Usage: numbers.py SYSCALLS.CSV >runtime/src/seccomp/numbers.rs

The table has a column for each architecture, as libseccomp's `src/syscalls.csv` has, which is made from the
kernel's own tables. Only numbers and names are taken.
"""

import csv
import sys

COLUMNS = ["x86_64", "x86", "x32", "aarch64", "arm", "riscv64", "loongarch64", "ppc64", "s390x", "s390"]


def main():
    with open(sys.argv[1], newline="") as file:
        rows = list(csv.reader(file))
    version = rows[0][0].split("(", 1)[1].split()[0]
    index = [rows[0].index(name) for name in COLUMNS]
    table = []
    for row in rows[1:]:
        numbers = [-1 if row[at] == "PNR" else int(row[at]) for at in index]
        if max(numbers) >= 0:
            table.append((row[0], numbers))
    table.sort()
    print(f"""//! System call numbers by name, for each architecture; -1 where an architecture lacks the call.
//!
//! The numbers of the kernel's own tables, Linux {version}, as libseccomp 2.6.1 lists them in
//! `src/syscalls.csv`; those of Linux 6.1 were compared with its user headers.
//! `scripts/seccomp/numbers.py` writes this file.

/// Sorted by name. Columns: x86-64, i386, x32 (without its bit), arm64, arm (EABI), riscv64, loongarch64,
/// ppc64, s390x, s390.
#[rustfmt::skip]
pub(super) const NUMBERS: &[(&str, [i32; {len(COLUMNS)}])] = &[""")
    for name, numbers in table:
        print(f'    ("{name}", [{", ".join(map(str, numbers))}]),')
    print("];")


main()
