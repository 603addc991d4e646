"""A free tier on three emulated cards, under load and with faults, and a real Prometheus that scrapes it."""

import http.client
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "integration"))
from serving import Server  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICE = "taalas-hc1"
QUESTIONS = ["What is Reticle?", "What is prefill?", "Tell me about a card that is its model.", "Who are you?",
             "Why does a token cost 59 microseconds, and what does the server add to it?"]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class FreeTier:
    """The server, with a key of each tier."""

    def __init__(self, *arguments):
        self.folder = tempfile.TemporaryDirectory()
        store = os.path.join(self.folder.name, "tenants.db")
        self.server = Server("--free-tier", "--tenants-store", store, "--model-id", "house", "--device", DEVICE, "--cards", "3",
                             "--content", "replay", "--kv-size", "3MiB", "--admin", "127.0.0.1:0", "--watchdog-ms", "500",
                             "--log-level", "error", *arguments, fake=False)
        self.keys = {}
        for tier in ("free", "paid", "operator"):
            made = subprocess.run([os.environ["RETICLE"], "keys", "create", "name=Test", "email=t@example.org",
                                   f"tier={tier}", "--store", store, "--json"],
                                  capture_output=True, text=True, timeout=120, check=True)
            self.keys[tier] = json.loads(made.stdout)["key"]
        line = ""
        while not (match := re.match(r"Admin http://127\.0\.0\.1:(\d+)", line)):
            line = self.server._read_line()
        self.admin_port = int(match.group(1))

    def admin(self, card, verb, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        connection.request("POST", f"/admin/devices/{DEVICE}/{card}/{verb}", json.dumps(body or {}))
        connection.getresponse().read()
        connection.close()

    def chat(self, key, leave_after=None, timeout_ms=None, **fields):
        """One request; its status. `leave_after`: bytes after which the client goes away."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if timeout_ms:
            headers["x-request-timeout-ms"] = str(timeout_ms)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "house", **fields}), headers)
        reply = connection.getresponse()
        reply.read(leave_after)
        connection.close()
        return reply.status

    def stop(self):
        self.server.stop()
        self.folder.cleanup()


class Load:
    """Clients of every kind, and an operator with bad luck, until `stop`."""

    def __init__(self, tier, busy=1.0):
        self.tier, self.busy = tier, busy
        self.ended = threading.Event()
        self.wrong = []
        self.statuses = set()
        jobs = [("free", self.free), ("free", self.free), ("paid", self.paid), ("paid", self.paid),
                ("paid", self.bursts), ("operator", self.mishaps), ("free", self.faults)]
        self.threads = [threading.Thread(target=self.repeat, args=(job, tier.keys[name], index))
                        for index, (name, job) in enumerate(jobs)]
        for thread in self.threads:
            thread.start()

    def repeat(self, job, key, index):
        draw = random.Random(index)
        while not self.ended.is_set():
            try:
                status = job(key, draw)
                self.statuses.add(status)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))
                return

    def pause(self, seconds):
        self.ended.wait(seconds / self.busy)

    def ask(self, key, draw, tokens, **more):
        question = {"role": "user", "content": draw.choice(QUESTIONS) * draw.choice([1, 1, 1, 8])}
        return self.tier.chat(key, messages=[question], max_tokens=tokens, ignore_eos=True, **more)

    def free(self, key, draw):
        self.pause(0.15 * draw.random())
        return self.ask(key, draw, draw.randrange(20, 200), stream=True)

    def paid(self, key, draw):
        self.pause(0.1 * draw.random())
        return self.ask(key, draw, draw.randrange(100, 600), stream=True)

    def bursts(self, key, draw):
        self.pause(draw.choice([0, 0, 0, 0, 3]))
        return self.ask(key, draw, 150, n=draw.randrange(1, 4))

    def mishaps(self, key, draw):
        self.pause(0.2)
        mishap = draw.choice([0, 0, 0, 1, 2, 2, 2, 3, 3, 3])
        if mishap == 0:
            return self.ask(key, draw, 1500, stream=True, leave_after=800)
        if mishap == 1:
            return self.ask(key, draw, 1500, timeout_ms=20)
        if mishap == 2:
            return self.ask(key, draw, 10, temperature=-1)
        return self.ask("rtk_nobody", draw, 10)

    def faults(self, key, draw):
        self.pause(1.5)
        card = draw.randrange(3)
        if draw.random() < 0.15:
            for fenced in range(3):
                self.tier.admin(fenced, "unfence")
            return None
        fault = draw.choice(["crash", "hang", "corrected=3", "link=2", "thermal=0.6,for=4s"])
        self.tier.admin(card, "fault", {"fault": fault})
        return None

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


class Prometheus:
    """Debian's prometheus with the configuration and rules of deploy/, made quicker."""

    def __init__(self, target, interval="2s"):
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        shutil.copytree(ROOT / "deploy" / "prometheus" / "rules", folder / "rules")
        for rules in (folder / "rules").glob("*.yml"):
            rules.write_text(rules.read_text().replace("interval: 30s", f"interval: {interval}"))
        config = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
        assert '"reticle:8080"' in config
        config = config.replace('"reticle:8080"', f'"127.0.0.1:{target}"').replace("15s", interval)
        config = config.replace("scrape_timeout: 10s", f"scrape_timeout: {interval}")
        (folder / "prometheus.yml").write_text(config)
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
            stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.errors()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)

    def errors(self):
        # The process writes at the place that this descriptor has, too: it must not be moved.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode(errors="replace")

    def api(self, path, **parameters):
        """The `data` of a reply; RuntimeError says why there is none."""
        data = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", data, timeout=30) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression, at=None):
        return self.api("query", query=expression, **({} if at is None else {"time": at}))["result"]

    def range(self, expression, start, end, step):
        return self.api("query_range", query=expression, start=start, end=end, step=step)["result"]

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=30) as reply:
            return json.load(reply)["data"]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        errors = self.errors()
        self.log.close()
        self.folder.cleanup()
        return errors
