"""How `transfer.py` makes payloads and runs each client, each once, and what that cost."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
INTEROP = pathlib.Path(os.environ.get("INTEROP_DIR", ROOT / "target/interop"))
RQBIT = INTEROP / "rqbit/bin/rqbit"
SEEDER = "85.1.0.1:17001"
OURS = ["--no-dht", "--no-state", "--allow-local"]


@dataclasses.dataclass
class Run:
    """One download: seconds until the data was there, until the end and until events; what it cost."""

    wall: float
    end: float
    cpu: float
    peak: float
    switches: int
    events: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Torrent:
    """A payload to be seeded. `root` is its file or folder, `bytes` all of it in one file."""

    root: pathlib.Path
    path: pathlib.Path
    bytes: pathlib.Path
    piece: int
    size: int
    pieces: int
    infohash: str

    def magnet(self):
        return f"magnet:?xt=urn:btih:{self.infohash}"


def random_file(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - at)))


def torrent_of(root, piece, work, tracker=None):
    path = pathlib.Path(tempfile.mkdtemp(dir=work)) / "made.torrent"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    tracked = ["--tracker", tracker] if tracker else []
    subprocess.run([TARGET / "btfetch", "create", root, "-o", path, "--piece-length", str(piece), *tracked], **quiet)
    told = subprocess.run([TARGET / "btfetch", "info", "--json", path], check=True, capture_output=True, text=True)
    info = json.loads(told.stdout)
    joined = root
    if root.is_dir():
        joined = path.parent / "joined"
        with open(joined, "wb") as whole:
            for file in info["files"]:
                with open(root.parent / file["path"], "rb") as part:
                    shutil.copyfileobj(part, whole)
    return Torrent(root, path, joined, piece, info["length"], info["pieces"], info["infohash_v1"])


def line_of(process, wanted):
    for line in process.stdout:
        if wanted in line:
            return line
    raise RuntimeError(f"{process.args[0]} ended without {wanted!r}")


def account(process):
    """Waits for the end; CPU seconds, peak MiB and context switches as the kernel counted them."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, usage.ru_nvcsw + usage.ru_nivcsw


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def to_end(command, done=None, events=()):
    """Runs a command. The data is there when it prints `done`, or at its end."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, seen, there = [], {}, None
    for line in process.stdout:
        now = time.monotonic() - start
        said = [*said[-20:], line]
        for event in events:
            if f'"{event}"' in line:
                seen.setdefault(event, now)
        if done and done in line:
            there = now
    cpu, peak, switches = account(process)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]}: status {process.returncode}\n{''.join(said)}")
    end = time.monotonic() - start
    return Run(there or end, end, cpu, peak, switches, seen)


class Counterpart:
    """A program beside the measured one, gone at the end of the block."""

    def __init__(self, command, ready):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line_of(self.process, ready)

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def bare_seeder(torrent):
    return Counterpart([TARGET / "floor", "seed", SEEDER, torrent.infohash, str(torrent.piece), torrent.bytes], "listening")


def whole_seeder(torrent):
    """One that has metadata, too. As `--json` tells of every event and nobody reads, it is left out."""
    seed = [TARGET / "btfetch", "seed", torrent.path, "-o", torrent.root.parent, *OURS, "--bind", SEEDER]
    return Counterpart(seed, "done")


def one_peer_tracker():
    return Counterpart([sys.executable, ROOT / "tests/bench/one_peer_tracker.py", "17004", SEEDER], "listening")


# ---- downloads: each takes a torrent and a fresh folder


def floor(kind, torrent, out):
    with Counterpart([TARGET / "floor", "send", "85.1.0.1:17002", torrent.bytes], "listening"):
        return to_end([TARGET / "floor", kind, "85.1.0.1:17002", str(torrent.size), out / torrent.root.name, str(torrent.piece)])


def btfetch(torrent, out, source=None, events=()):
    words = ["--json"] if events else []
    command = [TARGET / "btfetch", source or torrent.path, "-o", out, "--peer", SEEDER, *OURS, "--port", "0", *words]
    return to_end(command, '"verified"' if events else "verified and written", events)


def libtorrent(series, torrent, out, source=None, events=(), words=()):
    python = INTEROP / f"libtorrent-{series}/bin/python"
    command = [python, ROOT / "tests/interop/libtorrent_peer.py", "--listen", "85.1.0.1:17003", "--no-dht", *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line_of(process, "ready")
    before, start, seen = cpu_of(process.pid), time.monotonic(), {}
    add = {"op": "add", "source": str(source or torrent.path), "save": str(out), "peers": [SEEDER]}
    process.stdin.write(json.dumps(add) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        for event in events:
            if f'"{event}"' in line:
                seen.setdefault(event, time.monotonic() - start)
        if '"finished"' in line:
            break
    wall = time.monotonic() - start
    process.stdin.write('{"op": "stop"}\n')
    process.stdin.flush()
    cpu, peak, switches = account(process)
    return Run(wall, time.monotonic() - start, cpu - before, peak, switches, seen)


def aria2(torrent, out):
    # aria2 takes peers from trackers only: one that knows our seeder and nobody else.
    with one_peer_tracker():
        return to_end(["aria2c", "--no-conf", "-q", "--seed-time=0", "--file-allocation=none", "--enable-dht=false",
                       "--bt-tracker=http://85.1.0.1:17004/announce", "--listen-port=17005", "-d", str(out), str(torrent.path)])


def rqbit(torrent, out, source=None, words=()):
    return to_end([RQBIT, "-v", "error", "--disable-dht", "--disable-lsd", "--ipv4-only", "--listen-ip", "85.1.0.1", "--listen-port",
                   "17008", "--http-api-listen-addr", "127.0.0.1:3030", "download", "--exit-on-finish", "--initial-peers", SEEDER,
                   "-o", str(out), *words, str(source or torrent.path)])


def tracked(torrent):
    """The torrent with our tracker in it."""
    path = torrent.path.with_name("tracked.torrent")
    if not path.exists():
        subprocess.run([TARGET / "btfetch", "create", torrent.root, "-o", path, "--piece-length", str(torrent.piece), "--tracker",
                        "http://85.1.0.1:17004/announce"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def transmission(torrent, out, work):
    # Debian's 3.00: peers from trackers only, commands over its RPC.
    source = tracked(torrent)
    config = pathlib.Path(tempfile.mkdtemp(dir=work))
    settings = {"bind-address-ipv4": "85.2.0.1", "rpc-bind-address": "85.2.0.1", "rpc-whitelist-enabled": False,
                "rpc-host-whitelist-enabled": False, "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False,
                "utp-enabled": False, "encryption": 0, "download-dir": str(out), "preallocation": 1, "cache-size-mb": 64}
    (config / "settings.json").write_text(json.dumps(settings))
    with one_peer_tracker():
        start = time.monotonic()
        process = subprocess.Popen(["transmission-daemon", "--foreground", "--config-dir", config], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        remote = ["transmission-remote", "85.2.0.1:9091"]
        try:
            while subprocess.run([*remote, "--add", source], capture_output=True).returncode != 0:
                time.sleep(0.05)
            while "Percent Done: 100%" not in subprocess.run([*remote, "-t", "1", "--info"], capture_output=True, text=True).stdout:
                if time.monotonic() - start > 300:
                    raise RuntimeError("transmission does not finish")
                time.sleep(0.1)
            wall = time.monotonic() - start
        finally:
            process.terminate()
    cpu, peak, switches = account(process)
    return Run(wall, wall, cpu, peak, switches)


# ---- rechecks of a folder in which everything is


def check_floor(torrent, threads):
    return to_end([TARGET / "floor", "check", torrent.root, str(torrent.piece), str(threads)])


def check_btfetch(torrent):
    return to_end([TARGET / "btfetch", "check", torrent.path, "-o", torrent.root.parent])


def check_libtorrent(series, torrent, threads):
    # Checks what is there before it asks its peer for anything.
    return libtorrent(series, torrent, torrent.root.parent, words=["--hashing-threads", str(threads)])


def check_rqbit(torrent):
    # The option is called `--overwrite`, but what is there and right is kept.
    return rqbit(torrent, torrent.root.parent, words=["--overwrite"])


def check_aria2(torrent):
    return to_end(["aria2c", "--no-conf", "-q", "--check-integrity=true", "--hash-check-only=true", "--enable-dht=false",
                   "-d", str(torrent.root.parent), str(torrent.path)])


# ---- seeding: MB/s and CPU seconds per GiB of a second serving


def measure_seeding(torrent, process, at):
    def leech():
        told = subprocess.run([TARGET / "floor", "leech", at, torrent.infohash, str(torrent.piece), str(torrent.size)],
                              check=True, capture_output=True, text=True)
        return float(told.stdout.split()[0])

    leech()  # once before measuring: libtorrent's seed mode hashes at the first upload
    before = cpu_of(process.pid)
    rate = leech()
    cpu = cpu_of(process.pid) - before
    return rate, cpu / (torrent.size / (1 << 30))


def seed_btfetch(torrent):
    at = "85.1.0.1:17006"
    command = [TARGET / "btfetch", "seed", torrent.path, "-o", torrent.root.parent, *OURS, "--bind", at, "--json"]
    with Counterpart(command, '"done"') as process:
        return measure_seeding(torrent, process, at)


def seed_libtorrent(series, torrent):
    python = INTEROP / f"libtorrent-{series}/bin/python"
    process = subprocess.Popen([python, ROOT / "tests/interop/libtorrent_peer.py", "--listen", "85.1.0.1:17007", "--no-dht"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    line_of(process, "ready")
    add = {"op": "add", "source": str(torrent.path), "save": str(torrent.root.parent), "seed": True}
    process.stdin.write(json.dumps(add) + "\n")
    process.stdin.flush()
    line_of(process, '"add"')
    try:
        return measure_seeding(torrent, process, "85.1.0.1:17007")
    finally:
        process.kill()
        process.wait()


def turned(rows, repetition):
    """The rows, of which another one is first in each repetition. Whoever writes first after a pause finds a machine that
    has to get memory back from its host, which may double its CPU."""
    rows = list(rows.items())
    first = repetition % max(len(rows), 1)
    return rows[first:] + rows[:first]
