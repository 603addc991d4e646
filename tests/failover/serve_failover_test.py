"""A served fleet of fake cards: faults by the admin API while clients stream, adapters, fencing, metrics."""

import json
import os
import random
import re
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "integration"))
from serving import Reader, Server, build, events  # noqa: E402


class Fleet(Server):
    def __init__(self, *arguments):
        super().__init__("--admin", "127.0.0.1:0", *arguments)
        self.admin_port = None
        while self.admin_port is None:
            match = re.match(r"Admin http://127\.0\.0\.1:(\d+)", self._read_line())
            if match:
                self.admin_port = int(match.group(1))

    def admin(self, method, path, body=None, headers=()):
        with socket.create_connection(("127.0.0.1", self.admin_port), 60) as sock:
            sock.sendall(build(method, path, body, list(headers) + ["Connection: close"]))
            status, _, data = Reader(sock).response()
        return status, json.loads(data)

    def complete(self, seed, **fields):
        body = {"model": "tiny", "prompt": [1, 2, 3, seed % 50], "max_tokens": 120, "seed": seed,
                "ignore_eos": True, **fields}
        status, _, data = self.request("POST", "/v1/completions", body)
        return status, data

    def text(self, seed, **fields):
        status, data = self.complete(seed, **fields)
        assert status == 200, data
        reply = json.loads(data)
        return reply["choices"][0]["text"], reply["usage"]


class ServedFleetTest(unittest.TestCase):
    def test_streams_survive_faults_of_random_cards(self):
        server = Fleet("--cards", "3", "--device-option", "step_ns=300000", "--device-option", "credits=4",
                       "--watchdog-ms", "200", "--fence-after", "0")
        try:
            seeds = range(12)
            expected = {seed: server.text(seed)[0] for seed in seeds}
            wrong, recoveries, stop = [], [], threading.Event()

            def client(seed):
                while not stop.is_set():
                    body = {"model": "tiny", "prompt": [1, 2, 3, seed % 50], "max_tokens": 120, "seed": seed,
                            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
                    status, _, data = server.request("POST", "/v1/completions", body)
                    if status == 503:  # all cards were lost at that moment
                        time.sleep(0.01)
                        continue
                    if status != 200:
                        wrong.append((seed, status, data))
                        return
                    parts = [json.loads(part) for part in events(data)[:-1]]
                    text = "".join(part["choices"][0]["text"] for part in parts if part["choices"])
                    if text != expected[seed]:
                        wrong.append((seed, text))
                    recoveries.append(parts[-1]["usage"]["reticle"]["recoveries"])

            clients = [threading.Thread(target=client, args=(seed,)) for seed in seeds]
            for thread in clients:
                thread.start()
            draw = random.Random(5)
            for _ in range(25):
                fault = "hang" if draw.random() < 0.2 else "crash"
                status, reply = server.admin("POST", f"/admin/devices/fake/{draw.randrange(3)}/fault",
                                             {"fault": fault})
                self.assertEqual(status, 200, reply)
                time.sleep(draw.random() * 0.08)
            stop.set()
            for thread in clients:
                thread.join()
            self.assertEqual(wrong, [])
            self.assertGreater(sum(recoveries), 0)
            self.assertGreater(server.gauge("reticle_device_losses_total"), 10)
            self.assertGreater(server.gauge("reticle_device_failovers_total"), 0)
            self.assertGreater(server.gauge("reticle_device_resets_total"), 10)
        finally:
            server.stop()

    def test_fence_reset_and_readiness(self):
        server = Fleet("--cards", "2")
        try:
            status, reply = server.admin("GET", "/admin/devices")
            self.assertEqual(status, 200)
            self.assertEqual([card["card"] for card in reply["devices"]], [0, 1])
            self.assertEqual({card["state"] for card in reply["devices"]}, {"ready"})
            for card in (0, 1):
                status, _ = server.admin("POST", f"/admin/devices/fake/{card}/fence", {"reason": "dust"})
                self.assertEqual(status, 202)
            deadline = time.monotonic() + 20
            while server.request("GET", "/health/ready")[0] == 200:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            status, data = server.complete(1)
            self.assertEqual(status, 503, data)
            self.assertEqual(server.gauge("reticle_device_state"), 2)
            status, reply = server.admin("POST", "/admin/devices/fake/1/unfence")
            self.assertEqual((status, reply["state"]), (200, "ready"))
            self.assertEqual(server.request("GET", "/health/ready")[0], 200)
            self.assertEqual(server.complete(1)[0], 200)
            status, reply = server.admin("POST", "/admin/devices/fake/0/reset")
            self.assertEqual((status, reply["state"]), (200, "ready"))
            for path in ("/admin/devices/fake/2", "/admin/devices/x/0", "/admin/devices/fake/1x"):
                self.assertEqual(server.admin("GET", path)[0], 404, path)
            status, reply = server.admin("POST", "/admin/devices/fake/0/fault", {"fault": "rust"})
            self.assertEqual(status, 400)
            self.assertIn("rust", reply["error"]["message"])
            status, _ = server.admin("POST", "/admin/devices/fake/0/fault", {"fault": "hang"},
                                     ["Origin: http://page.example"])
            self.assertEqual(status, 403)
        finally:
            server.stop()

    def test_adapters_are_models(self):
        server = Fleet("--cards", "2", "--adapter", "first=/dev/null", "--device-option", "step_ns=100000")
        try:
            bare = server.text(3)[0]
            first = server.text(3, model="first")[0]
            self.assertNotEqual(bare, first)
            status, reply = server.admin("POST", "/admin/adapters",
                                         {"name": "second", "path": "/dev/null", "scale": 0.5})
            self.assertEqual(status, 200, reply)
            self.assertNotEqual(server.text(3, model="second")[0], first)
            self.assertEqual(server.admin("POST", "/admin/adapters",
                                          {"name": "second", "path": "/dev/null"})[0], 409)
            _, _, data = server.request("GET", "/v1/models")
            models = {model["id"]: model for model in json.loads(data)["data"]}
            self.assertEqual(models["second"]["parent"], "tiny")
            self.assertEqual(models["tiny"]["parent"], None)
            self.assertEqual(server.text(3, model="first@fake")[0], first)
            status, reply = server.admin("GET", "/admin/adapters")
            self.assertEqual([adapter["name"] for adapter in reply["adapters"]], ["first", "second"])
            self.assertEqual(server.admin("DELETE", "/admin/adapters/second")[0], 200)
            self.assertEqual(server.complete(3, model="second")[0], 404)
            self.assertEqual(server.admin("DELETE", "/admin/adapters/second")[0], 404)
            # One that is in use stays.
            with server.connect() as sock:
                sock.sendall(build("POST", "/v1/completions", {
                    "model": "first", "prompt": [1], "max_tokens": 200, "stream": True, "ignore_eos": True}))
                sock.recv(1)
                status, reply = server.admin("DELETE", "/admin/adapters/first")
                self.assertEqual(status, 400, reply)
                self.assertEqual(server.text(3, model="first")[0], first)
        finally:
            server.stop()

    def test_a_model_on_two_devices(self):
        server = Fleet("--device", "taalas-hc1", "--content", "replay", "--device-option",
                       "taalas-hc1:sampling=strict")
        try:
            _, _, data = server.request("GET", "/v1/models")
            models = {model["id"]: model for model in json.loads(data)["data"]}
            self.assertEqual(models["tiny"]["device"], "fake")
            self.assertEqual(models["tiny@taalas-hc1"]["device"], "taalas-hc1")
            self.assertEqual(models["tiny@taalas-hc1"]["max_model_len"], 6144)
            # The first device's full name works, and lists leave it out.
            self.assertNotIn("tiny@fake", models)
            self.assertEqual(server.text(1, model="tiny@fake")[0], server.text(1)[0])
            text, usage = server.text(1, model="tiny@taalas-hc1")
            self.assertIn("played, not computed", text)
            cost = usage["reticle"]
            # 120 tokens of 59 us each, and the prompt; 200 W at most.
            self.assertGreater(cost["device_ms"], 7)
            self.assertGreater(cost["energy_mj"], 100)
            self.assertLess(cost["energy_mj"], cost["device_ms"] * 201)
            self.assertAlmostEqual(cost["usd_per_million_tokens"], 0.0075)
            self.assertNotIn("usd_per_million_tokens", server.text(1)[1]["reticle"])
            self.assertGreater(server.gauge("reticle_device_energy_joules_total"), 0)
            self.assertGreater(server.gauge("reticle_device_power_watts"), 0)
            status, data = server.complete(1, model="tiny@taalas-hc1", prompt=[7] * 7000)
            error = json.loads(data)["error"]
            self.assertEqual((status, error["code"]), (400, "context_length_exceeded"))
            self.assertIn("6144", error["message"])
            self.assertIn("7000", error["message"])
            status, data = server.complete(1, model="tiny@taalas-hc1", top_k=50)
            error = json.loads(data)["error"]
            self.assertEqual((status, error["param"]), (400, "top_k"))
            self.assertIn("50", error["message"])
            self.assertIn("8 likeliest", error["message"])
            status, reply = server.admin("GET", "/admin/devices/taalas-hc1/0")
            self.assertEqual((status, reply["model"]), (200, "tiny@taalas-hc1"))
            status, reply = server.admin("POST", "/admin/devices/taalas-hc1/0/fault",
                                         {"fault": "thermal=0.5,for=100ms"})
            self.assertEqual(status, 200, reply)
        finally:
            server.stop()

    def test_drain_ends_the_process_and_running_requests_finish(self):
        server = Fleet("--device-option", "step_ns=2000000", "--device-option", "credits=1")
        with server.connect() as sock:
            sock.sendall(build("POST", "/v1/completions", {
                "model": "tiny", "prompt": [1], "max_tokens": 100, "stream": True, "ignore_eos": True}))
            # An order to drain that overtakes it would refuse it.
            self.assertTrue(sock.recv(1, socket.MSG_PEEK))
            reader = Reader(sock)
            self.assertEqual(server.admin("POST", "/admin/drain")[0], 202)
            server.terminated = True
            status, _, data = reader.response()
            self.assertEqual(status, 200)
            self.assertEqual(events(data)[-1], "[DONE]")
        server.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
