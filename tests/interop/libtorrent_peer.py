"""A libtorrent session driven over standard input and output, one JSON object a line.

The interop tests start it with the Python of a virtual environment that holds the wanted series of
libtorrent (see install.sh). It answers every command with one line {"reply": OP, ...} and tells what
happens in lines {"event": NAME, ...}.

    libtorrent_peer.py --listen 85.1.0.1:6881 [--bootstrap 85.2.0.1:6881 ...] [--no-dht] [--read-only]

Commands: add (torrent path or magnet uri, save path, peers, seed), status, dht_state, dht_add, dht_enforce_ids,
dht_get_peers, dht_announce (seed), dht_put_immutable, dht_get_immutable, dht_put_mutable,
dht_get_mutable, dht_sample, stop. Keys, salts, values and targets are in hexadecimal; values are
bencode, but for dht_put_mutable, whose value is a string: libtorrent's Python signs nothing else.
"""

import argparse
import json
import select
import sys
import time

import libtorrent as lt


def say(**fields):
    print(json.dumps(fields), flush=True)


def value_of(alert):
    """The bencoded value of a DHT item alert, in hexadecimal, or nothing. libtorrent 2.0 hands out strings
    only; of other values there is the text of the alert."""
    try:
        value = alert.item
    except RuntimeError:
        return {}
    if lt.__version__.startswith("2.0."):
        value = value["value"]
    return {} if value is None else {"value": lt.bencode(value).hex()}


def signed(alert):
    """Salt and signature of a mutable item; libtorrent 2.0 has them in a dictionary if the value is a
    string, and stumbles over salts that are not UTF-8 elsewhere."""
    try:
        fields = alert.item if lt.__version__.startswith("2.0.") else {"salt": alert.salt, "signature": alert.signature}
        return {name: fields[name].hex() for name in ("salt", "signature")}
    except RuntimeError:
        return {}


def split(address):
    """Host and port; the host of IPv6 stands in brackets."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def join(host, port):
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def settings(args):
    pack = {
        "listen_interfaces": args.listen,
        "enable_dht": not args.no_dht,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "dht_read_only": args.read_only,
        "dht_bootstrap_nodes": ",".join(args.bootstrap),
        "alert_mask": lt.alert.category_t.all_categories & ~lt.alert.category_t.peer_log_notification
        & ~lt.alert.category_t.session_log_notification & ~lt.alert.category_t.torrent_log_notification,
        "alert_queue_size": 100_000,
        "in_enc_policy": 1,
        "out_enc_policy": 2,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        # Tests live on a few made-up addresses of one machine.
        "dht_enforce_node_id": False,
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_prefer_verified_node_ids": False,
        "dht_ignore_dark_internet": False,
        "dht_block_ratelimit": 100_000,
        "dht_upload_rate_limit": 100_000_000,
        "min_reconnect_time": 1,
        "urlseed_wait_retry": 1,
        "announce_to_all_trackers": True,
        "validate_https_trackers": False,
        "ssrf_mitigation": False,
        "connection_speed": 500,
        "active_downloads": -1,
        "active_seeds": -1,
        "active_limit": 1000,
    }
    if args.hashing_threads:
        pack["hashing_threads"] = args.hashing_threads
    if args.no_token_limits:
        pack["dht_max_peers"] = 5000
        pack["dht_max_torrents"] = 200_000
    return pack


class Peer:
    def __init__(self, args):
        self.session = lt.session(settings(args))
        self.torrents = {}

    def add(self, command):
        if command["source"].startswith("magnet:"):
            params = lt.parse_magnet_uri(command["source"])
        else:
            params = lt.add_torrent_params()
            params.ti = lt.torrent_info(command["source"])
        params.save_path = command["save"]
        if command.get("seed"):
            params.flags |= lt.torrent_flags.seed_mode
        params.flags &= ~lt.torrent_flags.auto_managed
        params.flags &= ~lt.torrent_flags.paused
        peers = [split(peer) for peer in command.get("peers", [])]
        # Known from the start; those that are told of later wait for the session's next tick.
        params.peers = peers
        handle = self.session.add_torrent(params)
        for peer in peers:
            handle.connect_peer(peer)
        self.torrents[str(handle.info_hash())] = handle
        return {"infohash": str(handle.info_hash())}

    def status(self, command):
        out = []
        for infohash, handle in self.torrents.items():
            s = handle.status()
            out.append({"infohash": infohash, "state": str(s.state), "progress": s.progress, "peers": s.num_peers,
                        "done": s.is_seeding or s.is_finished, "metadata": s.has_metadata, "rate": s.download_payload_rate,
                        "uploaded": s.total_payload_upload, "downloaded": s.total_payload_download})
        return {"torrents": out}

    def dht_state(self, command):
        self.session.post_session_stats()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for alert in self.pump():
                if isinstance(alert, lt.session_stats_alert):
                    return {"nodes": alert.values["dht.dht_nodes"], "peers_stored": alert.values["dht.dht_peers"]}
            time.sleep(0.01)
        return {"nodes": 0, "peers_stored": 0}

    def dht_add(self, command):
        self.session.add_dht_node(split(command["node"]))
        return {}

    def dht_enforce_ids(self, command):
        self.session.apply_settings({"dht_enforce_node_id": True})
        return {}

    def dht_get_peers(self, command):
        self.session.dht_get_peers(lt.sha1_hash(bytes.fromhex(command["infohash"])))
        return {}

    def dht_announce(self, command):
        # The flag of an announce by a seed is 1; libtorrent 2.0 has no name for it in Python.
        flags = 1 if command.get("seed") else 0
        self.session.dht_announce(lt.sha1_hash(bytes.fromhex(command["infohash"])), command["port"], flags)
        return {}

    def dht_put_immutable(self, command):
        value = lt.bdecode(bytes.fromhex(command["value"]))
        return {"target": str(self.session.dht_put_immutable_item(value))}

    def dht_get_immutable(self, command):
        self.session.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(command["target"])))
        return {}

    def dht_put_mutable(self, command):
        secret, public, value, salt = (bytes.fromhex(command[name]) for name in ("secret", "public", "value", "salt"))
        self.session.dht_put_mutable_item(secret, public, value, salt)
        return {}

    def dht_get_mutable(self, command):
        self.session.dht_get_mutable_item(bytes.fromhex(command["public"]), bytes.fromhex(command["salt"]))
        return {}

    def dht_sample(self, command):
        self.session.dht_sample_infohashes(split(command["node"]), lt.sha1_hash(bytes.fromhex(command["target"])))
        return {}

    def pump(self):
        """Tells of the alerts that tests wait for; returns them all."""
        alerts = self.session.pop_alerts()
        for alert in alerts:
            if isinstance(alert, lt.torrent_finished_alert):
                say(event="finished", infohash=str(alert.handle.info_hash()))
            elif isinstance(alert, lt.metadata_received_alert):
                say(event="metadata", infohash=str(alert.handle.info_hash()))
            elif isinstance(alert, lt.dht_get_peers_reply_alert):
                say(event="peers", infohash=str(alert.info_hash), peers=[join(*peer) for peer in alert.peers()])
            elif isinstance(alert, lt.dht_bootstrap_alert):
                say(event="bootstrapped")
            elif isinstance(alert, lt.dht_announce_alert):
                say(event="announced_to_us", infohash=str(alert.info_hash), ip=str(alert.ip), port=alert.port)
            elif isinstance(alert, lt.dht_put_alert):
                say(event="put", stored=alert.num_success, target=str(alert.target), seq=alert.seq)
            elif isinstance(alert, lt.dht_immutable_item_alert):
                say(event="immutable", target=str(alert.target), text=alert.message(), **value_of(alert))
            elif isinstance(alert, lt.dht_mutable_item_alert):
                say(event="mutable", seq=alert.seq, final=alert.authoritative, **value_of(alert), **signed(alert))
            elif isinstance(alert, lt.dht_sample_infohashes_alert):
                say(event="samples", num=alert.num_infohashes, samples=[str(sample) for sample in alert.samples],
                    nodes=alert.num_nodes, interval=str(alert.interval))
            elif isinstance(alert, lt.external_ip_alert):
                say(event="external", ip=str(alert.external_address))
            elif isinstance(alert, (lt.hash_failed_alert, lt.torrent_error_alert, lt.listen_failed_alert, lt.file_error_alert)):
                say(event="error", text=alert.message())
        return alerts

    def run(self):
        buffered = ""
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], 0.02)
            self.pump()
            if not ready:
                continue
            line = sys.stdin.readline()
            if not line:
                return
            command = json.loads(line)
            if command["op"] == "stop":
                say(reply="stop")
                return
            try:
                say(reply=command["op"], **getattr(self, command["op"])(command))
            except Exception as error:  # the test wants to see it, not a dead pipe
                say(reply=command["op"], error=f"{type(error).__name__}: {error}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--bootstrap", action="append", default=[])
    parser.add_argument("--no-dht", action="store_true")
    parser.add_argument("--no-token-limits", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--hashing-threads", type=int)
    args = parser.parse_args()
    peer = Peer(args)
    say(event="ready", version=lt.__version__, listen=args.listen)
    peer.run()


main()
