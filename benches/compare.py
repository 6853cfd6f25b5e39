"""Times ours and PyTorch's in turn and prints a Markdown table with ratios.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install torch
    python3 benches/compare.py --python venv/bin/python [--what evaluate] [--ours fp32 bf16] [--write]

--what step: whole AdvCL pretraining steps. --what evaluate: clean and PGD-20 predictions in evaluation mode.
--write puts the table between this comparison's two markers in RESULTS.md, in place of the one that is there.

Each row is measured in one go: ours, the peer, ours again; a ratio is the mean of ours over the peer's. Nothing else
may run meanwhile. Both use as many threads as --threads says. Speeds are images a second, medians of --runs. Memory
is the largest resident set of a whole process, the interpreter and the compilation of compiled forms included.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "RESULTS.md"
ADVCL = ROOT / "target/release/advcl"
# What torch can do to the tuned form, in both comparisons.
TUNED = {
    "tuned": [],
    "tuned, compiled": ["--compile"],
    "tuned, bf16": ["--bf16"],
    "tuned, bf16, compiled": ["--bf16", "--compile"],
}
PEERS = {
    "step": {"published": ["--form", "published"], **TUNED},
    "evaluate": {**TUNED, "tuned, BatchNorm folded": ["--fold"], "tuned, folded, bf16": ["--fold", "--bf16"]},
}
# Width, batch, size, channels.
MAIN = ["16,64,32,3", "64,32,32,3"]
# Odd ones, against the plain tuned form only: a size that is no power of two, gray images, larger images.
ODD = ["24,50,28,1", "32,16,64,3"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="an interpreter that has torch")
    parser.add_argument("--what", choices=list(PEERS), default="step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", metavar="W,B,S,C", help="width,batch,size,channels, against every peer")
    parser.add_argument("--peers", nargs="+", metavar="FORM", help="; ".join(dict.fromkeys(sum(map(list, PEERS.values()), []))))
    parser.add_argument("--ours", nargs="+", choices=["fp32", "bf16"], default=["fp32"], help="precisions of ours")
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    args = parser.parse_args()
    known = PEERS[args.what]
    for name in args.peers or []:
        if name not in known:
            parser.error(f"no form {name!r} of {args.what}: expected {'; '.join(known)}")
    for shape in args.shapes or []:
        if not re.fullmatch(r"\d+,\d+,\d+,\d+", shape):
            parser.error(f"expected width,batch,size,channels, found {shape!r}")
    if args.runs < 1 or args.threads < 1:
        parser.error("expected 1 or more runs and threads")
    if not ADVCL.exists():
        parser.error("build ours first: cargo build --release")
    if args.write:
        # Now, not after an hour of measuring.
        try:
            between(RESULTS.read_text(), args.what)
        except ValueError as problem:
            parser.error(f"cannot write: {problem}")
    return args


def between(text, what):
    """Where the table of this comparison begins and ends."""
    first, last = f"<!-- {what}-speed -->", f"<!-- /{what}-speed -->"
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise ValueError(f"expected {first} and {last} once each in {RESULTS.name}, in this order")
    return text.index(first) + len(first), text.index(last)


def write(table, what):
    """Puts the table between its markers; the file is whole at every moment."""
    text = RESULTS.read_text()
    start, end = between(text, what)
    with tempfile.NamedTemporaryFile("w", dir=ROOT, suffix=".part", delete=False) as file:
        file.write(f"{text[:start]}\n{table}\n{text[end:]}")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, RESULTS.stat().st_mode & 0o777)
    os.replace(file.name, RESULTS)


def measured(command, environment):
    """What a command says, its exit code, and its largest resident memory in MiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen([str(part) for part in command], env=environment, stdout=out, stderr=err)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        # macOS counts bytes, Linux KiB.
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return out.read(), err.read(), child.returncode, usage.ru_maxrss / unit


def shape_arguments(shape):
    names = ["--width", "--batch", "--size", "--channels"]
    return [part for pair in zip(names, shape.split(",")) for part in pair]


def ours(args, shape, precision):
    """Images a second and MiB."""
    command = [ADVCL, "bench", args.what, "--json", "--runs", args.runs]
    command += shape_arguments(shape) + (["--precision", "bf16"] if precision == "bf16" else [])
    environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
    out, err, code, memory = measured(command, environment)
    if code != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {code}:\n{err}")
    return json.loads(out)["images_per_second"], memory


def peer(args, shape, options):
    """Images a second, MiB and the version of torch; none of them where it did not run."""
    # A tuned OpenBLAS setting of the machine is not PyTorch's fault.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    command = [args.python, ROOT / f"benches/peer_{args.what}.py", "--threads", args.threads, "--runs", args.runs]
    out, err, code, memory = measured(command + shape_arguments(shape) + options, environment)
    speed, version = re.search(r"([\d.]+) images/s", out), re.search(r"torch (\S+)", out)
    if code != 0 or not speed:
        print(f"{shape} {options}: {err.strip()[-300:] or f'ended with {code}'}", file=sys.stderr)
        return None
    return float(speed.group(1)), memory, version.group(1)


def main():
    args = arguments()
    peers = {name: PEERS[args.what][name] for name in args.peers or PEERS[args.what]}
    pairs = [(shape, name) for shape in args.shapes or MAIN for name in peers]
    if not args.shapes and "tuned" in peers:
        pairs += [(shape, "tuned") for shape in ODD]
    head = ["width, batch, size, channels", "PyTorch's form", "advcl's", "PyTorch", "advcl before, after", "ratio"]
    head += ["PyTorch MiB", "advcl MiB", "ratio"]
    lines, versions = [], set()

    def say(cells):
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)

    say(head)
    say(["---"] * len(head))
    for shape, name in pairs:
        for precision in args.ours:
            before, first = ours(args, shape, precision)
            theirs = peer(args, shape, peers[name])
            after, second = ours(args, shape, precision)
            memory = max(first, second)
            row = [shape.replace(",", ", "), name, precision]
            if theirs is None:
                row += ["did not run", f"{before:.1f}, {after:.1f}", "–", "–", f"{memory:.0f}", "–"]
            else:
                speed, theirs_memory, version = theirs
                versions.add(version)
                row += [f"{speed:.1f}", f"{before:.1f}, {after:.1f}", f"{(before + after) / 2 / speed:.2f}"]
                row += [f"{theirs_memory:.0f}", f"{memory:.0f}", f"{memory / theirs_memory:.2f}"]
            say(row)
    said = f"PyTorch {', '.join(sorted(versions)) or 'did not run'}; {args.threads} threads each; `--runs {args.runs}`."
    print(f"\n{said}")
    if args.write:
        write("\n".join([*lines, "", said]), args.what)


if __name__ == "__main__":
    main()
