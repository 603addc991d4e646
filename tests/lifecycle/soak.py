"""Soak: a server under load for a long time, with clients that leave, cards that fail and reloads.

Afterwards every request is accounted for, exactly: what was admitted has finished, was cancelled or failed with a
reason, and metrics, log lines and the usage store agree on it, token by token. Over the run resident memory is flat
and no descriptor is left open.

    ./dev bench soak                        30 minutes
    ./dev bench soak -- --seconds 600       as long as you like
    ./dev bench soak -- --help
"""

import argparse
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import tiny_gguf  # noqa: E402

CARDS = 3
PLACES = 8  # sequences that a card runs at once
TOKENS = 40  # of a request, on average
MB = 1 << 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--step-ms", type=float, default=10, help="of the fake device: a token for each stream")
    parser.add_argument("--load", type=float, default=0.7, help="of the cards' capacity")
    parser.add_argument("--warmup", type=float, default=0.2, help="share of the run before memory is judged")
    parser.add_argument("--fault-every", type=float, default=2.0, help="seconds")
    parser.add_argument("--reload-every", type=float, default=5.0, help="seconds")
    parser.add_argument("--slope", type=float, default=1.0,
                        help="MB a minute that memory may grow by; 0: not judged, for short runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


class Server:
    def __init__(self, folder, step_ms):
        self.store = os.path.join(folder, "tenants.db")
        self.config = os.path.join(folder, "reticle.toml")
        self.log_path = os.path.join(folder, "log")
        model = os.path.join(folder, "tiny.gguf")
        tiny_gguf.write(model)
        self.write_config(0)
        self.keys = [self.run_keys("create", "name=Soak", "email=s@example.org", f"tier={tier}")["key"]
                     for tier in ("operator", "operator", "paid")]
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            [os.environ["RETICLE"], "serve", "--config", self.config, "--http", "0", "--grpc", "none", "--admin", "0",
             "--model", model, "--model-id", "tiny", "--device", "fake", "--cards", str(CARDS),
             "--max-sequences", str(PLACES), "--device-option", f"step_ns={round(step_ms * 1e6)}", "--device-option", "credits=4",
             "--watchdog-ms", "300", "--fence-after", "0", "--max-waiting", "16", "--log-format", "json",
             "--free-tier", "--tenants-store", self.store],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.port = self.admin_port = None
        while self.admin_port is None or self.port is None:
            line = self.process.stdout.readline()
            assert line, "the server ended"
            if line.startswith("HTTP"):
                self.port = int(line.rsplit(":", 1)[1])
            if line.startswith("Admin"):
                self.admin_port = int(line.rsplit(":", 1)[1])
        while self.request("GET", "/health/ready")[0] != 200:
            time.sleep(0.02)

    def run_keys(self, *words):
        done = subprocess.run([os.environ["RETICLE"], "keys", *words, "--store", self.store, "--json"],
                              capture_output=True, check=True)
        return json.loads(done.stdout)

    def write_config(self, number):
        """A limit that changes, and is never in the way."""
        with open(self.config + ".new", "w", encoding="utf-8") as file:
            file.write(f'log-level = "info"\n[tenants]\nlimits = ["paid.requests_per_minute={1_000_000 + number}", '
                       '"paid.concurrent=0", "paid.tokens_per_minute=0"]\n')
        os.replace(self.config + ".new", self.config)

    def request(self, method, path, body=None, headers=(), port=None):
        data = json.dumps(body).encode() if body is not None else b""
        with socket.create_connection(("127.0.0.1", port or self.port), 60) as sock:
            sock.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Host: t", "Connection: close", *headers,
                                      f"Content-Length: {len(data)}"]).encode() + b"\r\n\r\n" + data)
            reply = b""
            while part := sock.recv(65536):
                reply += part
        head, _, rest = reply.partition(b"\r\n\r\n")
        if b"chunked" in head:
            whole = b""
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                whole, rest = whole + rest[:int(size, 16)], rest[int(size, 16) + 2:]
            rest = whole
        return int(head.split()[1]), rest

    def metrics(self):
        values = {}
        for line in self.request("GET", "/metrics")[1].decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = values.get(name, 0) + float(value)
        return values

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def total(metrics, name, **labels):
    """The sum of a family's series that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return round(sum(value for series, value in metrics.items()
                     if series.split("{")[0] == name and all(part in series for part in wanted)))


class Load:
    """Arrivals at random times; some clients leave in the middle, some before anything comes."""

    def __init__(self, server, rate, seed):
        self.server, self.rate = server, rate
        self.draw = random.Random(seed)
        self.lock = threading.Lock()
        self.sent = 0
        self.seen = {}  # what clients saw, by kind
        self.stop = threading.Event()
        self.work = queue.SimpleQueue()
        self.workers = [threading.Thread(target=self._work, daemon=True) for _ in range(64)]
        for worker in self.workers:
            worker.start()
        self.clock = threading.Thread(target=self._arrive, daemon=True)
        self.clock.start()

    def _arrive(self):
        next_time, number = time.monotonic(), 0
        while not self.stop.is_set():
            next_time += self.draw.expovariate(self.rate)
            time.sleep(max(0, next_time - time.monotonic()))
            self.work.put((self.draw.random(), self.draw.randrange(10, 2 * TOKENS - 10),
                           self.draw.randrange(len(self.server.keys)), number))
            number += 1

    def _work(self):
        while True:
            job = self.work.get()
            if job is None:
                return
            with self.lock:
                self.sent += 1
            try:
                kind = self._request(*job)
            except OSError as error:
                kind = repr(error)
            with self.lock:
                self.seen[kind] = self.seen.get(kind, 0) + 1

    def _request(self, chance, tokens, key, number):
        stream = chance > 0.1
        body = json.dumps({"prompt": f"soak {number % 50} " + "x" * (number % 97), "max_tokens": tokens,
                           "ignore_eos": number % 7 != 0, "stream": stream, "seed": number}).encode()
        head = (f"POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer "
                f"{self.server.keys[key]}\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        with socket.create_connection(("127.0.0.1", self.server.port), 60) as sock:
            sock.settimeout(60)
            sock.sendall(head + body)
            if chance < 0.05:
                return "left at once"
            got = 0
            tail = b""
            leave = int(chance * 3000) if 0.2 < chance < 0.35 else None
            while True:
                part = sock.recv(2048)
                if not part:
                    break
                got += len(part)
                tail = (tail + part)[-4096:]
                if leave is not None and got > leave:
                    return "left in the middle"
            if not stream:
                return "whole" if b'"usage"' in tail else "refused or failed"
            return "stream" if b"[DONE]" in tail else "refused or failed"

    def end(self):
        self.stop.set()
        self.clock.join()
        # Arrivals that found no worker, on a machine that is too busy, are not sent any more.
        while not self.work.empty():
            self.work.get()
        for _ in self.workers:
            self.work.put(None)
        for worker in self.workers:
            worker.join()


class Trouble:
    """Card faults by the admin listener, and SIGHUP."""

    def __init__(self, server, fault_every, reload_every, seed):
        self.server, self.faults, self.reloads = server, 0, 0
        self.draw = random.Random(seed)
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(fault_every, self._fault)),
                        threading.Thread(target=self._run, args=(reload_every, self._reload))]
        for thread in self.threads:
            thread.start()

    def _run(self, every, act):
        while not self.stop.wait(every * (0.5 + self.draw.random())):
            act()

    def _fault(self):
        fault = "hang" if self.draw.random() < 0.2 else "crash"
        card = self.draw.randrange(CARDS)
        status, reply = self.server.request("POST", f"/admin/devices/fake/{card}/fault", {"fault": fault},
                                            port=self.server.admin_port)
        assert status == 200, reply
        self.faults += 1

    def _reload(self):
        self.reloads += 1
        self.server.write_config(self.reloads)
        self.server.process.send_signal(signal.SIGHUP)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def slope_per_minute(samples):
    """Least squares, of (seconds, bytes)."""
    count = len(samples)
    if count < 2:
        return 0.0
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread * 60 if spread else 0.0


def settle(server):
    """Waits until nothing runs and the store has what was used."""
    for _ in range(1200):
        ready = json.loads(server.request("GET", "/health/ready")[1])
        if ready["active_requests"] == 0:
            break
        time.sleep(0.05)
    else:
        raise AssertionError(f"requests never end: {ready}")
    return server.metrics()


def log_of(path):
    """Lines of requests for a generation, summed."""
    sums = {"refused": 0, "abandoned": 0, "ended": {}, "prompt": 0, "cached": 0, "output": 0}
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if line["msg"] != "request" or "finish" not in line:
                continue
            if "output_tokens" not in line:
                sums[line["finish"]] += 1
                continue
            sums["ended"][line["finish"]] = sums["ended"].get(line["finish"], 0) + 1
            if line["finish"] == "error":
                assert line.get("error"), f"it failed without a reason: {line}"
            sums["prompt"] += line["prompt_tokens"]
            sums["cached"] += line["cached_tokens"]
            sums["output"] += line["output_tokens"]
    return sums


def usage_of(server):
    rows = server.run_keys("usage")["data"]
    return {name: sum(row[name] for row in rows)
            for name in ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")}


def check(metrics, log, usage, lost_lines):
    """Every request, from three sides."""
    admitted = total(metrics, "reticle_requests_admitted_total")
    ended = {reason: total(metrics, "vllm:request_success_total", finished_reason=reason)
             for reason in ("stop", "length", "abort", "deadline", "error")}
    problems = []

    def same(what, *values):
        if len(set(values)) != 1:
            problems.append(f"{what}: {values}")
    same("admitted = ended (metrics)", admitted, sum(ended.values()))
    same("requests: metrics, log, usage store", admitted, sum(log["ended"].values()), usage["requests"])
    for reason, count in ended.items():
        same(f"ended by {reason}: metrics, log", count, log["ended"].get(reason, 0))
    same("output tokens: metrics, log, usage store", total(metrics, "vllm:request_generation_tokens_sum"),
         log["output"], usage["completion_tokens"])
    same("prompt tokens: metrics, log", total(metrics, "vllm:request_prompt_tokens_sum"), log["prompt"])
    same("prompt tokens that were computed: log, usage store", log["prompt"] - log["cached"], usage["prompt_tokens"])
    same("cached tokens: log, usage store", log["cached"], usage["cached_tokens"])
    same("log lines lost", lost_lines, 0)
    return admitted, ended, problems


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder, options.step_ms)
        # A card feeds each of its places once in a step.
        capacity = CARDS * PLACES * 1000 / options.step_ms / TOKENS
        before = server.descriptors()
        load = Load(server, capacity * options.load, options.seed)
        trouble = Trouble(server, options.fault_every, options.reload_every, options.seed + 1)
        start = time.monotonic()
        samples, said = [], 0

        def goes_on():
            # On a machine that is too busy a short run is longer, until it has something to say.
            if now < options.seconds:
                return True
            little = load.sent < 100 or trouble.faults < 3 or trouble.reloads < 1
            return little and now < options.seconds + 60
        now = 0.0
        while goes_on():
            now = time.monotonic() - start
            samples.append((now, server.resident()))
            if now - said > 60:
                said = now
                print(f"{now:6.0f} s: {load.sent} requests, {trouble.faults} faults, {trouble.reloads} reloads, "
                      f"{samples[-1][1] / MB:.1f} MB, {server.descriptors()} descriptors", flush=True)
            time.sleep(min(1.0, options.seconds / 20))
        trouble.end()
        load.end()
        metrics = settle(server)
        # Connections of clients that have gone are closed within their lingering time.
        for _ in range(200):
            after = server.descriptors()
            if after <= before:
                break
            time.sleep(0.05)
        lost = total(metrics, "reticle_telemetry_dropped_total")
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(60)
        usage = usage_of(server)
        server.log.close()
        log = log_of(server.log_path)
        admitted, ended, problems = check(metrics, log, usage, lost)
        judged = [sample for sample in samples if sample[0] >= options.seconds * options.warmup]
        slope = slope_per_minute(judged) / MB
        print(f"{load.sent} requests sent at {options.load:.0%} of {capacity:.0f}/s for {options.seconds:.0f} s; "
              f"clients saw {load.seen}")
        print(f"{trouble.faults} card faults, {total(metrics, 'reticle_device_failovers_total')} fail-overs, "
              f"{trouble.reloads} reloads")
        print(f"admitted {admitted} = {' + '.join(f'{count} {reason}' for reason, count in ended.items())}; "
              f"refused {log['refused']}, gone before admission {log['abandoned']}")
        print(f"metrics, log and usage store: {log['output']} output tokens, {log['prompt']} prompt tokens, "
              f"{log['cached']} of them cached")
        print(f"memory: {judged[0][1] / MB:.1f} to {judged[-1][1] / MB:.1f} MB, slope {slope:+.3f} MB/min after "
              f"{options.seconds * options.warmup:.0f} s; descriptors: {before} before, {after} after")
        if status != 0:
            problems.append(f"exit status {status}")
        if after > before:
            problems.append(f"{after - before} descriptors are left open")
        if options.slope and slope >= options.slope:
            problems.append(f"memory grows by {slope:.2f} MB a minute")
        for needed, count in (("fail-overs", total(metrics, "reticle_device_failovers_total")),
                              ("clients that left", ended["abort"]), ("replies", ended["length"]),
                              ("reloads", trouble.reloads)):
            if count == 0:
                problems.append(f"the run had no {needed}")
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({"seconds": options.seconds, "sent": load.sent, "admitted": admitted, "ended": ended,
                           "slope_mb_per_minute": slope, "resident": samples, "problems": problems}, file)
        for problem in problems:
            print("WRONG: " + problem)
        print("all accounted for" if not problems else "not as it should be")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
