#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
mutants.py [-j JOBS] [-n NAME]... userspace|kunit

Do the tests notice mistakes? Each entry of the lists beside this program is an
edit of the sources, a mistake, and the test that must fail with it. Each is
applied to a copy of the tree, which is built, and the test is run. TAP: "ok" is
an edit that was noticed. An edit that does not apply, that does not compile or
that its test does not notice is "not ok", and so is a test that fails without
any edit. -n is a pattern of names, to run some only.

A list is made of

	file PATH			what the entries that follow edit

	mutant NAME: TEST		one entry
	-a line of the file
	+what it becomes
	 (a line that stays)

Lines are compared whole. Those that begin with '-' or ' ' must be found once, one
after the other. Between entries there are empty lines and comments with '#'.

TEST is one of
	cases CASE	of the KUnit suite of the store, in userspace
	model		random steps in userspace
	memory		goals of memory in userspace
	kunit SUITE.CASE	in a virtual machine
"""
import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[2]
CACHE = pathlib.Path(os.environ.get("TYPE1V3_CACHE")
                     or pathlib.Path(os.environ.get("XDG_CACHE_HOME")
                                     or pathlib.Path.home() / ".cache") / "type1v3")

# What of the tree is copied
COPIED = ("Makefile", "Kbuild", "Kconfig", "drivers", "include", "compat",
          "tools/testing/vfio_xa_dma")

# What does not end at all has not been noticed by a test
SECONDS = 600

# What KUnit mutants are built and booted with
KERNEL = "lean"


class Failed(Exception):
    """A mutant that is not what it should be, and why."""


class Mutant:
    """An entry of a list: two runs of whole lines, the old ones and the new ones."""

    def __init__(self, where, path, name, test):
        self.where, self.path, self.name, self.test = where, path, name, test
        self.old, self.new = [], []

    def apply(self, text):
        """The text with the edit."""
        old = "\n" + "".join(line + "\n" for line in self.old)
        new = "\n" + "".join(line + "\n" for line in self.new)
        if old == new:
            raise Failed("changes nothing")
        found = ("\n" + text).count(old)
        if found != 1:
            raise Failed(f"does not apply: found {found} times in {self.path}")
        return ("\n" + text).replace(old, new)[1:]


def read_list(path):
    """The entries of a list."""
    mutants = []
    file = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}"
        if not line or line[0] == "#":
            continue
        if match := re.fullmatch(r"file (\S+)", line):
            file = match[1]
        elif match := re.fullmatch(r"mutant (.+): ((?:cases|kunit) \S+|model|memory)", line):
            mutants.append(Mutant(where, file, match[1], match[2]))
        elif line[0] in "-+ " and mutants:
            if line[0] != "+":
                mutants[-1].old.append(line[1:])
            if line[0] != "-":
                mutants[-1].new.append(line[1:])
        else:
            sys.exit(f"{where}: what is this?")
    return mutants


def run(log, *command, seconds=SECONDS, **options):
    """Run a command, keep what it prints in @log; its exit status and its output."""
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds, check=False, **options)
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"{command[0]} does not end") from expired
    output = done.stdout.decode(errors="replace")
    with open(log, "a") as file:
        file.write("+ " + " ".join(map(str, command)) + "\n" + output)
    return done.returncode, output


class Tree:
    """A copy of the tree, in which one mutant after the other is built and tested."""

    def __init__(self, directory):
        self.dir = directory
        self.top = directory / "tree"
        self.log = directory / "log"
        shutil.rmtree(directory, ignore_errors=True)
        for name in COPIED:
            target = self.top / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (TOP / name).is_dir():
                shutil.copytree(TOP / name, target, ignore=shutil.ignore_patterns(
                    "*.o", "*.ko", "*.mod*", ".*.cmd", "build"))
            else:
                shutil.copy(TOP / name, target)

    def edit(self, mutant, function):
        """Call a function with the mutant's test while the tree is edited."""
        path = self.top / mutant.path
        text = path.read_text()
        changed = mutant.apply(text)
        path.write_text(changed)
        try:
            function(mutant.test)
        finally:
            path.write_text(text)


class Userspace(Tree):
    """The store on the XArray of a kernel tree."""

    # Not optimized and without sanitizers, as compiling takes most of the time
    flags = "debug=-O0 -g0 -DXA_DEBUG", "fast=-O0 -g0 -DNDEBUG"
    arguments = {"model": ("1", "25", "300"), "memory": ("0", "1")}

    def __init__(self, directory):
        super().__init__(directory)
        self.source = subprocess.run([TOP / "scripts/fetch.sh", "source"], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout.strip() + "/src"

    def test(self, test):
        """Does the test pass, in the tree as it is?"""
        program, *arguments = test.split()
        target = self.dir / "build" / program
        status, _ = run(self.log, "make", "-s", "-C", self.top / "tools/testing/vfio_xa_dma",
                        f"KSRC={self.source}", f"O={self.dir}/build", *self.flags, target)
        if status:
            raise Failed("does not compile")
        status, output = run(self.log, target, *(arguments or self.arguments[program]))
        # It says so, or it was ended by a signal or by the sanitizer
        if status and not (re.search("^not ok", output, re.M) or status < 0 or
                           "AddressSanitizer" in output):
            raise Failed(f"{program} ended with status {status} and did not say why")
        return status == 0

    def examine(self, mutant):
        """Raises Failed unless its test notices the mutant."""
        def notices(test):
            if self.test(test):
                raise Failed("is not noticed")
        self.log.write_text("")
        self.edit(mutant, notices)


class Kunit(Tree):
    """
    The modules, built outside of a kernel tree, in a virtual machine. Mutants are built
    first, and then run one after the other in as few boots as possible.
    """

    def __init__(self, directory):
        super().__init__(directory)
        self.plan = []
        # Its modules are only there for what ours depend on, but its uapi headers are used
        status, _ = run(self.log, TOP / "tools/testing/vm/kernel.sh", KERNEL, seconds=7200)
        if status:
            sys.exit(f"no kernel {KERNEL}: see {self.log}")
        self.kdir = max(CACHE.glob(f"linux-7*/build-{KERNEL}"))
        self.suites = {}
        for path in (TOP / "drivers/vfio/tests").glob("*_kunit.c"):
            for suite in re.findall(r'\.name\s*=\s*"(\w+)",\n\t\.init', path.read_text()):
                self.suites[suite] = path.stem

    def build(self, name, test):
        """Build what the test needs, and add it to what is to be run as @name."""
        glob = test.split()[1]
        module = self.suites.get(glob.split(".")[0])
        if not module:
            raise Failed(f"there is no suite {glob}")
        objects = self.dir / name
        objects.mkdir()
        # Most of the time goes into objects; those of other modules are not needed.
        targets = "drivers/vfio/vfio_dma.ko", f"drivers/vfio/tests/{module}.ko"
        status, _ = run(self.log, "make", "-s", "-C", self.kdir, f"M={self.top}",
                        "TYPE1V3_TESTS=1", *targets)
        if status:
            raise Failed("does not compile")
        for target in targets:
            shutil.copy(self.top / target, objects)
        self.plan.append((name, objects, module, glob))

    def boot(self):
        """Run what has been built; the names of those that passed and that failed."""
        passed, failed = set(), set()
        while self.plan:
            (self.dir / "plan").write_text("".join(
                " ".join(map(str, line)) + "\n" for line in self.plan))
            status, output = run(self.log, TOP / "tools/testing/vm/boot.sh", "-n", "-k", KERNEL,
                                 "-t", "3600", HERE / "kunit-guest.sh", self.dir, seconds=4000)
            parts = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", output, re.M | re.S))
            done = 0
            for name, _, _, glob in self.plan:
                if name not in parts:
                    break
                done += 1
                # Both at the level of cases, not of their parameters
                case = glob.split(".")[1]
                if re.search(rf"^    not ok \d+ {case}\b", parts[name], re.M):
                    failed.add(name)
                elif re.search(rf"^    ok \d+ {case}\b(?!.*SKIP)", parts[name], re.M):
                    passed.add(name)
            if not done:
                raise Failed(f"the virtual machine ended with status {status}")
            del self.plan[:done]
        return passed, failed


def userspace(mutants, jobs):
    """For each test, and then for each mutant: what it is, and what is wrong with it."""
    trees = queue.Queue()
    for i in range(min(jobs, len(mutants))):
        trees.put(Userspace(CACHE / f"mutants/userspace-{i}"))

    def with_tree(function, what):
        tree = trees.get()
        try:
            function(tree, what)
        except Failed as failed:
            return str(failed)
        finally:
            trees.put(tree)
        return None

    def passes(tree, test):
        tree.log.write_text("")
        if not tree.test(test):
            raise Failed("fails without any edit")

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        tests = sorted({mutant.test for mutant in mutants})
        yield from zip(tests, pool.map(lambda test: with_tree(passes, test), tests))
        yield from zip(mutants, pool.map(lambda mutant: with_tree(Userspace.examine, mutant),
                                         mutants))


def kunit(mutants, _):
    """The same in virtual machines."""
    tree = Kunit(CACHE / "mutants/kunit")
    tree.log.write_text("")
    wrong, names = {}, {}
    for number, what in enumerate([*sorted({mutant.test for mutant in mutants}), *mutants]):
        name = names[what] = f"run{number}"
        try:
            if isinstance(what, str):
                tree.build(name, what)
            else:
                tree.edit(what, lambda test, name=name: tree.build(name, test))
        except Failed as failed:
            wrong[what] = str(failed)
    passed, failed = tree.boot()
    for what, name in names.items():
        if what not in wrong:
            good, bad = (passed, failed) if isinstance(what, str) else (failed, passed)
            if name in bad:
                wrong[what] = "fails without any edit" if what in good else "is not noticed"
            elif name not in good:
                wrong[what] = "did not come to an end"
        yield what, wrong.get(what)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.strip().splitlines()[0])
    parser.add_argument("-j", type=int, default=os.cpu_count(), dest="jobs")
    parser.add_argument("-n", action="append", dest="names")
    parser.add_argument("where", choices=("userspace", "kunit"))
    args = parser.parse_args()

    mutants = [mutant for path in sorted(HERE.glob("*.list")) for mutant in read_list(path)
               if mutant.test.startswith("kunit ") == (args.where == "kunit") and
               any(fnmatch.fnmatch(mutant.name, name) for name in args.names or "*")]
    if not mutants:
        sys.exit("there are no such mutants")
    count = bad = 0
    for what, wrong in {"userspace": userspace, "kunit": kunit}[args.where](mutants, args.jobs):
        count += 1
        name = what if isinstance(what, str) else f"{what.where}: {what.name}: {what.test}"
        bad += wrong is not None
        print(f"not ok {count} - {name}: {wrong}" if wrong else f"ok {count} - {name}", flush=True)
    print(f"1..{count}")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
