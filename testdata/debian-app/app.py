"""Serves a page on the loopback interface, fetches it, and prints it."""

import http.server
import platform
import threading
import urllib.request


class Quiet(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, directory="pages", **options)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/index.html") as answer:
    page = answer.read().decode()
server.shutdown()
print(f"Python {platform.python_version()}")
print(page, end="")
