"""A folder over HTTP on this machine, with ranges, and with faults on demand."""

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files as RFC 9110 has it; ``server.faults`` answers are refused first."""

    protocol_version = "HTTP/1.1"  # connections stay open

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self.server.requests += 1
        if self.server.faults > 0:
            self.server.faults -= 1
            return self.send_error(503)
        if not path.is_file():
            return self.send_error(404)
        data, wanted = path.read_bytes(), self.headers.get("Range")
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
        if match and self.server.ranges:
            first, last = int(match[1]), min(int(match[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes" if self.server.ranges else "none")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serving(folder: Path, *, ranges: bool = True) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server of a folder, with its address in ``server.url``."""

    def handler(*args: object) -> RangeHandler:
        return RangeHandler(*args, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.faults, server.requests, server.ranges = 0, 0, ranges
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
