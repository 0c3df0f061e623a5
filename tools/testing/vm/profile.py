#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
profile.py DIR

Where the instructions of a system call go, exactly. DIR is that of a QEMU which
runs `type1v3_bench -l`: its monitor (qmp), where it logs to (trace), and what
the guest prints (output), which begins with its kernel's symbols.

When the guest says "steady", every instruction is logged for a moment. What is
between one system call and its return is made into a tree of calls: a function
is called when its first instruction is executed, and returned to when one in its
middle is. Numbers are means over all system calls of the same kind, less those
that an interrupt fell into.
"""
import bisect
import collections
import json
import os
import socket
import sys
import time

# Enough for some calls of 256 entries, however slow the machine is
LOG_BYTES = 300 << 20
LOG_SECONDS = 120

# What a system call is, by the first of these that it calls
KINDS = (("vfio_pin_pages", "emulated"), ("iommu_unmap", "unmap"), ("iommu_map", "map"))


def monitor(path):
    """Connect to a QMP socket; the result executes a monitor command."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    lines = sock.makefile("rw")
    lines.readline()

    def execute(command, **arguments):
        lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        lines.flush()
        while "return" not in json.loads(lines.readline() or '{"return": 0}'):
            pass

    execute("qmp_capabilities")
    return execute


def record(directory):
    """Have QEMU log some of the steady state, and end it."""
    for _ in range(600):
        with open(f"{directory}/output", errors="replace") as output:
            if "steady" in output.read():
                break
        time.sleep(0.5)
    else:
        sys.exit("the guest does not get ready")
    execute = monitor(f"{directory}/qmp")
    for command in ("singlestep on", "log exec,nochain"):
        execute("human-monitor-command", **{"command-line": command})
    for _ in range(2 * LOG_SECONDS):
        time.sleep(0.5)
        if os.stat(f"{directory}/trace").st_size > LOG_BYTES:
            break
    execute("human-monitor-command", **{"command-line": "log none"})
    execute("quit")


class Symbols:
    """What /proc/kallsyms says."""

    def __init__(self, path):
        first = {}
        with open(path, errors="replace") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) >= 3 and fields[1] in "tTwW":
                    first.setdefault(int(fields[0], 16), fields[2])
        self.names = first
        self.starts = sorted(first)
        self.cache = {}

    def find(self, pc):
        """The start and the name of the function; user space is one."""
        if pc not in self.cache:
            start = 0
            if pc >> 47:
                start = self.starts[bisect.bisect_right(self.starts, pc) - 1]
            self.cache[pc] = (start, self.names.get(start, "user space"))
        return self.cache[pc]


def system_calls(path, symbols):
    """Yield the instructions of each whole system call in the log."""
    call = None
    with open(path) as log:
        for line in log:
            # Trace 0: <host address> [<cs base>/<pc>/<flags>/<cflags>]
            fields = line.split("/")
            if len(fields) != 4:
                continue
            pc = int(fields[1], 16)
            start, name = symbols.find(pc)
            if not start:
                if call:
                    yield call
                call = None
            elif name == "entry_SYSCALL_64" and pc == start:
                call = []
            if call is not None:
                call.append(pc)


class Node:
    """A function, where it was called from."""

    def __init__(self, name):
        self.name = name
        self.own = 0
        self.calls = 0
        self.children = {}

    def total(self):
        return self.own + sum(child.total() for child in self.children.values())

    def child(self, name):
        return self.children.setdefault(name, Node(name))

    def show(self, n, depth=0):
        if self.total() < n:
            return
        print(f"{self.total() / n:7.0f} {self.own / n:6.0f} {self.calls / n:6.2f}  "
              f"{'  ' * depth}{self.name}")
        for child in sorted(self.children.values(), key=Node.total, reverse=True):
            child.show(n, depth + 1)


def add_call(root, call, symbols, own, calls):
    """Add the instructions of one system call to the tree."""
    stack = [(None, root)]
    for pc in call:
        start, name = symbols.find(pc)
        if start != stack[-1][0]:
            depth = next((i for i in range(len(stack) - 1, 0, -1)
                          if stack[i][0] == start), None)
            if pc != start and depth:
                del stack[depth + 1:]
            else:
                node = stack[-1][1].child(name)
                node.calls += 1
                calls[name] += 1
                stack.append((start, node))
        stack[-1][1].own += 1
        own[name] += 1


def kind_of(call, symbols):
    names = {symbols.find(pc)[1] for pc in call}
    if any("sysvec" in name for name in names):
        return None
    for prefix, kind in KINDS:
        if any(name.startswith(prefix) for name in names):
            return kind
    return None


def main():
    directory = sys.argv[1]
    record(directory)
    symbols = Symbols(f"{directory}/output")
    kinds = collections.defaultdict(list)
    for call in system_calls(f"{directory}/trace", symbols):
        kinds[kind_of(call, symbols)].append(call)
    os.unlink(f"{directory}/trace")
    kinds.pop(None, None)
    if not kinds:
        sys.exit("no such call in the log")
    for kind in sorted(kinds):
        n = len(kinds[kind])
        sizes = sorted(map(len, kinds[kind]))
        root, own, calls = Node(kind), collections.Counter(), collections.Counter()
        for call in kinds[kind]:
            add_call(root, call, symbols, own, calls)
        print(f"{kind}: {sum(sizes) / n:.0f} instructions, mean of {n} system calls "
              f"({sizes[0]} to {sizes[-1]}, median {sizes[n // 2]})\n")
        print("  total    own  calls  function, by caller")
        for child in root.children.values():
            child.show(n)
        print("\n    own  calls  function")
        for name, count in own.most_common(40):
            print(f"{count / n:7.0f} {calls[name] / n:6.2f}  {name}")
        print()


if __name__ == "__main__":
    main()
