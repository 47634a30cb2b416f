"""An HTTP tracker at IP:PORT that names everybody who has announced: swarm_tracker.py IP:PORT

Prints `listening`, then `LEFT IP:PORT` for each announce."""

import http.server
import socket
import sys
import urllib.parse

host, port = sys.argv[1].rsplit(":", 1)
peers = {}


class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query, encoding="latin-1"))
        own = socket.inet_aton(self.client_address[0]) + int(query["port"]).to_bytes(2, "big")
        others = b"".join(peer for peer in peers if peer != own)
        peers[own] = True
        if query.get("event") == "stopped":
            del peers[own]
        reply = b"d8:completei1e10:incompletei1e8:intervali1800e5:peers%d:%se" % (len(others), others)
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)
        print(query["left"], f"{self.client_address[0]}:{query['port']}", flush=True)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((host, int(port)), Tracker)
print("listening", flush=True)
server.serve_forever()
