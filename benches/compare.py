"""Times whole AdvCL pretraining steps, ours and PyTorch's in turn, and prints a Markdown table with ratios.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install torch
    python3 benches/compare.py --python venv/bin/python

Each row is measured in one go: ours, the peer, ours again; a ratio is the mean of ours over the peer's. Nothing else
may run meanwhile. Both use as many threads as --threads says. Figures are images per second, medians of --runs steps.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = {
    "published": ["--form", "published"],
    "tuned": ["--form", "tuned"],
    "tuned, compiled": ["--form", "tuned", "--compile"],
    "tuned, bf16": ["--form", "tuned", "--bf16"],
    "tuned, bf16, compiled": ["--form", "tuned", "--bf16", "--compile"],
}

parser = argparse.ArgumentParser()
parser.add_argument("--python", required=True, help="an interpreter that has torch")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--shapes", nargs="+", default=["16,64,32,3", "64,32,32,3"], help="width,batch,size,channels")
parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
args = parser.parse_args()


def shape_arguments(shape):
    names = ["--width", "--batch", "--size", "--channels"]
    return [part for pair in zip(names, shape.split(",")) for part in pair]


def ours(shape):
    command = [ROOT / "target/release/advcl", "bench", "step", "--json", "--runs", str(args.runs)]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command + shape_arguments(shape), env=environment, check=True, capture_output=True)
    return json.loads(done.stdout)["images_per_second"]


def peer(shape, options):
    # A tuned OpenBLAS setting of the machine is not PyTorch's fault.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    command = [args.python, ROOT / "benches/peer_step.py", "--threads", str(args.threads), "--runs", str(args.runs)]
    done = subprocess.run(command + shape_arguments(shape) + options, env=environment, capture_output=True, text=True)
    found = re.search(r"([\d.]+) images/s", done.stdout)
    return float(found.group(1)) if found else None


print("| width, batch, size, channels | PyTorch's form | PyTorch | advcl before, after | ratio |")
print("|---|---|---|---|---|")
for shape in args.shapes:
    for name in args.peers:
        before = ours(shape)
        theirs = peer(shape, PEERS[name])
        after = ours(shape)
        cells = [shape.replace(",", ", "), name]
        if theirs is None:
            cells += ["did not run", f"{before:.1f}, {after:.1f}", "–"]
        else:
            ratio = (before + after) / 2 / theirs
            cells += [f"{theirs:.1f}", f"{before:.1f}, {after:.1f}", f"{ratio:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
