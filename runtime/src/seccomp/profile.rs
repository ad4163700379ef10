//! System calls that a container may make by default.
//!
//! The same calls as in Docker's default profile (moby/profiles `seccomp/default.json`, August 2026), so that images
//! that run there run here: the facts are from there, the form is Kiln's own.

use super::architecture::Architecture;
use super::rule::{Action, Comparison, Condition, Filter, Rule};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// Default filter for containers with some of the capabilities of [`WITH_CAPABILITY`] (a bit for each, in its order),
/// on a host of the given architecture and its secondary ones.
///
/// Docker's profile includes x32, which few kernels still support and no program uses; it would make the program half
/// as long again. Its calls fail as on a kernel without it.
pub(super) fn filter(capabilities: u16, native: Architecture) -> Filter<'static> {
    let mut rules = vec![allow(ALWAYS.to_vec(), Vec::new())];
    let mut privileged = false;
    for (index, (capability, names)) in WITH_CAPABILITY.iter().enumerate() {
        if capabilities & (1 << index) != 0 {
            rules.push(allow(names.to_vec(), Vec::new()));
            privileged |= *capability == "CAP_SYS_ADMIN";
        }
    }
    // All families but the kernel's crypto interface and virtual machine sockets: neither is separated by namespaces.
    // The kernel takes an `int`: bits above its 32 must not lead past the comparison.
    const AF_ALG: u64 = 38;
    const AF_VSOCK: u64 = 40;
    let families = [Comparison::Less(AF_ALG), Comparison::Equal(AF_ALG + 1), Comparison::Greater(AF_VSOCK)];
    rules.push(allow(vec!["socket"], families.map(|family| first(family, true)).into()));
    // Linux, uname26 and 32-bit personalities, and the query of the current one.
    let personalities = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
    rules.push(allow(vec!["personality"], personalities.map(|it| first(Comparison::Equal(it), true)).into()));
    if !privileged {
        // A new process, but in no new namespace. A filter cannot read the flags of clone3, so programs must fall back
        // to clone, which they do for ENOSYS.
        const NAMESPACES: u64 = 0x7e02_0000;
        let mut flags = first(Comparison::Masked(NAMESPACES, 0), false);
        if native == Architecture::S390x {
            flags[0].argument = 1;
        }
        rules.push(allow(vec!["clone"], vec![flags]));
        rules.push(Rule { names: vec!["clone3"], action: Action::Errno(ENOSYS), alternatives: Vec::new() });
    }
    let others = native.secondary().iter().copied().filter(|other| *other != Architecture::X32);
    let architectures = [native].into_iter().chain(others).collect();
    Filter { rules, default: Action::Errno(EPERM), architectures, foreign: Action::Errno(ENOSYS) }
}

fn allow(names: Vec<&'static str>, alternatives: Vec<Vec<Condition>>) -> Rule<'static> {
    Rule { names, action: Action::Allow, alternatives }
}

/// Condition on the first argument of a call.
fn first(comparison: Comparison, narrow: bool) -> Vec<Condition> {
    vec![Condition { argument: 0, comparison, narrow }]
}

/// Calls that are allowed without any capability.
#[rustfmt::skip]
pub(super) const ALWAYS: &[&str] = &[
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl",
    "arm_fadvise64_64", "arm_sync_file_range", "bind", "breakpoint", "brk", "cacheflush", "cachestat",
    "capget", "capset", "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64",
    "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2",
    "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod",
    "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat",
    "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
    "modify_ldt", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl",
    "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at",
    "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal",
    "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl",
    "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev",
    "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
    "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall",
    "riscv_flush_icache", "riscv_hwprobe", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
    "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp",
    "select", "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "send", "sendfile",
    "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_thread_area", "set_tid_address",
    "set_tls", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups",
    "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid", "setsockopt",
    "setuid", "setuid32", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
    "sigaltstack", "signalfd", "signalfd4", "sigprocmask", "sigreturn", "socketcall", "socketpair", "splice",
    "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "swapcontext", "symlink", "symlinkat",
    "sync", "sync_file_range", "sync_file_range2", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

/// Calls that are allowed with a capability.
#[rustfmt::skip]
pub(super) const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_BPF", &[
        "bpf",
    ]),
    ("CAP_DAC_READ_SEARCH", &[
        "open_by_handle_at",
    ]),
    ("CAP_PERFMON", &[
        "perf_event_open",
    ]),
    ("CAP_SYSLOG", &[
        "syslog",
    ]),
    ("CAP_SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
        "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount",
        "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd",
        "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    ("CAP_SYS_BOOT", &[
        "reboot",
    ]),
    ("CAP_SYS_CHROOT", &[
        "chroot",
    ]),
    ("CAP_SYS_MODULE", &[
        "delete_module", "finit_module", "init_module",
    ]),
    ("CAP_SYS_NICE", &[
        "get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node",
    ]),
    ("CAP_SYS_PACCT", &[
        "acct",
    ]),
    ("CAP_SYS_PTRACE", &[
        "kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    ]),
    ("CAP_SYS_RAWIO", &[
        "ioperm", "iopl",
    ]),
    ("CAP_SYS_TIME", &[
        "clock_settime", "clock_settime64", "settimeofday", "stime",
    ]),
    ("CAP_SYS_TTY_CONFIG", &[
        "vhangup",
    ]),
];
