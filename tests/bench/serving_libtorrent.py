#!/usr/bin/env python3
"""A libtorrent DHT node with its limits lifted, for `serving compare`: IP:PORT ROUTER_IP:PORT."""

import sys
import time

import libtorrent as lt

listen, router = sys.argv[1:3]
session = lt.session(
    {
        "listen_interfaces": listen,
        "enable_dht": True,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "dht_bootstrap_nodes": router,
        "dht_upload_rate_limit": 1_000_000_000,
        "dht_block_ratelimit": 1_000_000_000,
        "dht_block_timeout": 0,
        "dht_max_torrents": 2_000_000,
        "dht_max_peers": 2000,
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_enforce_node_id": False,
        "dht_prefer_verified_node_ids": False,
        "dht_ignore_dark_internet": False,
        "alert_mask": 0,
    }
)
time.sleep(1)
print("listening", session.listen_port(), flush=True)
while True:
    time.sleep(3600)
