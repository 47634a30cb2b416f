#!/usr/bin/env python3
"""Compares downloads and seeding of one big file over loopback, in one interleaved run.

    tests/interop/install.sh
    cargo build --release -p btfetch -p harness
    sudo tests/bench/transfer.py [--mib 1024] [--repetitions 5] [--only NAME,...] [--seeding]

Everything runs in a network namespace of its own (hence root) in which 85.0.0.0/8 is local, because
transmission refuses peers at 127/8 and libtorrent lifts limits there.

Rows: the floor programs (plain TCP + SHA-1 + pwrite with one, two and three threads), btfetch,
libtorrent 2.1 and 2.0, aria2, transmission. Downloads come from the bare seeder `floor seed`, seeding
goes to the bare leecher `floor leech`, so that the counterpart does not steal the cores. Every file is
compared with the original. Wall seconds count from the start of the process to its end (libtorrent and
transmission: to "finished"); CPU seconds and peak memory are the operating system's own account.
Prints minimum / median / maximum, and the ratio to libtorrent 2.1 and to the floor of medians.
"""

import argparse
import filecmp
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
INTEROP = pathlib.Path(os.environ.get("INTEROP_DIR", ROOT / "target/interop"))
SEEDER = "85.1.0.1:17001"
PIECE = 1 << 20


def private_network():
    """Runs this program again inside a namespace without any interface but loopback."""
    if os.environ.get("TRANSFER_NAMESPACE") == "1":
        return
    os.environ["TRANSFER_NAMESPACE"] = "1"
    inside = 'ip link set lo up && ip route add local 85.0.0.0/8 dev lo && exec "$0" "$@"'
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", inside, sys.executable, *sys.argv])


def line_of(process, wanted):
    for line in process.stdout:
        if wanted in line:
            return line
    raise RuntimeError(f"{process.args[0]} ended without {wanted!r}")


def account(process):
    """Waits for the end; CPU seconds and peak MiB as the kernel counted them."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, usage.ru_nvcsw + usage.ru_nivcsw


def to_end(command, **options):
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    errors = process.stderr.read()
    cpu, peak, switches = account(process)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]}: status {process.returncode}\n{errors}")
    return time.monotonic() - start, cpu, peak, switches


class Bench:
    def __init__(self, mib, work):
        self.work = pathlib.Path(work)
        self.data = self.work / "seed" / "payload.bin"
        self.data.parent.mkdir()
        self.size = mib << 20
        with open(self.data, "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        self.torrent = self.work / "payload.torrent"
        subprocess.run([TARGET / "btfetch", "create", self.data, "-o", self.torrent, "--piece-length", str(PIECE)], check=True,
                       stdout=subprocess.DEVNULL)
        self.tracked = self.work / "tracked.torrent"
        subprocess.run([TARGET / "btfetch", "create", self.data, "-o", self.tracked, "--piece-length", str(PIECE), "--tracker",
                        "http://85.1.0.1:17004/announce"], check=True, stdout=subprocess.DEVNULL)
        told = subprocess.run([TARGET / "btfetch", "info", "--json", self.torrent], check=True, capture_output=True, text=True)
        self.infohash = json.loads(told.stdout)["infohash_v1"]

    # ---- downloads: each takes a fresh folder and returns (wall, cpu, peak MiB, switches)

    def floor(self, kind, out):
        sender = subprocess.Popen([TARGET / "floor", "send", "85.1.0.1:17002", self.data], stdout=subprocess.PIPE, text=True)
        try:
            line_of(sender, "listening")
            return to_end([TARGET / "floor", kind, "85.1.0.1:17002", str(self.size), out / "payload.bin", str(PIECE)])
        finally:
            sender.kill()
            sender.wait()

    def btfetch(self, out):
        return to_end([TARGET / "btfetch", self.torrent, "-o", out, "--peer", SEEDER, "--no-dht", "--no-state", "--allow-local",
                       "--port", "0", "-q"])

    def libtorrent(self, series, out):
        python = INTEROP / f"libtorrent-{series}/bin/python"
        start = time.monotonic()
        process = subprocess.Popen([python, ROOT / "tests/interop/libtorrent_peer.py", "--listen", "85.1.0.1:17003", "--no-dht"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line_of(process, "ready")
        add = {"op": "add", "source": str(self.torrent), "save": str(out), "peers": [SEEDER]}
        process.stdin.write(json.dumps(add) + "\n")
        process.stdin.flush()
        line_of(process, '"finished"')
        wall = time.monotonic() - start
        process.stdin.write('{"op": "stop"}\n')
        process.stdin.flush()
        cpu, peak, switches = account(process)
        return wall, cpu, peak, switches

    def aria2(self, out):
        # aria2 takes peers from trackers only: one that knows our seeder and nobody else.
        tracker = subprocess.Popen([sys.executable, ROOT / "tests/bench/one_peer_tracker.py", "17004", SEEDER],
                                   stdout=subprocess.PIPE, text=True)
        try:
            line_of(tracker, "listening")
            return to_end(["aria2c", "--no-conf", "-q", "--seed-time=0", "--file-allocation=none", "--enable-dht=false",
                           "--bt-tracker=http://85.1.0.1:17004/announce", "--listen-port=17005", "-d", str(out), str(self.torrent)])
        finally:
            tracker.kill()
            tracker.wait()

    def transmission(self, out):
        # Debian's 3.00: peers from the tracker, commands over its RPC, CPU by its own process.
        config = pathlib.Path(tempfile.mkdtemp(dir=self.work))
        settings = {"bind-address-ipv4": "85.2.0.1", "rpc-bind-address": "85.2.0.1", "rpc-whitelist-enabled": False,
                    "rpc-host-whitelist-enabled": False, "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False,
                    "utp-enabled": False, "encryption": 0, "download-dir": str(out), "preallocation": 1, "cache-size-mb": 64}
        (config / "settings.json").write_text(json.dumps(settings))
        tracker = subprocess.Popen([sys.executable, ROOT / "tests/bench/one_peer_tracker.py", "17004", SEEDER],
                                   stdout=subprocess.PIPE, text=True)
        line_of(tracker, "listening")
        start = time.monotonic()
        process = subprocess.Popen(["transmission-daemon", "--foreground", "--config-dir", config], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        remote = ["transmission-remote", "85.2.0.1:9091"]
        try:
            while subprocess.run([*remote, "--add", self.tracked], capture_output=True).returncode != 0:
                time.sleep(0.05)
            while "Percent Done: 100%" not in subprocess.run([*remote, "-t", "1", "--info"], capture_output=True, text=True).stdout:
                if time.monotonic() - start > 300:
                    raise RuntimeError("transmission does not finish")
                time.sleep(0.1)
            wall = time.monotonic() - start
        finally:
            tracker.kill()
            tracker.wait()
            process.terminate()
        cpu, peak, switches = account(process)
        return wall, cpu, peak, switches

    # ---- seeding: returns MB/s and CPU seconds per GiB of a second serving

    def leech(self, at):
        told = subprocess.run([TARGET / "floor", "leech", at, self.infohash, str(PIECE), str(self.size)], check=True,
                              capture_output=True, text=True)
        return float(told.stdout.split()[0])

    def measure_seeding(self, process, at):
        self.leech(at)  # once before measuring: libtorrent's seed mode hashes at the first upload
        before = cpu_of(process.pid)
        rate = self.leech(at)
        cpu = cpu_of(process.pid) - before
        process.kill()
        process.wait()
        return rate, cpu / (self.size / (1 << 30))

    def seed_btfetch(self):
        process = subprocess.Popen([TARGET / "btfetch", "seed", self.torrent, "-o", self.data.parent, "--no-dht", "--no-state",
                                    "--allow-local", "--bind", "85.1.0.1:17006", "--json"], stdout=subprocess.PIPE, text=True)
        line_of(process, '"done"')
        return self.measure_seeding(process, "85.1.0.1:17006")

    def seed_libtorrent(self, series):
        python = INTEROP / f"libtorrent-{series}/bin/python"
        process = subprocess.Popen([python, ROOT / "tests/interop/libtorrent_peer.py", "--listen", "85.1.0.1:17007", "--no-dht"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line_of(process, "ready")
        add = {"op": "add", "source": str(self.torrent), "save": str(self.data.parent), "seed": True}
        process.stdin.write(json.dumps(add) + "\n")
        process.stdin.flush()
        line_of(process, '"add"')
        return self.measure_seeding(process, "85.1.0.1:17007")


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spread(values, digits=2):
    ordered = [min(values), statistics.median(values), max(values)]
    return "/".join(f"{value:.{digits}f}" for value in ordered)


def downloads(bench, only, repetitions):
    rows = {
        "floor full1": lambda out: bench.floor("full1", out),
        "floor full2": lambda out: bench.floor("full2", out),
        "floor full3": lambda out: bench.floor("full3", out),
        "btfetch": bench.btfetch,
        "libtorrent 2.1": lambda out: bench.libtorrent("2.1", out),
        "libtorrent 2.0": lambda out: bench.libtorrent("2.0", out),
        "aria2": bench.aria2,
        "transmission": bench.transmission,
    }
    rows = {name: run for name, run in rows.items() if not only or name in only}
    seeder = subprocess.Popen([TARGET / "floor", "seed", SEEDER, bench.infohash, str(PIECE), bench.data], stdout=subprocess.PIPE,
                              text=True)
    line_of(seeder, "listening")
    results = {name: [] for name in rows}
    try:
        for repetition in range(repetitions):
            for name, run in rows.items():
                out = pathlib.Path(tempfile.mkdtemp(dir=bench.work))
                results[name].append(run(out))
                if not filecmp.cmp(out / "payload.bin", bench.data, shallow=False):
                    raise RuntimeError(f"{name}: the file differs")
                shutil.rmtree(out)
                print(f"  {repetition + 1} {name}: {results[name][-1][0]:.2f} s", file=sys.stderr)
    finally:
        seeder.kill()
    gib = bench.size / (1 << 30)
    print(f"download of {bench.size >> 20} MiB, {repetitions} repetitions, minimum/median/maximum")
    print("| client | MB/s | CPU s/GiB | peak RSS MiB | context switches |\n|---|---|---|---|---|")
    medians = {}
    for name, runs in results.items():
        rate = [bench.size / run[0] / 1e6 for run in runs]
        cpu = [run[1] / gib for run in runs]
        medians[name] = statistics.median(rate), statistics.median(cpu)
        print(f"| {name} | {spread(rate, 0)} | {spread(cpu)} | {spread([run[2] for run in runs], 0)} | "
              f"{statistics.median(run[3] for run in runs):.0f} |")
    ours = medians.get("btfetch")
    for name, (rate, cpu) in medians.items():
        if ours and name != "btfetch":
            print(f"btfetch / {name}: {ours[0] / rate:.2f} x MB/s, {ours[1] / cpu:.2f} x CPU")


def seeding(bench, only, repetitions):
    rows = {
        "btfetch": bench.seed_btfetch,
        "libtorrent 2.1": lambda: bench.seed_libtorrent("2.1"),
        "libtorrent 2.0": lambda: bench.seed_libtorrent("2.0"),
    }
    rows = {name: run for name, run in rows.items() if not only or name in only}
    results = {name: [] for name in rows}
    for _ in range(repetitions):
        for name, run in rows.items():
            results[name].append(run())
    print(f"seeding {bench.size >> 20} MiB to one bare leecher, {repetitions} repetitions, minimum/median/maximum")
    print("| client | MB/s | CPU s/GiB |\n|---|---|---|")
    for name, runs in results.items():
        print(f"| {name} | {spread([run[0] for run in runs], 0)} | {spread([run[1] for run in runs])} |")


def main():
    private_network()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--seeding", action="store_true", help="seeding only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="transfer-", dir=os.environ.get("BENCH_DIR")) as work:
        bench = Bench(args.mib, work)
        if not args.seeding:
            downloads(bench, args.only, args.repetitions)
        seeding(bench, args.only, args.repetitions)


main()
