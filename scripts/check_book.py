"""Checks the book's pages: links, included code, formulas, and `advcl …` command lines; the last in README.md and CONTRIBUTING.md too.

    ADVCL=PROGRAM python3 scripts/check_book.py [BUILT]

A command line is checked against `--help` of its subcommand: the subcommand and each option must be there. A key of `--set` must be one of
`advcl recipe keys`. Nothing else is carried out. With BUILT, the folder that mdbook filled, its pages are checked instead: whatever they link
to inside the folder must be there, headings too. Needs Python alone. Called by scripts/check_book.sh.
"""
import functools
import html.parser
import os
import pathlib
import re
import shlex
import subprocess
import sys
import urllib.parse

root = pathlib.Path(__file__).resolve().parent.parent
source = root / "docs" / "book" / "src"
program = os.environ.get("ADVCL", str(root / "target" / "release" / "advcl"))
faults = []


def fault(page, words):
    faults.append(f"{page.relative_to(root)}: {words}")


def advcl(*arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def without_code(text):
    """The text without fenced blocks and without code in a line: what may hold links and formulas."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```", "", text))


@functools.cache
def headings(page):
    """Names of a page's headings in links, as mdbook makes them."""
    found = re.findall(r"(?m)^#+ +(.*)$", re.sub(r"(?ms)^```.*?^```", "", page.read_text()))
    kept = ("".join(c for c in title.lower() if c.isalnum() or c in "_- ") for title in found)
    return {title.strip().replace(" ", "-") for title in kept}


def check_links(page, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        linked = page.parent / name if name else page
        if not linked.is_file():
            fault(page, f"no file {target}")
        elif heading and heading not in headings(linked):
            fault(page, f"no heading {target}")


def check_includes(page, text):
    for name, anchor in re.findall(r"\{\{#include ([^}:\s]+):?([^}\s]*)\}\}", text):
        path = page.parent / name
        if not path.is_file():
            fault(page, f"no file {name} to include")
            continue
        marks = [re.search(rf"(?m)\b{mark}: {re.escape(anchor)}$", path.read_text()) for mark in ("ANCHOR", "ANCHOR_END")]
        if anchor and not all(marks):
            fault(page, f"no anchor {anchor} in {name}")


def check_formulas(page, text):
    """In Markdown a bare underscore or asterisk of a formula may begin emphasis."""
    plain = without_code(text)
    for formula in re.findall(r"(?s)\\\\\((.*?)\\\\\)|\\\\\[(.*?)\\\\\]", plain):
        formula = "".join(formula)
        if re.search(r"(?<!\\)[_*]|(?<!\\)\\[{},;!|%]", formula):
            fault(page, f"escape _, * and the like in the formula {formula.strip()[:60]!r}")
    for opening, closing in (("\\\\(", "\\\\)"), ("\\\\[", "\\\\]")):
        if plain.count(opening) != plain.count(closing):
            fault(page, f"{opening} and {closing} do not pair")


@functools.cache
def help_of(*subcommand):
    """Subcommands and options of a command."""
    # Options that every command takes have a page of their own, which is a command to `help`.
    if subcommand[:1] == ("help",):
        return [*help_of()[0], "options"], set()
    text = advcl(*subcommand, "--help") + "\n" + advcl("help", "options")
    commands = re.search(r"(?ms)^Commands:\n(.*?)\n\n", text)
    commands = re.findall(r"(?m)^  ([a-z-]+) ", commands[1]) if commands else []
    lines = re.findall(r"(?m)^ +(-\w)?(?:, )?(--[a-z-]+)?", text)
    return commands, {name for line in lines for name in line if name}


@functools.cache
def keys():
    return set(re.findall(r"(?m)^([^ ].*?): ", advcl("recipe", "keys")))


def known(key):
    """Whether a recipe has the key: of a method or mode, or of a variant of one."""
    key = key.strip().replace('"', "").replace("'", "")
    parts = key.split(".")
    plain = {known.replace('"', "") for known in keys()}
    if len(parts) > 1 and parts[0] in ("pretrain", "finetune"):
        bases = {known.split(".")[1] for known in plain if known.startswith(parts[0] + ".")}
        for base in bases:
            if parts[1] == base or parts[1].startswith(base + "-"):
                if ".".join([parts[0], base, *parts[2:]]) in plain:
                    return True
        return False
    return key in plain


def command_lines(text):
    """Shell blocks line by line, continued lines joined; and code in a line that begins with the program's name."""
    for block in re.findall(r"(?ms)^```(?:sh|console)\n(.*?)^```", text):
        yield from re.sub(r"\\\n", " ", block).splitlines()
    yield from re.findall(r"`(advcl [^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))


def check_command(page, line):
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        fault(page, f"no command line: {line}")
        return
    if "advcl" not in words:
        return
    words = words[words.index("advcl") + 1:]
    ends = [words.index(end) for end in ("|", ">", "&&", ";") if end in words]
    words = words[:min(ends)] if ends else words
    subcommand = []
    while words and words[0] in help_of(*subcommand)[0]:
        subcommand.append(words.pop(0))
    if not subcommand and words and not words[0].startswith("-"):
        fault(page, f"no subcommand {words[0]}: {line}")
        return
    options = help_of(*subcommand)[1]
    for place, word in enumerate(words):
        option = word.split("=")[0]
        if re.match(r"-[-a-z]", word) and option not in options:
            fault(page, f"no option {option}: {line}")
        if option == "--set" and words[place + 1:]:
            key = words[place + 1].partition("=")[0]
            if not known(key) and "…" not in key:
                fault(page, f"no key {key.strip()}: {line}")


class Page(html.parser.HTMLParser):
    """What a built page links to, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "base":
                self.links.append(value)
            elif name == "id" or name == "name" and tag == "a":
                self.names.add(value)


def check_built(folder):
    built = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    missing = [page.relative_to(source) for page in source.rglob("*.md") if page.name != "SUMMARY.md"
               and (folder / page.relative_to(source)).with_suffix(".html").resolve() not in built]
    faults.extend(f"{name}: not in the built book" for name in missing)
    links = 0
    for path, page in built.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            links += 1
            name, _, heading = urllib.parse.unquote(link).partition("#")
            linked = (path.parent / name).resolve() if name else path
            if not linked.is_file():
                fault(path, f"no file {link}")
            elif heading and linked in built and heading not in built[linked].names:
                fault(path, f"no heading {link}")
    return f"{len(built)} built pages, {links} links"


if sys.argv[1:]:
    said = check_built(pathlib.Path(sys.argv[1]).resolve())
    if faults:
        sys.exit("\n".join(faults))
    print(f"ok: {said}")
    sys.exit()
pages = sorted(source.rglob("*.md"))
summary = (source / "SUMMARY.md").read_text()
listed = {(source / name).resolve() for name in re.findall(r"\]\(([^)]+\.md)\)", summary)}
for page in pages:
    text = page.read_text()
    if page.name != "SUMMARY.md" and page not in listed:
        fault(page, "not in SUMMARY.md")
    check_links(page, text)
    check_includes(page, text)
    check_formulas(page, text)
lines = 0
for page in [*pages, root / "README.md", root / "CONTRIBUTING.md"]:
    for line in command_lines(page.read_text()) if page.exists() else []:
        lines += 1
        check_command(page, line)
if faults:
    sys.exit("\n".join(faults))
print(f"ok: {len(pages)} pages, {lines} lines of commands")
