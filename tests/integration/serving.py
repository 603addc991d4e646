"""A `reticle serve` process on free ports, for tests."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time

import tiny_gguf

BEGIN, END = 256, 257


class Server:
    """Serves the tiny model on the fake device, or what `arguments` say."""

    def __init__(self, *arguments, wait=True, fake=True):
        self.folder = tempfile.TemporaryDirectory()
        command = [os.environ["RETICLE"], "serve"]
        if "--http" not in arguments:
            command += ["--http", "0"]
        if "--grpc" not in arguments:
            command += ["--grpc", "none"]
        if fake:
            model = os.path.join(self.folder.name, "tiny.gguf")
            tiny_gguf.write(model)
            command += ["--model", model, "--model-id", "tiny", "--device", "fake"]
        self.log = tempfile.TemporaryFile()
        # Unbuffered: a line that Python had read ahead would not wake select.
        self.process = subprocess.Popen(command + list(arguments), stdout=subprocess.PIPE,
                                        stderr=self.log, bufsize=0)
        self.terminated = False
        self.port = None
        line = self._read_line()
        match = re.match(r"HTTP  https?://127\.0\.0\.1:(\d+)", line)
        assert match, f"no address in {line!r}; log: {self.errors()}"
        self.port = int(match.group(1))
        if wait:
            self.wait_ready()

    def _read_line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, "the server prints nothing"
        return self.process.stdout.readline().decode()

    def errors(self):
        # The process writes at the place that this descriptor has, too: it must not be moved.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")

    def wait_ready(self):
        while True:
            assert self.process.poll() is None, self.errors()
            if self.request("GET", "/health/ready")[0] == 200:
                return
            time.sleep(0.02)

    def terminate(self):
        self.terminated = True
        self.process.send_signal(signal.SIGTERM)

    def stop(self, expect=0):
        if not self.terminated and self.process.poll() is None:
            self.terminate()
        status = self.process.wait(60)
        self.process.stdout.close()
        errors = self.errors()
        self.log.close()
        self.folder.cleanup()
        assert status == expect, f"exit status {status}; log: {errors}"
        return errors

    def connect(self, timeout=60):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def request(self, method, path, body=None, headers=()):
        """One request on its own connection: status, headers, body."""
        with self.connect() as sock:
            sock.sendall(build(method, path, body, list(headers) + ["Connection: close"]))
            return Reader(sock).response(head=method == "HEAD")

    def post(self, path, body):
        status, headers, data = self.request("POST", path, body)
        return status, headers, json.loads(data)

    def gauge(self, name):
        """The sum of a metric over its labels, or None."""
        _, _, text = self.request("GET", "/metrics")
        values = [float(line.rsplit(" ", 1)[1]) for line in text.decode().splitlines()
                  if line.startswith(name + "{") or line.startswith(name + " ")]
        return sum(values) if values else None


def build(method, path, body=None, headers=()):
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


class Reader:
    """Reads responses from a socket, one after the other."""

    def __init__(self, sock):
        self.file = sock.makefile("rb")

    def response(self, head=False):
        status_line = self.file.readline()
        assert status_line.startswith(b"HTTP/1.1 "), f"no response: {status_line!r}"
        status = int(status_line.split()[1])
        headers = {}
        while True:
            line = self.file.readline().strip()
            if not line:
                break
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if status == 100:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(self.chunks())
        else:
            body = b"" if head else self.file.read(int(headers["content-length"]))
        return status, headers, body

    def chunks(self):
        while True:
            size = int(self.file.readline(), 16)
            data = self.file.read(size)
            assert self.file.readline() == b"\r\n"
            if size == 0:
                return
            yield data

    def at_end(self):
        return self.file.read(1) == b""


def events(body):
    """The payloads of an SSE body."""
    parts = body.decode().split("\n\n")
    assert parts[-1] == ""
    assert all(part.startswith("data: ") for part in parts[:-1])
    return [part[len("data: "):] for part in parts[:-1]]
