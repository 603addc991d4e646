"""What operators of a free tier rely on: keys through a running server, crashes, proxies, quotas without
Redis, times to retry. Real processes on the fake device."""

import concurrent.futures
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from serving import Reader, build
from tiers import CHAT, RETICLE, Tier, bearer, keys, until


class Stalls(threading.Thread):
    """How long this machine kept a thread waiting that sleeps, writes a line and brings it to the disk,
    beyond its sleep: what a server on it cannot do anything about."""

    SLEEP = 0.1

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.longest, self.over = folder, 0.0, threading.Event()

    def run(self):
        begin = time.monotonic()
        with tempfile.TemporaryFile(dir=self.folder) as file:
            while not self.over.wait(self.SLEEP):
                file.write(b"line\n")
                file.flush()
                os.fsync(file.fileno())
                now = time.monotonic()
                self.longest = max(self.longest, now - begin - self.SLEEP)
                begin = now

    def stop(self):
        self.over.set()
        self.join()
        return self.longest


def admin_of(server):
    """Where the admin listener of a server that was started with --admin is."""
    while True:
        line = server._read_line()  # pylint: disable=protected-access
        if line.startswith("Admin"):
            return line.split("//")[1].strip()


class KeysThroughTheServer(unittest.TestCase):
    def setUp(self):
        self.tier = Tier()
        self.made = self.tier.create(label="first")
        self.token = os.path.join(self.tier.folder.name, "token")
        with open(self.token, "w", encoding="utf-8") as file:
            file.write("a-token-of-the-operator\n")
        self.server = self.tier.server("--admin", "0", "--admin-token-file", self.token)
        self.admin = admin_of(self.server)

    def tearDown(self):
        log = self.server.stop()
        self.assertNotIn("rtk_", log)
        self.assertNotIn("a-token", log)

    def ask(self, *words):
        done = keys(*words, "--admin", self.admin, "--token-file", self.token, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def works(self, key):
        return self.server.request("POST", "/v1/chat/completions", CHAT, bearer(key))[0] == 200

    def test_every_command_says_the_same_as_on_the_store(self):
        self.server.post("/v1/apply", {"email": "a@example.org", "name": "A", "use_case": "x\n\"y\"",
                                       "terms": True})
        organisation = f"organisation={self.made['organisation']}"
        self.ask("limits", organisation, "requests_per_day=70", "models=tiny,other")
        self.assertTrue(self.works(self.made["key"]))
        until(lambda: self.ask("usage")["data"])
        for words in (["list"], ["list", organisation], ["applications"], ["organisations"],
                      ["usage", "days=2"], ["limits", organisation]):
            self.assertEqual(self.ask(*words), self.tier.keys(*words), words)
            for way in (["--admin", self.admin, "--token-file", self.token],
                        ["--admin", "http://" + self.admin, "--token", "a-token-of-the-operator"]):
                by_server = keys(*words, *way)
                self.assertEqual(by_server.stdout, keys(*words, "--store", self.tier.store).stdout)
                self.assertIn("id" if words[0] != "usage" else "day", by_server.stdout)

    def test_what_is_done_is_in_force_when_the_command_ends(self):
        made = self.ask("create", "name=B", "email=b@example.org", "tier=paid", "label=über")
        self.assertTrue(self.works(made["key"]))
        new = self.ask("rotate", f"key={made['id']}")
        self.assertEqual((self.works(made["key"]), self.works(new["key"])), (False, True))
        self.ask("revoke", f"key={new['prefix']}")
        self.assertFalse(self.works(new["key"]))
        _, _, answer = self.server.post("/v1/apply", {"email": "c@example.org", "name": "C",
                                                      "use_case": "c", "terms": True})
        waiting = self.ask("applications")["data"]
        self.ask("approve", f"id={waiting[0]['id']}", "tier=paid")
        _, _, fetched = self.server.post("/v1/apply/claim", {"claim": answer["claim"]})
        self.assertTrue(self.works(fetched["key"]))

    def test_the_store_itself_beside_the_server_within_a_second(self):
        self.assertTrue(self.works(self.made["key"]))
        took = []
        for _ in range(5):
            made = self.tier.create()
            took.append(until(lambda key=made["key"]: self.works(key)))
            self.tier.keys("revoke", f"key={made['id']}")
            took.append(until(lambda key=made["key"]: not self.works(key)))
        print(f"a key made or revoked on the store was known after {max(took):.2f} s at most")

    def test_mistakes(self):
        wrong = keys("list", "--admin", self.admin, "--token", "wrong")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("token", wrong.stderr)
        self.assertEqual(keys("list", "--admin", self.admin).returncode, 1)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{sock.getsockname()[1]}"
        self.assertIn("no answer", keys("list", "--admin", nobody).stderr)
        for words, why in ((["fly"], "fly"), (["../devices"], "devices"), (["create"], "name"),
                           (["revoke", "key=nobody"], "nobody"),
                           (["list", "--store", self.tier.store], "--store")):
            done = keys(*words, "--admin", self.admin, "--token-file", self.token)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(why, done.stderr)
        # By the variable, and none of a server without accounts.
        done = keys("list", "--admin", self.admin,
                    env={**os.environ, "RETICLE_ADMIN_TOKEN": "a-token-of-the-operator"})
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_servers_configuration_says_where(self):
        config = os.path.join(self.tier.folder.name, "reticle.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[tenants]\nstore = "{self.tier.store}"\nlimits = ["paid.concurrent=7"]\n'
                       f'[admin]\nlisten = "{self.admin}"\ntoken_file = "{self.token}"\n')
        done = keys("create", "name=D", "email=d@example.org", "--config", config, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(self.works(json.loads(done.stdout)["key"]))
        # The store named beside it, without the server; limits are those of the file.
        done = keys("organisations", "--config", config, "--store", self.tier.store, "--json")
        limits = [row["limits"] for row in json.loads(done.stdout)["data"] if row["tier"] == "paid"]
        self.assertTrue(all("concurrent=7" in text for text in limits), limits)


class Metrics(unittest.TestCase):
    def test_only_the_operator_may_see_them(self):
        server = Tier().server("--no-public-metrics", "--admin", "0")
        host, port = admin_of(server).split(":")
        self.assertEqual(server.request("GET", "/metrics")[0], 404)
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(build("GET", "/metrics"))
            status, headers, text = Reader(sock).response()
        self.assertEqual((status, headers["content-type"].split(";")[0]), (200, "text/plain"))
        self.assertIn(b"reticle_keys_refused_total", text)
        server.stop()


class Proxies(unittest.TestCase):
    FORM = {"email": "a@example.org", "name": "A", "use_case": "research", "terms": True}

    def apply(self, server, *headers):
        return server.request("POST", "/v1/apply", self.FORM, headers)[0]

    def test_addresses_behind_a_trusted_proxy_count_apart(self):
        server = Tier().server("--applications-per-hour", "1", "--trusted-proxy", "127.0.0.0/8")
        got = [self.apply(server, "X-Forwarded-For: 192.0.2.1"),
               self.apply(server, "X-Forwarded-For: 192.0.2.1"),
               self.apply(server, "X-Forwarded-For: 192.0.2.2"),
               # What a client writes in front of what the proxy appends is not believed.
               self.apply(server, "X-Forwarded-For: 192.0.2.77, 192.0.2.2"),
               self.apply(server, "X-Forwarded-For: 192.0.2.78", "X-Forwarded-For: 192.0.2.2"),
               # Only the header that was named.
               self.apply(server, "X-Forwarded-For: 192.0.2.2", "Forwarded: for=192.0.2.3"),
               self.apply(server), self.apply(server)]
        self.assertEqual(got, [202, 429, 202, 429, 429, 429, 202, 429])
        server.stop()

    def test_forwarded_when_it_is_named(self):
        server = Tier().server("--applications-per-hour", "1", "--trusted-proxy", "127.0.0.1",
                               "--forwarded-header", "forwarded")
        got = [self.apply(server, "Forwarded: for=192.0.2.1"),
               self.apply(server, "Forwarded: for=192.0.2.1;proto=https"),
               self.apply(server, 'Forwarded: for="[2001:db8::1]:80"'),
               self.apply(server, 'Forwarded: for="[2001:db8::2]"')]
        self.assertEqual(got, [202, 429, 202, 429])
        server.stop()

    def test_nobody_is_believed_unless_configured(self):
        for options in ([], ["--trusted-proxy", "10.0.0.0/8"]):
            server = Tier().server("--applications-per-hour", "1", *options)
            got = [self.apply(server, f"X-Forwarded-For: 192.0.2.{i}",
                              f"Forwarded: for=192.0.2.{i}") for i in range(2)]
            self.assertEqual(got, [202, 429])
            server.stop()


class SharedQuotas(unittest.TestCase):
    def test_redis_goes_and_comes_back(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        folder = tempfile.TemporaryDirectory()

        def redis():
            process = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1",
                                        "--save", "", "--appendonly", "no", "--dir", folder.name],
                                       stdout=subprocess.DEVNULL)
            self.addCleanup(process.kill)
            return process
        running = redis()
        tier = Tier()
        made = tier.create("free")
        tier.keys("limits", f"organisation={made['organisation']}", "requests_per_day=5")
        servers = [tier.server("--redis", f"redis://127.0.0.1:{port}") for _ in range(2)]

        def degraded(server):
            _, _, body = server.request("GET", "/health/ready")
            told = json.loads(body)["degraded"]
            gauge = server.gauge("reticle_quota_degraded")
            return (told, gauge) if gauge == len(told) else None

        def granted(server):
            return server.request("POST", "/v1/chat/completions", CHAT, bearer(made["key"]))[0] == 200
        until(lambda: all(degraded(server) == ([], 0) for server in servers))
        # Five in all.
        self.assertEqual([granted(servers[i % 2]) for i in range(7)], [True] * 5 + [False] * 2)
        running.kill()
        running.wait()
        # Seen without a request; then each replica has its own five.
        until(lambda: all(degraded(server) == (["shared_quotas"], 1) for server in servers))
        for server in servers:
            self.assertEqual([granted(server) for _ in range(6)], [True] * 5 + [False])
        running = redis()
        until(lambda: all(degraded(server) == ([], 0) for server in servers))
        self.assertEqual([granted(servers[i % 2]) for i in range(6)], [True] * 5 + [False])
        logs = [server.stop() for server in servers]
        self.assertTrue(all("Redis does not answer" in log and "Redis answers again" in log
                            for log in logs), logs)
        running.kill()
        running.wait()


class RetryAfter(unittest.TestCase):
    """Waiting as long as told succeeds, whatever still runs."""

    def long_stream(self, server, key, tokens=3000):
        sock = server.connect()
        body = {**CHAT, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        sock.sendall(build("POST", "/v1/chat/completions", body, bearer(key)))
        sock.recv(1)
        return sock

    def check(self, server, key, path="/v1/chat/completions", body=CHAT, alone=True):
        status, headers, _ = server.request("POST", path, body, bearer(key))
        # One of several may come when another's time has come, and be taken at once.
        if status == 200 and not alone:
            return
        self.assertEqual(status, 429)
        wait = int(headers["retry-after-ms"]) / 1000
        self.assertGreaterEqual(int(headers["retry-after"]), wait)
        time.sleep(wait)
        status, _, answer = server.request("POST", path, body, bearer(key))
        self.assertEqual(status, 200, answer)

    def test_of_a_full_account(self):
        tier = Tier()
        made = tier.create("paid")
        tier.keys("limits", f"organisation={made['organisation']}", "concurrent=2")
        # 1,000 tokens a second; the context holds less than is asked for.
        server = tier.server("--device-option", "step_ns=1000000", "--context", "2048")
        socks = [self.long_stream(server, made["key"]) for _ in range(2)]
        time.sleep(0.3)
        self.check(server, made["key"])
        for sock in socks:
            sock.close()
        server.stop()

    def test_of_a_full_queue(self):
        # Of one request; of one with several prompts; of several at once, each with its own time.
        for checks in ([()], [("/v1/completions", {"prompt": ["1", "2"], "max_tokens": 2})], [()] * 4):
            with self.subTest(checks=checks):
                self.check_a_full_queue(checks)

    def check_a_full_queue(self, checks):
        tier = Tier()
        one, two = tier.create("paid"), tier.create("paid")
        server = tier.server("--device-option", "step_ns=1000000", "--context", "2048",
                             "--max-sequences", "1", "--max-waiting", "2")
        socks = [self.long_stream(server, one["key"], 600)]
        for _ in range(2):
            sock = server.connect()
            body = {**CHAT, "max_tokens": 600, "ignore_eos": True, "stream": True}
            sock.sendall(build("POST", "/v1/chat/completions", body, bearer(one["key"])))
            socks.append(sock)
        until(lambda: server.gauge("vllm:num_requests_waiting") == 2)
        with concurrent.futures.ThreadPoolExecutor(len(checks)) as pool:
            alone = len(checks) == 1
            for each in [pool.submit(self.check, server, two["key"], *what, alone=alone) for what in checks]:
                each.result()
        for sock in socks:
            sock.close()
        server.stop()


class Crashes(unittest.TestCase):
    """kill -9 at random moments, while keys are made in each way and tokens stream."""

    KILLS = 8

    def crash(self, seed):
        chance = random.Random(seed)
        tier = Tier()
        key = tier.create()
        server = tier.server("--device-option", "step_ns=2000000", "--context", "4096", "--admin",
                             "0", "--auto-approve", "100000", "--applications-per-hour", "0")
        admin = admin_of(server)
        body = {**CHAT, "max_tokens": 3000, "stream": True, "ignore_eos": True}
        form = {"email": "a@example.org", "name": "A", "use_case": "x", "terms": True}
        shown, seen = [key["key"]], []

        def make():
            """Keys, until the server is gone."""
            way = 0
            while True:
                way += 1
                time.sleep(0.02)
                try:
                    if way % 2:
                        host, port = admin.split(":")
                        with socket.create_connection((host, int(port)), 10) as sock:
                            sock.sendall(build("POST", "/admin/keys/create", {
                                "name": "K", "email": "k@example.org"}, ["Connection: close"]))
                            shown.append(json.loads(Reader(sock).response()[2])["key"])
                    else:
                        claim = server.post("/v1/apply", form)[2]["claim"]
                        shown.append(server.post("/v1/apply/claim", {"claim": claim})[2]["key"])
                except (OSError, AssertionError, ValueError, IndexError):
                    return
        stalls = Stalls(tier.folder.name)
        stalls.start()
        with concurrent.futures.ThreadPoolExecutor(1) as pool, server.connect() as sock:
            maker = pool.submit(make)
            sock.sendall(build("POST", "/v1/chat/completions", body, bearer(key["key"])))
            end = None
            while end is None or time.monotonic() < end:
                data = sock.recv(65536)
                now = time.monotonic()
                seen += [now] * (data.count(b'"delta":{"content":') -
                                 data.count(b'"content":""'))
                if end is None and len(seen) > 20 and seen[20] < now - 1.0:
                    end = now + chance.uniform(0, 1.2)
            killed = time.monotonic()
            os.kill(server.process.pid, signal.SIGKILL)
            maker.result()
        stalled = stalls.stop()
        server.stop(expect=-signal.SIGKILL)
        with sqlite3.connect(tier.store) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        rows = tier.keys("usage", f"organisation={key['organisation']}")["data"]
        counted = sum(row["completion_tokens"] for row in rows)
        old = sum(1 for at in seen if at < killed - 1.0 - stalled)
        self.assertGreaterEqual(counted, old, f"seed {seed}, the machine stalled for {stalled} s")
        again = tier.server()
        for known in shown:
            status = again.request("GET", "/v1/models", None, bearer(known))[0]
            self.assertEqual(status, 200, f"seed {seed}: {known[:12]} is lost")
        again.stop()
        return len(shown), len(seen) - counted, old

    def test_no_key_is_lost_and_no_usage_older_than_a_second(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(self.crash, range(self.KILLS)))
        made = sum(keys_made for keys_made, _, _ in results)
        self.assertGreater(made, 2 * self.KILLS)
        self.assertTrue(any(old >= 20 for _, _, old in results), "the machine stalled throughout")
        print(f"{self.KILLS} kills: {made} keys shown and known again; at most "
              f"{max(lost for _, lost, _ in results)} tokens of the last second not counted")

    def test_a_store_killed_in_the_middle_of_its_writes_opens_again(self):
        tier = Tier()
        tier.create()
        chance = random.Random(5)
        for _ in range(12):
            process = subprocess.Popen([RETICLE, "keys", "create", "name=K", "email=k@example.org",
                                        "--store", tier.store, "--json"],
                                       stdout=subprocess.PIPE, text=True)
            time.sleep(chance.uniform(0.001, 0.04))
            process.kill()
            said = process.communicate()[0]
            listed = {row["id"] for row in tier.keys("list")["data"]}
            if said:
                self.assertIn(json.loads(said)["id"], listed)


if __name__ == "__main__":
    unittest.main()
