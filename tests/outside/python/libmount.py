"""The part of libmount's Python module that crun's tests use: find a mount of a mountinfo file by its target."""


class Mount:
    def __init__(self, line):
        left, right = line.split(" - ", 1)
        self.target = left.split()[4]
        self.vfs_options = left.split()[5]
        self.fs_options = right.split()[2]


class Table:
    def __init__(self, path):
        with open(path) as mountinfo:
            self.mounts = [Mount(line) for line in mountinfo if " - " in line]

    def find_target(self, target):
        return next((mount for mount in reversed(self.mounts) if mount.target == target), None)
