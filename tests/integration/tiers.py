"""Accounts for tests: a store, `reticle keys` on it, servers."""

import json
import os
import subprocess
import tempfile
import time

from serving import Server

RETICLE = os.environ["RETICLE"]
CHAT = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}


def keys(*words, **more):
    return subprocess.run([RETICLE, "keys", *words], capture_output=True, text=True, timeout=120,
                          **more)


class Tier:
    """A store in a folder of its own, `reticle keys` on it, and servers."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.store = os.path.join(self.folder.name, "tenants.db")

    def server(self, *arguments):
        return Server("--free-tier", "--tenants-store", self.store, *arguments)

    def run(self, *words):
        return keys(*words, "--store", self.store, "--json")

    def keys(self, *words):
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def create(self, tier="paid", **more):
        return self.keys("create", "name=Test", "email=t@example.org", f"tier={tier}",
                         *(f"{name}={value}" for name, value in more.items()))


def bearer(key):
    return [f"Authorization: Bearer {key}"]


def until(condition, limit=30.0):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit, "it never came true"
        time.sleep(0.02)
    return time.monotonic() - start
