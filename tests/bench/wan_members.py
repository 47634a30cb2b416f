"""The network of `wan.py`, and how it runs each client on a host of it, as seeder or as leecher."""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import threading
import time

from transfer_clients import INTEROP, OURS, ROOT, TARGET, line_of

TRACKER_PORT = 8000
PEER_PORT = 6881
DEADLINE = 600


class Network:
    """Hosts, each in a network namespace: 0 has the tracker, 1 the seeder, the others leechers. Ends what runs on it."""

    def __init__(self, quality, hosts):
        words = [hosts, quality.rate, quality.rtt, quality.queue, round(quality.loss * 10_000), quality.seed, quality.congestion]
        command = [TARGET / "wan", *map(str, words)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        told = [line_of(self.process, "host").split() for _ in range(hosts)]
        self.addresses = [address for _, _, address, _ in told]
        self.namespaces = [namespace for _, _, _, namespace in told]
        line_of(self.process, "ready")
        self.running = []
        self.counts = []

    def start(self, host, command, **options):
        """Starts a program on a host, in a home of its own."""
        entered = ["nsenter", f"--net={self.namespaces[host]}", *map(str, command)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True} | options
        process = subprocess.Popen(entered, **options)
        self.running.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()
        told, _ = self.process.communicate()
        self.counts = [json.loads(line) for line in told.splitlines()]


class Tracker:
    """The tracker on host 0; whoever announces is known to all who do so later."""

    def __init__(self, network):
        self.address = f"{network.addresses[0]}:{TRACKER_PORT}"
        self.process = network.start(0, [sys.executable, ROOT / "tests/bench/swarm_tracker.py", self.address])
        line_of(self.process, "listening")

    def wait_for_seeder(self):
        line_of(self.process, "0 ")


class Member:
    """A client on a host. `done` is the wall-clock time at which it had everything."""

    def __init__(self):
        self.done = None
        self.ended = threading.Event()

    def completes(self):
        if not self.ended.wait(DEADLINE):
            raise RuntimeError("a leecher does not finish")
        return self.done

    def when_said(self, stream, wanted):
        """Waits in the background for a line, and reads the others away."""
        def read():
            for line in stream:
                if self.done is None and wanted in line:
                    self.done = time.time()
                    self.ended.set()
        threading.Thread(target=read, daemon=True).start()

    def when_touched(self, path):
        """Waits in the background for a file that the client's hook makes."""
        def look():
            while not path.exists():
                time.sleep(0.05)
            self.done = path.stat().st_mtime
            self.ended.set()
        threading.Thread(target=look, daemon=True).start()


def hook_that_touches(path, work):
    hook = pathlib.Path(tempfile.mkdtemp(dir=work)) / "done.sh"
    hook.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(path))}\n")
    hook.chmod(0o755)
    return hook


def fresh(work):
    return pathlib.Path(tempfile.mkdtemp(dir=work))


# ---- clients: each takes the network, a host, the torrent, the folder with or for the data and whether it seeds


def btfetch(network, host, torrent, folder, seeds, work):
    role = ["seed", torrent.path] if seeds else [torrent.path, "--seed", "--json"]
    at = f"{network.addresses[host]}:{PEER_PORT}"
    process = network.start(host, [TARGET / "btfetch", *role, "-o", folder, *OURS, "--bind", at])
    member = Member()
    member.when_said(process.stdout, "done" if seeds else '"verified"')
    return member


def libtorrent(network, host, torrent, folder, seeds, work):
    python = INTEROP / "libtorrent-2.1/bin/python"
    at = f"{network.addresses[host]}:{PEER_PORT}"
    command = [python, ROOT / "tests/interop/libtorrent_peer.py", "--listen", at, "--no-dht"]
    process = network.start(host, command, stdin=subprocess.PIPE)
    line_of(process, "ready")
    add = {"op": "add", "source": str(torrent.path), "save": str(folder), "seed": seeds}
    process.stdin.write(json.dumps(add) + "\n")
    process.stdin.flush()
    member = Member()
    member.when_said(process.stdout, '"finished"')
    return member


def aria2(network, host, torrent, folder, seeds, work):
    mark = fresh(work) / "done"
    command = ["aria2c", "--no-conf", "-q", "--seed-ratio=0", "--file-allocation=none", "--enable-dht=false",
               "--bt-enable-lpd=false", f"--listen-port={PEER_PORT}", f"--on-bt-download-complete={hook_that_touches(mark, work)}",
               "-d", folder, torrent.path]
    network.start(host, command + (["--check-integrity=true"] if seeds else []))
    member = Member()
    member.when_touched(mark)
    return member


def rqbit(network, host, torrent, folder, seeds, work):
    command = [INTEROP / "rqbit/bin/rqbit", "-v", "info", "--disable-dht", "--disable-lsd", "--ipv4-only",
               "--listen-ip", network.addresses[host], "--listen-port", PEER_PORT, "--http-api-listen-addr", "127.0.0.1:3030",
               "download", "-o", folder, *(["--overwrite"] if seeds else []), torrent.path]
    process = network.start(host, command, stderr=subprocess.STDOUT)
    member = Member()
    member.when_said(process.stdout, "torrent finished")
    return member


def transmission(network, host, torrent, folder, seeds, work):
    config, mark = fresh(work), fresh(work) / "done"
    settings = {"rpc-whitelist-enabled": False, "rpc-host-whitelist-enabled": False, "dht-enabled": False,
                "lpd-enabled": False, "utp-enabled": False, "port-forwarding-enabled": False, "encryption": 0,
                "peer-port": PEER_PORT, "download-dir": str(folder), "incomplete-dir-enabled": False,
                "script-torrent-done-enabled": True, "script-torrent-done-filename": str(hook_that_touches(mark, work))}
    (config / "settings.json").write_text(json.dumps(settings))
    network.start(host, ["transmission-daemon", "--foreground", "--config-dir", config])
    while network.start(host, ["transmission-remote", "--add", torrent.path]).wait() != 0:
        time.sleep(0.05)
    member = Member()
    member.when_touched(mark)
    return member


CLIENTS = {"btfetch": btfetch, "libtorrent 2.1": libtorrent, "aria2": aria2, "rqbit": rqbit, "transmission": transmission}
