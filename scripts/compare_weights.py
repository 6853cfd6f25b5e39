"""Compares two files of weights: compare_weights.py A B MOST. Fails where a tensor differs by more than MOST of its length."""

import json
import math
import struct
import sys


def tensors(path):
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            yield name, struct.unpack(f"<{(end - start) // 4}f", data[start:end])


def main():
    a, b, most = sys.argv[1], sys.argv[2], float(sys.argv[3])
    first, second = dict(tensors(a)), dict(tensors(b))
    if first.keys() != second.keys() or not first:
        sys.exit(f"{a} and {b} do not have the same tensors")
    worst = 0.0
    for name, values in first.items():
        others = second[name]
        apart = math.dist(values, others)
        size = max(math.hypot(*values), 1e-6)
        if not apart / size <= most:
            sys.exit(f"{name}: {apart / size:.1e} apart, {most:.0e} allowed")
        worst = max(worst, apart / size)
    print(f"{len(first)} tensors, at most {worst:.1e} apart")


main()
