/* The least that a container costs on this kernel: `floor ROOTFS` runs /bin/true of ROOTFS, a static program, in one.
 *
 * What an ordinary container has is here: six namespaces, seven mounts, device nodes, hidden and read-only paths, a
 * filter of system calls. What a runtime adds is not: it reads no specification, keeps no state, drops no
 * capabilities and makes no control group. Every step is one system call with constants, made by the process that
 * becomes the program; so the difference between a runtime and this is what the runtime could save.
 *
 * It is a yardstick and protects nobody: paths are followed blindly. Exit code: the program's, or 125.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static void fail(const char *what, const char *on)
{
    fprintf(stderr, "floor: %s(%s): %s\n", what, on, strerror(errno));
    _exit(125);
}

static void mounted(const char *source, const char *target, const char *kind, unsigned long flags, const char *data)
{
    if (mount(source, target, kind, flags, data) != 0)
        fail("mount", target);
}

static void bring_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket_fd < 0 || ioctl(socket_fd, SIOCSIFFLAGS, &request) != 0)
        fail("ioctl", "lo");
    close(socket_fd);
}

/* The working directory is the container's root. */
static void mount_file_systems(void)
{
    const unsigned long usual = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    mounted("proc", "proc", "proc", usual, NULL);
    mounted("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    if (mkdir("dev/pts", 0755) != 0 || mkdir("dev/shm", 0755) != 0 || mkdir("dev/mqueue", 0755) != 0)
        fail("mkdir", "dev");
    mounted("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mounted("shm", "dev/shm", "tmpfs", usual, "mode=1777,size=65536k");
    mounted("mqueue", "dev/mqueue", "mqueue", usual, NULL);
    mounted("sysfs", "sys", "sysfs", usual | MS_RDONLY, NULL);
    /* Not every machine has one to give. */
    mount("cgroup", "sys/fs/cgroup", "cgroup2", usual | MS_RDONLY, NULL);
}

static void make_devices(void)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {
        {"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"/proc/self/fd", "dev/fd"},
        {"/proc/self/fd/0", "dev/stdin"},
        {"/proc/self/fd/1", "dev/stdout"},
        {"/proc/self/fd/2", "dev/stderr"},
        {"pts/ptmx", "dev/ptmx"},
    };
    umask(0);
    for (size_t i = 0; i < LENGTH(nodes); i++)
        if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) != 0)
            fail("mknod", nodes[i].path);
    umask(022);
    for (size_t i = 0; i < LENGTH(links); i++)
        if (symlink(links[i][0], links[i][1]) != 0)
            fail("symlink", links[i][1]);
}

/* Hidden files are covered by /dev/null, hidden directories by one empty directory; those that are not there need nothing. */
static void cover_paths(void)
{
    static const char *const hidden[] = {
        "proc/acpi",       "proc/asound",      "proc/interrupts", "proc/kcore",
        "proc/keys",       "proc/latency_stats", "proc/sched_debug", "proc/scsi",
        "proc/timer_list", "proc/timer_stats", "sys/devices/virtual/powercap", "sys/firmware",
    };
    static const char *const read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    const char *empty = NULL;
    for (size_t i = 0; i < LENGTH(hidden); i++) {
        if (mount("dev/null", hidden[i], NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
            continue;
        if (errno != ENOTDIR)
            fail("mount", hidden[i]);
        if (empty) {
            mounted(empty, hidden[i], NULL, MS_BIND, NULL);
        } else {
            mounted("tmpfs", hidden[i], "tmpfs", MS_RDONLY, "size=0k");
            empty = hidden[i];
        }
    }
    for (size_t i = 0; i < LENGTH(read_only); i++) {
        if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) != 0) {
            if (errno == ENOENT)
                continue;
            fail("mount", read_only[i]);
        }
        mounted(NULL, read_only[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    }
}

static void change_root(void)
{
    if (syscall(SYS_pivot_root, ".", ".") != 0)
        fail("pivot_root", ".");
    if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
        fail("umount2", ".");
}

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
/* Where the numbers of calls change between allowed (first: from 0) and refused: the default profile's calls that no
 * condition is put on, 32 ranges. */
static const uint32_t changes[] = {
    41,  42,  56,  57,  103, 104, 134, 137, 139, 140, 153, 154, 155, 157, 163, 186, 212, 213, 227, 228, 236,
    240, 246, 247, 248, 251, 256, 257, 272, 273, 279, 280, 298, 299, 300, 301, 304, 305, 308, 309, 312, 314,
    320, 322, 323, 324, 336, 424, 425, 434, 435, 436, 438, 439, 440, 441, 442, 444, 450, 451, 459, 462, 467,
};
#else
#if defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#else
#error "which audit architecture is this?"
#endif
/* A tree of the same size, above all numbers that the program uses. */
static const uint32_t changes[] = {
    600, 601, 602, 603, 604, 605, 606, 607, 608, 609, 610, 611, 612, 613, 614, 615, 616, 617, 618, 619, 620,
    621, 622, 623, 624, 625, 626, 627, 628, 629, 630, 631, 632, 633, 634, 635, 636, 637, 638, 639, 640, 641,
    642, 643, 644, 645, 646, 647, 648, 649, 650, 651, 652, 653, 654, 655, 656, 657, 658, 659, 660, 661, 662,
};
#endif

#define HEAD 4
#define ALLOW (HEAD + LENGTH(changes))
#define REFUSE (ALLOW + 1)
static struct sock_filter filter[REFUSE + 1];

/* Lays out the search among changes[from..to] at `at`; gives the place behind it. */
static size_t search(size_t at, size_t from, size_t to)
{
    size_t middle = (from + to) / 2, behind = at + 1;
    size_t below = middle % 2 == 0 ? ALLOW : REFUSE, above = middle % 2 == 0 ? REFUSE : ALLOW;
    if (from < middle) {
        below = behind;
        behind = search(behind, from, middle);
    }
    if (middle + 1 < to) {
        above = behind;
        behind = search(behind, middle + 1, to);
    }
    above -= at + 1;
    below -= at + 1;
    filter[at] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, changes[middle], above, below);
    return behind;
}

static void load_filter(void)
{
    struct sock_fprog program = {.len = LENGTH(filter), .filter = filter};
    filter[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 1, 0);
    filter[2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[3] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    search(HEAD, 0, LENGTH(changes));
    filter[ALLOW] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[REFUSE] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0)
        fail("seccomp", "filter");
}

static void become_container(const char *root)
{
    char *const arguments[] = {"/bin/true", NULL}, *const environment[] = {"PATH=/bin", NULL};
    bring_loopback_up();
    mounted(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    mounted(root, root, NULL, MS_BIND | MS_REC, NULL);
    if (chdir(root) != 0)
        fail("chdir", root);
    mount_file_systems();
    make_devices();
    cover_paths();
    if (sethostname("floor", 5) != 0)
        fail("sethostname", "floor");
    change_root();
    load_filter();
    execve(arguments[0], arguments, environment);
    fail("execve", arguments[0]);
}

int main(int count, char **words)
{
    struct clone_args arguments = {
        .flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    int status;
    if (count != 2) {
        fprintf(stderr, "usage: floor ROOTFS\n");
        return 125;
    }
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0)
        fail("clone3", "six namespaces");
    if (child == 0)
        become_container(words[1]);
    if (waitpid((pid_t)child, &status, 0) < 0)
        fail("waitpid", "container");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
