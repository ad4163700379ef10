#!/usr/bin/env python3
"""Records what libseccomp decides for the profiles of runtime/testdata/seccomp.

Usage: record.py            record all cases anew
       record.py --profiles write the random profiles anew, too

Needs Python's `seccomp` module (Debian: python3-seccomp, libseccomp 2.5.4). A case is a directory with `profile.json`
in the OCI runtime specification's form, for a machine of the first architecture in it. From it the filter is built
as runc builds it, run over calls and arguments, and what it decides is written to `decisions.txt`:

    unknown NAME…                         names that this libseccomp does not know; they do not count
    AUDIT FIRST LAST ACTION               calls by number, all arguments 0
    AUDIT NUMBER A0 A1 A2 A3 A4 A5 ACTION a call with these arguments

All numbers but the calls' are hexadecimal. Last comes runc's rule about calls that are newer than the profile.
"""

import json
import pathlib
import random
import struct
import sys
import tempfile

import seccomp

CASES = pathlib.Path(__file__).parents[2] / "runtime/testdata/seccomp"
MASK64 = (1 << 64) - 1
X32 = 0x40000000
ENOSYS = 0x00050026

# OCI name, without SCMP_ARCH_: libseccomp's name, AUDIT_ARCH_…, big-endian, bits
ARCHES = {
    "X86_64": ("x86_64", 0xC000003E, False, 64),
    "X86": ("x86", 0x40000003, False, 32),
    "X32": ("x32", 0xC000003E, False, 32),
    "AARCH64": ("aarch64", 0xC00000B7, False, 64),
    "ARM": ("arm", 0x40000028, False, 32),
    "RISCV64": ("riscv64", 0xC00000F3, False, 64),
    "PPC64LE": ("ppc64le", 0xC0000015, False, 64),
    "S390X": ("s390x", 0x80000016, True, 64),
    "S390": ("s390", 0x00000016, True, 32),
}
OPERATORS = {
    "NE": seccomp.NE, "LT": seccomp.LT, "LE": seccomp.LE, "EQ": seccomp.EQ,
    "GE": seccomp.GE, "GT": seccomp.GT, "MASKED_EQ": seccomp.MASKED_EQ,
}


def action(name, errno):
    errno = 1 if errno is None else errno
    return {
        "KILL": seccomp.KILL, "KILL_THREAD": seccomp.KILL, "KILL_PROCESS": seccomp.KILL_PROCESS,
        "TRAP": seccomp.TRAP, "LOG": seccomp.LOG, "ALLOW": seccomp.ALLOW, "NOTIFY": seccomp.NOTIFY,
        "ERRNO": seccomp.ERRNO(errno), "TRACE": seccomp.TRACE(errno),
    }[name.removeprefix("SCMP_ACT_")]


def arches(profile):
    return [ARCHES[name.removeprefix("SCMP_ARCH_")] for name in profile["architectures"]]


def token(arch):
    return getattr(seccomp.Arch, arch[0].upper())


def number(arch, name):
    """The number on an architecture; negative for none."""
    try:
        return seccomp.resolve_syscall(token(arch), name)
    except ValueError:
        return -1


def known(profile, name):
    """From 424 on, new calls have one number on all architectures; this libseccomp lacks some of them on some."""
    try:
        native = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    except ValueError:
        return False
    return native != -1 and (native < 424 or all(number(arch, name) >= 0 for arch in arches(profile)))


def rules(profile):
    """Each rule as runc splits it: name, action, conditions."""
    for group in profile.get("syscalls", []):
        args = group.get("args", [])
        indexes = [arg["index"] for arg in args]
        parts = [[arg] for arg in args] if len(set(indexes)) < len(indexes) else [args]
        for name in group["names"]:
            for part in parts:
                yield name, action(group["action"], group.get("errnoRet")), part


def build(profile, names):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    filter = seccomp.SyscallFilter(default)
    machine = arches(profile)
    if machine[0][0] != "x86_64":
        filter.remove_arch(seccomp.Arch.NATIVE)
    for arch in machine:
        if not filter.exist_arch(token(arch)):
            filter.add_arch(token(arch))
    for name, decided, args in rules(profile):
        if decided != default and name in names:
            conditions = [
                seccomp.Arg(arg["index"], OPERATORS[arg["op"].removeprefix("SCMP_CMP_")], arg["value"], arg.get("valueTwo", 0))
                for arg in args
            ]
            filter.add_rule(decided, name, *conditions)
    with tempfile.TemporaryFile() as file:
        filter.export_bpf(file)
        file.seek(0)
        program = file.read()
    order = ">" if machine[0][2] else "<"
    return list(struct.iter_unpack(order + "HBBI", program))


def run(program, arch, nr, args):
    order = ">" if arch[2] else "<"
    data = struct.pack(order + "IIQ6Q", nr, arch[1], 0, *args)
    at = accumulator = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from(order + "I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        elif code == 0x06:
            # For big-endian machines libseccomp turns the bytes of some actions only.
            known = k >> 16 in (0x8000, 3, 5, 0x7FC0, 0x7FF0, 0x7FFC, 0x7FFF) or k == 0
            return k if known else struct.unpack("<I", struct.pack(">I", k))[0]
        else:
            test = {
                0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: accumulator & k != 0,
            }[code]
            at += yes if test else no


def newest(profile, names, arch):
    numbers = [number(arch, name) for group in profile.get("syscalls", []) for name in group["names"] if name in names]
    return max([0] + numbers)


def decide(program, profile, names, arch, nr, args):
    """With what runc puts before the filter."""
    if not profile["defaultAction"].removeprefix("SCMP_ACT_") in ("ALLOW", "LOG", "TRACE"):
        for other in arches(profile):
            if other[1] == arch[1] and (arch[1] != 0xC000003E or (nr & X32 != 0) == (other[0] == "x32")):
                last = newest(profile, names, other)
                if last and (nr > last or (other[0] in ("s390", "s390x") and nr == 0)):
                    return ENOSYS
    return run(program, arch, nr, args)


def vectors(profile, name):
    """Arguments that are near to what the rules for a call are about, or to what stands in for them."""
    values = [0, 1, MASK64, 1 << 32, (1 << 32) - 1]
    for group in profile["syscalls"]:
        for arg in group.get("args", []):
            if name in group["names"]:
                for value in (arg["value"], arg.get("valueTwo", 0)):
                    values += [value, value - 1, value + 1, value ^ 1 << 32, value ^ 1 << 63, value & 0xFFFFFFFF]
    source = random.Random(name)
    for _ in range(12):
        yield [source.choice(values) & MASK64 for _ in range(6)]


def record(directory):
    profile = json.loads((directory / "profile.json").read_text())
    all_names = {name for group in profile.get("syscalls", []) for name in group["names"]}
    names = {name for name in all_names if known(profile, name)}
    program = build(profile, names)
    lines = [" ".join(["unknown"] + sorted(all_names - names))]
    conditional = {name for group in profile.get("syscalls", []) if group.get("args") for name in group["names"]} & names
    machine = arches(profile)
    tried = list(machine)
    if machine[0][0] == "x86_64" and len(machine) < 3:
        tried += [arch for key, arch in ARCHES.items() if key in ("X86", "X32") and arch not in tried]
    for arch in tried:
        wide = MASK64 if arch[3] == 64 else 0xFFFFFFFF
        base = X32 if arch[0] == "x32" else 0
        last = newest(profile, names, arch) & ~X32
        numbers = list(range(min(last, 600) + 8)) + [last - 1, last, last + 1, 0x1000, 0x3FFFFFFF]
        numbers = sorted({base + nr for nr in numbers if nr >= 0} | {base + 0x80000000, 0xFFFFFFFF})
        runs = []
        for nr in numbers:
            decided = decide(program, profile, names, arch, nr, [0] * 6)
            if runs and runs[-1][1] == nr - 1 and runs[-1][2] == decided:
                runs[-1][1] = nr
            else:
                runs.append([nr, nr, decided])
        lines += [f"{arch[1]:x} {first} {last} {decided:x}" for first, last, decided in runs]
        for name in sorted(conditional):
            codes = {}
            if number(arch, name) >= 0:
                codes[number(arch, name)] = None
            for multiplexer, calls in (("socketcall", SOCKET), ("ipc", IPC)):
                if name in calls and number(arch, multiplexer) >= 0 and arch[0] != "arm":
                    codes[number(arch, multiplexer)] = calls[name]
            for nr, code in codes.items():
                for args in vectors(profile, name):
                    args = [value & wide for value in args]
                    if code is not None:
                        args[0] = code
                    decided = decide(program, profile, names, arch, nr, args)
                    lines.append(f"{arch[1]:x} {nr} " + " ".join(f"{value:x}" for value in args) + f" {decided:x}")
    (directory / "decisions.txt").write_text("\n".join(lines) + "\n")


SOCKET = {
    name: code + 1
    for code, name in enumerate(
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
        "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg".split()
    )
}
IPC = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
    "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}


def random_profile(seed, architectures):
    """Rules for one call that may both hold have the same action: which counts is not said anywhere.

    Only one rule of a call puts an argument in order: of several, libseccomp before 2.6.1 joins some that are not
    the same (GHSA-4q85-33p6-j5g6).
    """
    source = random.Random(seed)
    names = [seccomp.resolve_syscall(seccomp.Arch.X86_64, nr).decode() for nr in [*range(335), *range(424, 440)]]
    names += ["socketcall", "ipc", "recv", "setuid32"]
    actions = [
        ("ALLOW", None), ("ERRNO", None), ("ERRNO", 13), ("KILL", None), ("KILL_PROCESS", None), ("TRAP", None),
        ("LOG", None), ("TRACE", 7), ("NOTIFY", None),
    ]
    interesting = [0, 1, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (5 << 32) + 7, MASK64, MASK64 - 1, 1 << 63]

    def group(names, chosen, args=()):
        entry = {"names": names, "action": "SCMP_ACT_" + chosen[0]}
        if chosen[1] is not None:
            entry["errnoRet"] = chosen[1]
        if args:
            entry["args"] = list(args)
        return entry

    def condition(index, operators=tuple(OPERATORS)):
        op = source.choice(operators)
        entry = {"index": index, "value": source.choice(interesting), "op": "SCMP_CMP_" + op}
        if op == "MASKED_EQ":
            entry["valueTwo"] = source.choice(interesting)
        return entry

    default = source.choice([choice for choice in actions if choice[0] != "NOTIFY"])
    profile = {"defaultAction": "SCMP_ACT_" + default[0], "architectures": ["SCMP_ARCH_" + name for name in architectures]}
    if default[1] is not None:
        profile["defaultErrnoRet"] = default[1]
    groups = []
    source.shuffle(names)
    for _ in range(6):
        chosen, names = names[:12], names[12:]
        groups.append(group([name for name in chosen if name != "write"], source.choice(actions)))
    for _ in range(24):
        name = names.pop()
        chosen = source.choice(actions[:-1])
        ordered = set()
        for _ in range(source.randrange(1, 4)):
            conditions = []
            for _ in range(source.randrange(1, 4)):
                index = source.randrange(6)
                conditions.append(condition(index, ("NE", "EQ", "MASKED_EQ") if index in ordered else tuple(OPERATORS)))
                ordered.add(index)
            groups.append(group([name], chosen, conditions))
    for _ in range(6):
        name = names.pop()
        for value, chosen in enumerate(source.sample(actions[:-1], 3)):
            groups.append(group([name], chosen, [{"index": 2, "value": value, "op": "SCMP_CMP_EQ"}]))
    # Rules without conditions beat all others, wherever they stand.
    for _ in range(6):
        name = names.pop()
        groups.append(group([name], source.choice(actions[:-1])))
        groups.append(group([name], source.choice(actions[:-1]), [condition(1)]))
        name = names.pop()
        groups.append(group([name], source.choice(actions[:-1]), [condition(1)]))
        groups.append(group([name], source.choice(actions[:-1])))
        groups.append(group([name], source.choice(actions[:-1])))
    profile["syscalls"] = []
    for entry in groups:
        profile["syscalls"].append(entry)
        try:
            build(profile, {name for group in profile["syscalls"] for name in group["names"]})
        except RuntimeError:
            # Contradicts another rule, by way of `socketcall` or `ipc`.
            profile["syscalls"].pop()
    return profile


def main():
    if "--profiles" in sys.argv:
        machines = [
            ["X86_64"], ["X86_64", "X86", "X32"], ["AARCH64", "ARM"], ["S390X", "S390"], ["PPC64LE"],
        ]
        for seed, machine in enumerate(machines):
            directory = CASES / ("random-" + "-".join(machine).lower())
            directory.mkdir(exist_ok=True)
            (directory / "profile.json").write_text(json.dumps(random_profile(seed, machine), separators=(",", ":")).replace('{"names"', '\n{"names"') + "\n")
    for directory in sorted(path.parent for path in CASES.glob("*/profile.json")):
        record(directory)


main()
