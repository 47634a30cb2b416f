#!/usr/bin/env python3
"""Instructions per query in the core, counted by valgrind: the same figure on a loaded machine.

    cargo build --release -p harness --bin serving_core
    tests/bench/serving_core.py [--binary PATH] [--check FILE] [--write FILE]

Each kind runs twice with different numbers of queries; the difference divides out what setting up
costs. --check compares with figures written earlier by --write and fails where one is more than a
tenth higher.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ["ping", "find_node", "hit", "miss", "announce"]
ROUNDS = (2_000, 12_000)
SHARES = {"ping": 1, "find_node": 4, "hit": 2, "miss": 2, "announce": 1}


def instructions(binary, kind, rounds):
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", binary, kind, str(rounds)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", run.stderr).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/release/serving_core"))
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()

    figures = {}
    for kind in KINDS:
        few, many = (instructions(options.binary, kind, rounds) for rounds in ROUNDS)
        figures[kind] = round((many - few) / (ROUNDS[1] - ROUNDS[0]))
    figures["mix"] = round(sum(figures[kind] * share for kind, share in SHARES.items()) / 10)
    before = json.loads(options.check.read_text()) if options.check else {}
    worse = []
    for kind, figure in figures.items():
        was = before.get(kind)
        beside = f"   was {was:5} ({figure / was:.2f}x)" if was else ""
        print(f"{kind:9} {figure:6} instructions a query{beside}")
        if was and figure > was * 1.1:
            worse.append(kind)
    if options.write:
        options.write.write_text(json.dumps(figures, indent=1) + "\n")
    if worse:
        sys.exit(f"more than a tenth dearer: {', '.join(worse)}")


if __name__ == "__main__":
    main()
