#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
html.py DIR

Writes the documents as HTML to DIR, for the packages: with docutils alone, and
without a kernel tree. What Sphinx has and docutils has not is made here: references
to other documents, and the comments that kernel-doc directives name. ('make docs'
builds the documents as a kernel tree does.)
"""
import pathlib
import re
import sys

import docutils.core

TOP = pathlib.Path(__file__).resolve().parent.parent
STYLE = """
body { max-width: 50em; margin: 1em auto; padding: 0 1em; font-family: sans-serif }
pre, code, tt, .literal { font-family: monospace; background: #f4f4f4 }
pre { padding: 0.5em; overflow-x: auto; border-left: 3px solid #ccc }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border: 1px solid #bbb; padding: 0.2em 0.5em; vertical-align: top; text-align: left }
p.rubric { font-weight: bold; margin-top: 2em }
"""


def inline(text):
    """kernel-doc's marks of constants, structs, members and functions as rst."""
    text = re.sub(r"%([A-Za-z_0-9-]+)", r"``\1``", text)
    text = re.sub(r"&(struct \w+|\w+)", r"``\1``", text)
    text = re.sub(r"(?<![`\w^])@(\w+)", r"*\1*", text)
    text = re.sub(r"2\^@(\w+)", r"2^ *\1*", text)
    return re.sub(r"(?<!`)\b(\w+\([^()\s]*\))(?!`)", r"``\1``", text)


def comment(lines, declaration):
    """One kernel-doc comment, and what it is about, as rst."""
    title = lines.pop(0)
    while lines and lines[0].strip() and not lines[0].startswith("@"):
        title += " " + lines.pop(0).strip()
    members, body = [], []
    for line in lines:
        member = re.match(r"@([\w.]+|\.\.\.): *(.*)", line)
        if member and not body:
            members.append([member[1], member[2]])
        elif members and not body and line.startswith((" ", "\t")):
            members[-1][1] += " " + line.strip()
        elif body or line.strip():
            body.append(line)
    name, _, about = title.partition(" - ")
    if title.startswith("DOC:"):
        name, about = title[4:].strip(), ""
    rst = [f".. rubric:: {re.sub('^define ', '', name)}", ""]
    if about:
        rst += [inline(about[0].upper() + about[1:]) + ".", ""]
    if declaration:
        rst += ["::", "", *("    " + line.expandtabs(8) for line in declaration), ""]
    for member, text in members:
        rst += [f"*{member}*", "    " + inline(text), ""]
    return rst + [inline(line) for line in body] + [""]


def kernel_doc(path):
    """All kernel-doc comments of a file as rst."""
    rst, lines, declaration = [], None, None
    text = (TOP / path).read_text().split("\n")
    for number, line in enumerate(text):
        if line.strip() == "/**":
            lines = []
        elif lines is not None and line.strip() == "*/":
            declaration = []
            for next_line in text[number + 1:]:
                if not next_line:
                    break
                declaration.append(next_line)
            rst += comment(lines, declaration)
            lines = None
        elif lines is not None:
            lines.append(re.sub(r"^\s*\* ?", "", line))
    return rst


def expand(source):
    """A document as docutils can read it."""
    rst = []
    # options say which comments of a source, of which none are shown
    text = re.sub(r"^(\.\. kernel-doc:: .*\n)(?:   :.*\n)+", r"\1", source.read_text(), flags=re.M)
    for line in text.split("\n"):
        directive = re.match(r"\.\. kernel-doc:: (\S+)", line)
        if directive and directive[1].startswith("include/uapi/"):
            rst += kernel_doc(directive[1])
            continue
        if directive:
            rst += ["", f"The comments in {directive[1]}.", ""]
            continue
        rst.append(re.sub(r"Documentation/([\w-]+/[\w-]+)\.rst",
                          lambda to: f"`{to[0]} <../{to[1]}.html>`__"
                          if (TOP / to[0]).exists() else to[0], line))
    return "\n".join(rst)


def main():
    """Convert them all, and write an index of them."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    titles = []
    for source in sorted(TOP.glob("Documentation/*-api/*.rst"), reverse=True):
        to = out / source.parent.name / (source.stem + ".html")
        to.parent.mkdir(parents=True, exist_ok=True)
        parts = docutils.core.publish_parts(
            expand(source), source_path=str(source), writer_name="html5",
            settings_overrides={"report_level": 2, "halt_level": 2, "initial_header_level": 2,
                                "syntax_highlight": "none", "file_insertion_enabled": False,
                                "embed_stylesheet": False, "stylesheet_path": ""})
        to.write_text(page(parts["title"], parts["html_body"]))
        titles.append(f'<li><a href="{to.relative_to(out)}">{parts["title"]}</a></li>\n')
    (out / "index.html").write_text(page("type1v3", "<h1>type1v3</h1>\n<ul>\n" +
                                         "".join(titles) + "</ul>\n"))


def page(title, body):
    """A whole page of HTML."""
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n"
            "</html>\n")


if __name__ == "__main__":
    main()
