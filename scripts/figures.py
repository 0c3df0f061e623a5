#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
figures.py [--check]

Writes the figures of README.md and of the documents: all of them come from what one
run of 'bench.sh --document' has left in Documentation/bench. With --check nothing is
written, and a document that would change is a failure.

A document has a figure only between two marks,

    <!-- figures: NAME -->      or      .. figures: NAME
    <!-- end figures -->                .. end figures

What stands between them is the block NAME of Documentation/bench/figures.in, in which

    {[FORMAT] EXPRESSION[|WIDTH]}

is an expression of numbers and of figures, MEASURE.BACKEND.CASE, as bench.csv has them,
or MEASURE.BACKEND/BACKEND.CASE, a ratio. FORMAT is a number of decimals, or "mb" for
bytes in MB, or "min" or "max" with cases, or a name of cases, behind a figure whose own
case is x. WIDTH pads to the left, a negative one to the right. Other lines of a block:

    @for NAME in WORD...    the lines to "@end" for each word, which replaces $NAME
    {file NAME}             the lines of another file of the directory
    {label WORD}            what "@label WORD TEXT" says, at the top of figures.in
    {run}                   what the first line of bench.csv says of the run

"@cases NAME WORD..." there names cases.
"""
import difflib
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
BENCH = TOP / "Documentation/bench"
MARKS = (("<!-- figures: ", " -->", "<!-- end figures -->"), (".. figures: ", "", ".. end figures"))
FIGURE = r"([a-z]+)\.([a-z0-9]+(?:-pt)?)(?:/([a-z0-9]+))?\.([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)"


class Figures:
    """What was measured, and the blocks of text that are made of it."""

    def __init__(self):
        self.values, self.labels, self.cases, self.blocks = {}, {}, {}, {}
        for line in (BENCH / "bench.csv").read_text().splitlines():
            if line.startswith("# "):
                self.labels["run"] = line[2:]
            elif line:
                case, measure, backend, value = line.split(",")
                self.values[measure, backend, case] = float(value)
        block = None
        for line in (BENCH / "figures.in").read_text().splitlines():
            if re.fullmatch(r"\[[a-z0-9-]+\]", line):
                block = self.blocks.setdefault(line[1:-1], [])
            elif block is not None:
                block.append(line)
            elif line.startswith("@label "):
                _, word, text = line.split(" ", 2)
                self.labels[word] = text
            elif line.startswith("@cases "):
                _, name, *words = line.split()
                self.cases[name] = words

    def figure(self, measure, backend, other, case):
        """A figure, or the ratio of two."""
        try:
            value = self.values[measure, backend, case]
            return value / self.values[measure, other, case] if other else value
        except KeyError as key:
            sys.exit(f"figures.py: bench.csv has no figure {key}")

    def evaluate(self, expression):
        """An expression, and how many decimals it wants."""
        found = re.findall(FIGURE, expression)
        decimals = 0
        for _, backend, other, _ in found:
            decimals = 2 if other else decimals
        text = re.sub(FIGURE, lambda m: repr(self.figure(*m.groups())), expression)
        if not re.fullmatch(r"[-+*/() .\de]+", text):
            sys.exit(f"figures.py: cannot evaluate {expression}")
        value = eval(text)  # pylint: disable=eval-used  # numbers only, as was seen
        if not decimals and any(f[0] in ("memory", "bytes") for f in found):
            decimals = 1 if value >= 1 else 2
        return value, decimals

    def expand(self, match):
        """What stands in the place of {...}."""
        text, _, width = match[1].partition("|")
        words = text.split()
        if words[0] in ("label", "run"):
            text = self.labels.get(words[-1], words[-1])
        elif words[0] in ("min", "max"):
            cases = [c for word in words[2:] for c in self.cases.get(word, [word])]
            choose = min if words[0] == "min" else max
            value, decimals = choose(self.evaluate(words[1].removesuffix(".x") + "." + case)
                                     for case in cases)
            text = f"{value:,.{decimals}f}"
        elif words[0] == "mb":
            text = f"{self.evaluate(' '.join(words[1:]))[0] / 1e6:,.1f}"
        elif words[0].isdigit() and len(words) > 1:
            text = f"{self.evaluate(' '.join(words[1:]))[0]:,.{words[0]}f}"
        else:
            value, decimals = self.evaluate(text)
            text = f"{value:,.{decimals}f}"
        if width:
            text = text.rjust(int(width)) if int(width) > 0 else text.ljust(-int(width))
        return text

    def lines(self, source):
        """The lines of a block, expanded."""
        source = list(source)
        while source:
            line = source.pop(0)
            loop = re.fullmatch(r"@for (\w+) in (.*)", line)
            if loop:
                depth, body = 1, []
                while depth:
                    inner = source.pop(0)
                    depth += inner.startswith("@for ") - (inner == "@end")
                    body.append(inner)
                for word in loop[2].split():
                    yield from self.lines(l.replace("$" + loop[1], word) for l in body[:-1])
            elif re.fullmatch(r" *\{file [\w.-]+\}", line):
                indent, name = line.split("{file ")
                for other in (BENCH / name[:-1]).read_text().splitlines():
                    yield (indent + other).rstrip()
            else:
                yield re.sub(r"\{([^{}]+)\}", self.expand, line).rstrip()

    def block(self, name):
        """A block as a document has it, with an empty line on both sides."""
        text = "\n".join(self.lines(self.blocks[name])).strip("\n")
        return ["", *text.split("\n"), ""]


def rewrite(path, figures, used):
    """A document with new figures."""
    new, end, here = [], None, None
    for line in path.read_text().split("\n"):
        if end:
            if line == end:
                new += [*figures.block(here), line]
                end = None
            continue
        new.append(line)
        for before, after, last in MARKS:
            if line.startswith(before) and line.endswith(after):
                here = line[len(before):len(line) - len(after)]
                if here not in figures.blocks:
                    sys.exit(f"{path}: figures.in has no block {here}")
                used.add(here)
                end = last
    if end:
        sys.exit(f"{path}: the block {here} has no end")
    return "\n".join(new)


def typed(path, text):
    """Lines outside of blocks that have figures which only a benchmark can know."""
    here, wrong = False, []
    for number, line in enumerate(text.split("\n"), 1):
        if any(line.startswith(before) for before, _, _ in MARKS):
            here = True
        elif any(line == end for _, _, end in MARKS):
            here = False
        elif not here and re.search(r"\b\d[\d,.]* (instructions\b|(B|bytes) a page)", line) and \
                not re.search("most|at worst|two runs", line):
            wrong.append(f"{path}:{number}: a figure outside of a block: {line.strip()}")
    return wrong


def main():
    """Write or check all documents."""
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    figures, used, wrong = Figures(), set(), []
    for path in [TOP / "README.md", *sorted(TOP.glob("Documentation/*/*.rst")),
                 *sorted(TOP.glob("Documentation/*/*.md"))]:
        old = path.read_text()
        new = rewrite(path, figures, used)
        name = path.relative_to(TOP)
        wrong += typed(name, new)
        if old != new and sys.argv[1:]:
            wrong += difflib.unified_diff(old.split("\n"), new.split("\n"), str(name),
                                          "what bench.csv says", n=0, lineterm="")
        elif old != new:
            path.write_text(new)
            print(f"{name} has new figures")
    wrong += [f"figures.in: no document has the block {name}"
              for name in sorted(figures.blocks.keys() - used)]
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
