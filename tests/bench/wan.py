#!/usr/bin/env python3
"""Compares swarms of one client each on an emulated wide-area network, in one interleaved run.

    tests/interop/install.sh --rqbit
    cargo build --release -p btfetch -p harness
    sudo tests/bench/wan.py [--mib 64] [--loss 0,1] [--repetitions 5] [--only NAME,...]

Every host is a network namespace behind a TUN device; the program `wan` moves the packets between them, at
25 Mbit/s up and down per host, 40 ms there and back, behind queues of 512 KiB that drop what does not fit,
with a loss per packet and direction that is drawn from a seed. One seeder has everything, three leechers
start together and stay until the last of them is complete; all find each other through a tracker.

The *factor* is the time from the start of the leechers until the last one is complete over the time that
the seeder's line needs to send the payload once. A plain TCP stream from one host to another, which
headers alone cost some 4 %, stands beside; so does the round trip of an empty network, as a check of the
emulator. *Sent by the seeder* is what left its line, headers included, in payloads. Every file is compared
with the original.
"""

import argparse
import dataclasses
import filecmp
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import transfer_clients
import wan_members

TARGET = transfer_clients.TARGET
PLAIN = "plain TCP"
GOALS = {0.0: 1.25, 1.0: 1.3}
CONNECT = """
import socket, sys, time
def once():
    start = time.monotonic()
    socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
    return time.monotonic() - start
print(1000 * min(once() for _ in range(9)))
"""


@dataclasses.dataclass
class Quality:
    """Of the network: Mbit/s, ms there and back, KiB of queue, % of loss."""

    rate: int
    rtt: int
    queue: int
    loss: float
    seed: int
    congestion: str


@dataclasses.dataclass
class Run:
    """Seconds of each receiver, bytes and dropped packets of the seeder's line up."""

    seconds: list
    sent: int
    dropped: int


def round_trip(quality):
    """Milliseconds that a connection takes."""
    with wan_members.Network(dataclasses.replace(quality, loss=0), 2) as network:
        tracker = wan_members.Tracker(network)
        return float(network.start(1, [sys.executable, "-c", CONNECT, *tracker.address.split(":")]).communicate()[0])


def plain(quality, torrent, leechers, work):
    """A stream between two hosts by the programs of the floor."""
    out = pathlib.Path(tempfile.mkdtemp(dir=work)) / "out"
    with wan_members.Network(quality, 3) as network:
        at = f"{network.addresses[1]}:17002"
        transfer_clients.line_of(network.start(1, [TARGET / "floor", "send", at, torrent.bytes]), "listening")
        start = time.time()
        if network.start(2, [TARGET / "floor", "full1", at, torrent.size, out, torrent.piece]).wait() != 0:
            raise RuntimeError("the plain stream fails")
        seconds = [time.time() - start]
    return run_of(network, seconds)


def swarm(client, quality, torrent, leechers, work):
    """One seeder and the leechers, all of one client."""
    folders = [pathlib.Path(tempfile.mkdtemp(dir=work)) for _ in range(leechers)]
    with wan_members.Network(quality, leechers + 2) as network:
        tracker = wan_members.Tracker(network)
        client(network, 1, torrent, torrent.root.parent, True, work)
        tracker.wait_for_seeder()
        start = time.time()
        members = [client(network, host + 2, torrent, folder, False, work) for host, folder in enumerate(folders)]
        seconds = [member.completes() - start for member in members]
    for folder in folders:
        if not filecmp.cmp(folder / torrent.root.name, torrent.root, shallow=False):
            raise RuntimeError("what arrived differs")
        os.remove(folder / torrent.root.name)
    return run_of(network, seconds)


def run_of(network, seconds):
    up = network.counts[1]["up"]
    return Run(seconds, up["bytes"], up["dropped"])


def spread(values):
    return "/".join(f"{value:.2f}" for value in [min(values), statistics.median(values), max(values)])


def table(loss, results, torrent, least):
    """Prints what was measured; whether the goal, if there is one, is met."""
    print(f"\n{loss:g} % loss, minimum/median/maximum of each run")
    print("| client | factor | first leecher | sent by the seeder | dropped by its queue |\n|---|---|---|---|---|")
    for name, runs in results.items():
        cells = [spread([max(run.seconds) / least for run in runs]), spread([min(run.seconds) / least for run in runs]),
                 spread([run.sent / torrent.size for run in runs]), f"{statistics.median(run.dropped for run in runs):.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    wanted = GOALS.get(loss)
    if "btfetch" in results and wanted:
        reached = statistics.median(max(run.seconds) / least for run in results["btfetch"])
        print(f"\ngoal: factor of btfetch, median, <= {wanted}: {reached:.2f} {'met' if reached <= wanted else 'MISSED'}", flush=True)
        return reached <= wanted
    return True


def interleaved(rows, losses, args, torrent, work):
    results = {loss: {name: [] for name in rows} for loss in losses}
    for repetition in range(args.repetitions):
        for loss in losses:
            quality = Quality(args.rate, args.rtt, args.queue, loss, args.seed + repetition, args.congestion)
            for name, run in transfer_clients.turned(rows, repetition):
                done = run(quality, torrent, args.leechers, work)
                results[loss][name].append(done)
                seconds = " ".join(f"{value:.2f}" for value in done.seconds)
                print(f"  {repetition + 1} {loss:g} % {name}: {seconds} s, {done.sent / torrent.size:.2f} sent", file=sys.stderr)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--loss", type=lambda text: [float(word) for word in text.split(",")], default=[0.0, 1.0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--leechers", type=int, default=3)
    parser.add_argument("--rate", type=int, default=25, help="Mbit/s, up and down each")
    parser.add_argument("--rtt", type=int, default=40, help="ms")
    parser.add_argument("--queue", type=int, default=512, help="KiB")
    parser.add_argument("--congestion", default="bbr", help="the kernel's congestion control")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="fail if a goal is missed")
    args = parser.parse_args()
    rows = {PLAIN: plain} | {name: lambda *rest, client=client: swarm(client, *rest) for name, client in wan_members.CLIENTS.items()}
    if unknown := set(args.only or []) - set(rows):
        parser.error(f"unknown clients: {', '.join(unknown)}")
    rows = {name: run for name, run in rows.items() if not args.only or name in args.only}
    with tempfile.TemporaryDirectory(prefix="wan-", dir=os.environ.get("BENCH_DIR")) as folder:
        work = pathlib.Path(folder)
        root = work / "seed" / "payload.bin"
        transfer_clients.random_file(root, args.mib << 20)
        address = f"http://85.1.0.1:{wan_members.TRACKER_PORT}/announce"
        torrent = transfer_clients.torrent_of(root, 256 << 10, work, address)
        trip = round_trip(Quality(args.rate, args.rtt, args.queue, 0, args.seed, args.congestion))
        print(f"{args.rate} Mbit/s, {args.rtt} ms ({trip:.1f} measured), queues of {args.queue} KiB, {args.congestion}, "
              f"{args.mib} MiB in pieces of 256 KiB, 1 seeder and {args.leechers} leechers, {args.repetitions} repetitions", flush=True)
        results = interleaved(rows, args.loss, args, torrent, work)
        met = [table(loss, of_loss, torrent, torrent.size * 8 / args.rate / 1e6) for loss, of_loss in results.items()]
    if args.check and not all(met):
        sys.exit("a goal is missed")


main()
