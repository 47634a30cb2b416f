"""An HTTP tracker at IP:PORT_OF_TRACKER that names one peer: one_peer_tracker.py PORT_OF_TRACKER IP:PORT"""

import http.server
import socket
import sys

host, port = sys.argv[2].rsplit(":", 1)
PEER = socket.inet_aton(host) + int(port).to_bytes(2, "big")
REPLY = b"d8:intervali1800e5:peers6:" + PEER + b"e"


class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(REPLY)))
        self.end_headers()
        self.wfile.write(REPLY)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((host, int(sys.argv[1])), Tracker)
print("listening", flush=True)
server.serve_forever()
