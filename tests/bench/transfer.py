#!/usr/bin/env python3
"""Compares downloads, rechecks and seeding over loopback with other clients and the floor, in one interleaved run.

    tests/interop/install.sh [--rqbit]
    cargo build --release -p btfetch -p harness
    sudo tests/bench/transfer.py [--kind KIND,...] [--mib 1024] [--repetitions 5] [--only NAME,...] [--check]

Kinds (big and seeding unless told otherwise, `all` for all):
    big         one file of --mib MiB in pieces of 1 MiB
    small       2,000 files in 280 folders, 256 MiB in all
    magnet      16 MiB by a magnet link and a given peer
    dictionary  820 MiB by a magnet link, in 52,480 pieces (1 MiB of metadata) and in 820
    recheck     the file of `big`, which is there and right
    seeding     the file of `big`, to one leecher

Everything runs in a network namespace of its own (hence root) in which 85.0.0.0/8 is local, because
transmission refuses peers at 127/8 and libtorrent lifts limits there.

The floor programs are plain TCP + SHA-1 + pwrite with one, two and three threads, and pread + SHA-1 with two. Downloads come from the
bare seeder `floor seed`, seeding goes to the bare leecher `floor leech`, so that the counterpart does not
steal the cores; magnet links are served by `btfetch seed`, as the bare one has no metadata. Every file is
compared with the original.

Seconds count from the start of the process (libtorrent: from the command to add the torrent) until
everything is verified and written: btfetch's line "verified and written", libtorrent's "finished", the end of the others.
btfetch alone then waits until the disk has it: "to the end" is that, too. CPU seconds, peak memory and
context switches are the system's account of the whole process. libtorrent's alerts are looked at every
20 ms, which its milliseconds include. rqbit is measured if it is installed. `small` is for a file system on which
no thousands of files were deleted in the last five minutes: ext4 passes over their places, one by one.

Prints minimum/median/maximum, ratios of medians, and what PERFORMANCE asks for beside what was reached; with
--check a goal that is missed is a failure, the moonshot is none.
"""

import argparse
import filecmp
import functools
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

import transfer_clients as clients

OURS, RIVAL = "btfetch", "libtorrent 2.1"
GIB = 1 << 30
BLOCK = 1 << 14
KINDS = ["big", "small", "magnet", "dictionary", "recheck", "seeding"]


def private_network():
    """Runs this program again inside a namespace without any interface but loopback."""
    if os.environ.get("TRANSFER_NAMESPACE") == "1":
        return
    os.environ["TRANSFER_NAMESPACE"] = "1"
    inside = 'ip link set lo up && ip route add local 85.0.0.0/8 dev lo && exec "$0" "$@"'
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", inside, sys.executable, *sys.argv])


def spread(values, digits=2):
    ordered = [min(values), statistics.median(values), max(values)]
    return "/".join(f"{value:.{digits}f}" for value in ordered)


def median(runs, of):
    return statistics.median(of(run) for run in runs)


MISSED = []


def goal(name, reached, most=None, least=None):
    met = reached <= most if most is not None else reached >= least
    wanted = f"<= {most}" if most is not None else f">= {least}"
    print(f"{name:52} {wanted:>8} {reached:>8.2f} {'met' if met else 'MISSED'}")
    if not met and "moonshot" not in name:
        MISSED.append(name)


def goals():
    print(f"\n{'goal':52} {'wanted':>8} {'reached':>8}")


def same(torrent, out):
    """Whether everything has arrived as it was."""
    if torrent.root.is_file():
        return filecmp.cmp(out / torrent.root.name, torrent.root, shallow=False)
    files = [path.relative_to(torrent.root) for path in torrent.root.rglob("*") if path.is_file()]
    _, differ, absent = filecmp.cmpfiles(torrent.root, out / torrent.root.name, files, shallow=False)
    return not differ and not absent


def in_turns(rows, only, repetitions):
    """Runs every row once in each of the repetitions, which are numbers."""
    rows = {name: run for name, run in rows.items() if not only or name in only}
    if not clients.RQBIT.exists():
        rows.pop("rqbit", None)
    results = {name: [] for name in rows}
    for repetition in repetitions:
        for name, run in clients.turned(rows, repetition):
            results[name].append(run())
            print(f"  {repetition + 1} {name}", file=sys.stderr)
    return results


def interleaved(rows, only, repetitions, work, torrent):
    """Runs downloads, each into a folder of its own, in turns; checks what arrived."""
    def checked(name, run):
        out = pathlib.Path(tempfile.mkdtemp(dir=work))
        result = run(out)
        if not same(torrent, out):
            raise RuntimeError(f"{name}: what arrived differs")
        # Many files stay until all is over: ext4 passes over the places of files that were deleted in the last
        # seconds, one by one, for each new one, which cost more than all the rest.
        if torrent.root.is_file():
            shutil.rmtree(out)
        return result
    rows = {name: functools.partial(checked, name, run) for name, run in rows.items()}
    return in_turns(rows, only, repetitions)


def table(title, results, size):
    blocks, gib = size / BLOCK, size / GIB
    print(f"\n{title}, minimum/median/maximum")
    print("| client | seconds | to the end | MB/s | CPU s/GiB | peak RSS MiB | context switches a block |\n|---|---|---|---|---|---|---|")
    for name, runs in results.items():
        cells = [spread([run.wall for run in runs]), f"{median(runs, lambda run: run.end):.2f}",
                 spread([size / run.wall / 1e6 for run in runs], 0), spread([run.cpu / gib for run in runs]),
                 spread([run.peak for run in runs], 0), spread([run.switches / blocks for run in runs], 3)]
        print(f"| {name} | {' | '.join(cells)} |")


def ratio(results, name, of):
    """Ours over another's, of medians; `None` if one of them did not run."""
    if OURS not in results or name not in results:
        return None
    return median(results[OURS], of) / median(results[name], of)


def goal_of(text, results, name, of, **bound):
    reached = ratio(results, name, of)
    if reached is not None:
        goal(text, reached, **bound)


def big(torrent, only, repetitions, work):
    rows = {f"floor {kind}": lambda out, kind=kind: clients.floor(kind, torrent, out) for kind in ["full1", "full2", "full3"]}
    rows |= {
        OURS: lambda out: clients.btfetch(torrent, out),
        RIVAL: lambda out: clients.libtorrent("2.1", torrent, out),
        "libtorrent 2.0": lambda out: clients.libtorrent("2.0", torrent, out),
        "rqbit": lambda out: clients.rqbit(torrent, out),
        "aria2": lambda out: clients.aria2(torrent, out),
        "transmission": lambda out: clients.transmission(torrent, out, work),
    }
    with clients.bare_seeder(torrent):
        results = interleaved(rows, only, range(repetitions), work, torrent)
    table(f"download of {torrent.size >> 20} MiB, {repetitions} repetitions", results, torrent.size)
    goals()
    rate, cpu = (lambda run: 1 / run.wall), (lambda run: run.cpu)
    goal_of("MB/s, x libtorrent 2.1", results, RIVAL, rate, least=1.15)
    goal_of("MB/s, x two-thread floor", results, "floor full2", rate, least=0.9)
    goal_of("MB/s, x three-thread floor (moonshot)", results, "floor full3", rate, least=0.9)
    goal_of("CPU, x one-thread floor", results, "floor full1", cpu, most=1.25)
    if ours := results.get(OURS):
        metainfo = torrent.path.stat().st_size / (1 << 20)
        goal("peak RSS, MiB without twice the metainfo", max(run.peak for run in ours) - 2 * metainfo, most=32)
        goal("context switches a block", median(ours, lambda run: run.switches) / (torrent.size / BLOCK), most=0.1)


def small(only, repetitions, work):
    root = work / "seed" / "many"
    for at in range(2000):
        # Between 1 and 261 KiB, 131 on average.
        clients.random_file(root / f"folder{at % 280:03}" / f"file{at:04}", (1 + (at * 37) % 261) << 10)
    torrent = clients.torrent_of(root, 256 << 10, work)
    rows = {
        OURS: lambda out: clients.btfetch(torrent, out),
        RIVAL: lambda out: clients.libtorrent("2.1", torrent, out),
        "libtorrent 2.0": lambda out: clients.libtorrent("2.0", torrent, out),
        "rqbit": lambda out: clients.rqbit(torrent, out),
        "aria2": lambda out: clients.aria2(torrent, out),
    }
    with clients.bare_seeder(torrent):
        results = interleaved(rows, only, range(repetitions), work, torrent)
    table(f"2,000 files in 280 folders, {torrent.size >> 20} MiB, {repetitions} repetitions", results, torrent.size)
    goals()
    goal_of("seconds, x libtorrent 2.1", results, RIVAL, lambda run: run.wall, most=1.0)
    goal_of("CPU, x libtorrent 2.1", results, RIVAL, lambda run: run.cpu, most=0.8)


EVENTS = ["metadata", "piece"]


def by_magnet(torrent, only, repetitions, work):
    """Downloads by magnet link; the events `metadata` and, of btfetch, the first `piece` are timed."""
    rows = {
        OURS: lambda out: clients.btfetch(torrent, out, torrent.magnet(), EVENTS),
        RIVAL: lambda out: clients.libtorrent("2.1", torrent, out, torrent.magnet(), EVENTS),
        "libtorrent 2.0": lambda out: clients.libtorrent("2.0", torrent, out, torrent.magnet(), EVENTS),
        "rqbit": lambda out: clients.rqbit(torrent, out, torrent.magnet()),
    }
    with clients.whole_seeder(torrent):
        return interleaved(rows, only, repetitions, work, torrent)


def print_magnet(torrent, results, repetitions):
    print(f"\n{torrent.size >> 20} MiB in {torrent.pieces} pieces by magnet link, {repetitions} repetitions, minimum/median/maximum")
    print("| client | ms to metadata | ms to the first piece | ms to complete | CPU s/GiB | peak RSS MiB |\n|---|---|---|---|---|---|")
    for name, runs in results.items():
        told = [[1000 * run.events[event] for run in runs if event in run.events] for event in EVENTS]
        cells = [spread(values, 0) if values else "-" for values in told]
        cells += [spread([1000 * run.wall for run in runs], 0), spread([run.cpu / torrent.size * GIB for run in runs]), spread([run.peak for run in runs], 0)]
        print(f"| {name} | {' | '.join(cells)} |")


def magnet(only, repetitions, work):
    root = work / "seed" / "short.bin"
    clients.random_file(root, 16 << 20)
    torrent = clients.torrent_of(root, 1 << 20, work)
    results = by_magnet(torrent, only, range(repetitions), work)
    print_magnet(torrent, results, repetitions)
    if ours := results.get(OURS):
        goals()
        goal("ms to metadata", median(ours, lambda run: 1000 * run.events["metadata"]), most=30)
        goal("ms to the first MiB", median(ours, lambda run: 1000 * run.events["piece"]), most=50)
        goal("ms to complete", median(ours, lambda run: 1000 * run.wall), most=120)


def dictionary(only, repetitions, work):
    root = work / "seed" / "fine.bin"
    clients.random_file(root, 820 << 20)
    # In turns, since their costs are compared.
    torrents = [clients.torrent_of(root, piece, work) for piece in (1 << 14, 1 << 20)]
    fine, coarse = {}, {}
    for repetition in range(repetitions):
        for torrent, results in zip(torrents, (fine, coarse)):
            for name, runs in by_magnet(torrent, only, [repetition], work).items():
                results.setdefault(name, []).extend(runs)
    for torrent, results in zip(torrents, (fine, coarse)):
        print_magnet(torrent, results, repetitions)
    if ours := fine.get(OURS):
        goals()
        goal("1 MiB of metadata: peak RSS less twice that, MiB", max(run.peak for run in ours) - 2, most=32)
        goal("1 MiB of metadata: ms", median(ours, lambda run: 1000 * run.events["metadata"]), most=60)
        cpu = median(ours, lambda run: run.cpu) / median(coarse[OURS], lambda run: run.cpu)
        goal("52,480 pieces: CPU, x that of 820 pieces", cpu, most=1.3)


FLOOR = "floor check"


def recheck(torrent, only, repetitions, work):
    rows = {
        FLOOR: lambda: clients.check_floor(torrent, 2),
        OURS: lambda: clients.check_btfetch(torrent),
        RIVAL: lambda: clients.check_libtorrent("2.1", torrent, 2),
        "libtorrent 2.0": lambda: clients.check_libtorrent("2.0", torrent, 2),
        "rqbit": lambda: clients.check_rqbit(torrent),
        "aria2": lambda: clients.check_aria2(torrent),
        "transmission": lambda: clients.transmission(torrent, torrent.root.parent, work),
    }
    results = in_turns(rows, only, range(repetitions))
    clients.check_btfetch(torrent)  # nobody has changed anything
    table(f"recheck of {torrent.size >> 20} MiB, {repetitions} repetitions", results, torrent.size)
    goals()
    rate = lambda run: 1 / run.wall
    goal_of("MB/s, x two threads of SHA-1", results, FLOOR, rate, least=0.9)
    goal_of("MB/s, x two threads of SHA-1 (moonshot)", results, FLOOR, rate, least=2.0)


def seeding(torrent, only, repetitions):
    rows = {
        OURS: lambda: clients.seed_btfetch(torrent),
        RIVAL: lambda: clients.seed_libtorrent("2.1", torrent),
        "libtorrent 2.0": lambda: clients.seed_libtorrent("2.0", torrent),
    }
    results = in_turns(rows, only, range(repetitions))
    print(f"\nseeding {torrent.size >> 20} MiB to one bare leecher, {repetitions} repetitions, minimum/median/maximum")
    print("| client | MB/s | CPU s/GiB |\n|---|---|---|")
    for name, runs in results.items():
        print(f"| {name} | {spread([run[0] for run in runs], 0)} | {spread([run[1] for run in runs])} |")
    goals()
    goal_of("MB/s, x libtorrent 2.1", results, RIVAL, lambda run: run[0], least=1.0)
    goal_of("CPU, x libtorrent 2.1", results, RIVAL, lambda run: run[1], most=0.8)


def main():
    private_network()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", type=lambda text: KINDS if text == "all" else text.split(","), default=["big", "seeding"])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--check", action="store_true", help="fail if a goal is missed")
    args = parser.parse_args()
    if unknown := set(args.kind) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="transfer-", dir=os.environ.get("BENCH_DIR")) as folder:
        work = pathlib.Path(folder)
        if {"big", "recheck", "seeding"} & set(args.kind):
            clients.random_file(work / "seed" / "payload.bin", args.mib << 20)
            torrent = clients.torrent_of(work / "seed" / "payload.bin", 1 << 20, work)
        if "big" in args.kind:
            big(torrent, args.only, args.repetitions, work)
        if "small" in args.kind:
            small(args.only, args.repetitions, work)
        if "magnet" in args.kind:
            magnet(args.only, args.repetitions, work)
        if "dictionary" in args.kind:
            dictionary(args.only, args.repetitions, work)
        if "recheck" in args.kind:
            recheck(torrent, args.only, args.repetitions, work)
        if "seeding" in args.kind:
            seeding(torrent, args.only, args.repetitions)
    if args.check and MISSED:
        sys.exit(f"missed: {', '.join(MISSED)}")


main()
