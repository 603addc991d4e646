"""Overload: ten times as many requests as the cards can serve.

Says what is served in good time at rising load up to the capacity (the peak), then at ten times of it, how fast the
others are refused and whether their Retry-After is true, and how long the server takes to recover.

    ./dev bench overload                     one minute of overload
    ./dev bench overload -- --seconds 300    five
    ./dev bench overload -- --help
"""

import argparse
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import machine  # noqa: E402
import tiny_gguf  # noqa: E402

RETICLE = os.environ["RETICLE"]
STEP_NS = 4_000_000
PLACES = 16
TOKENS = 40
# A card feeds each place once in a step; a request takes a step for its prompt.
CAPACITY = PLACES * 1e9 / STEP_NS / (TOKENS + 1)
SLO_MS = 500
WAITING = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--polite", type=int, default=16, help="clients that come back exactly when they were told to")
    parser.add_argument("--measure", type=float, default=20, help="seconds at each load up to the capacity")
    return parser.parse_args()


def load(port, rate, seconds, folder, drain="5s"):
    """Starts `reticle load`; finish() gives its report."""
    path = os.path.join(folder, f"load-{time.monotonic_ns()}.json")
    process = subprocess.Popen(
        [RETICLE, "load", "--url", f"http://127.0.0.1:{port}", "--api", "completions", "--arrival", "poisson",
         "--rate", str(rate), "--duration", f"{seconds}s", "--prompt-tokens", "16", "--output-tokens", str(TOKENS),
         "--no-calibrate", "--json", path, "--quiet", "--drain", drain, "--slo", f"ttft<={SLO_MS}ms"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish():
        output = process.communicate()[0]
        assert process.returncode in (0, 1, 4), output
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    return finish


def goodput(report):
    """Requests a second that were served in time, by the tokens that came within the run: those that wait at its end
    would otherwise count for more in a short run than in a long one."""
    requests = report["requests"]
    share = requests["good"] / requests["succeeded"] if requests["succeeded"] else 0
    return report["rates"]["output_tokens_per_second"] / TOKENS * share


class PoliteClient(threading.Thread):
    """Asks the same again and again. Refused, it waits exactly as long as it was told and comes back with the same
    request, on the same connection or a new one: a promise, which is kept or broken."""

    def __init__(self, port, server_threads, stop, text, whole_seconds, reconnects):
        super().__init__()
        self.port, self.server_threads, self.stop = port, server_threads, stop
        self.whole_seconds, self.reconnects = whole_seconds, reconnects
        body = json.dumps({"prompt": text, "max_tokens": 1}).encode()
        self.request = (f"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        self.refusals = []  # (ms until the reply, of which somebody waited for a core, ms told)
        self.kept, self.broken = 0, 0
        self.start()

    def core_wait_ms(self):
        own = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        return sum(machine.core_wait_ns(path) for path in [own, *self.server_threads]) / 1e6

    def ask(self, sock):
        """The head's status and fields, when it came, and (ms it took, ms of waiting for a core within)."""
        waited = self.core_wait_ms()
        begin = time.monotonic()
        sock.sendall(self.request)
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += sock.recv(65536)
        came = time.monotonic()
        waited = self.core_wait_ms() - waited
        head, _, rest = reply.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(rest) < int(fields[b"Content-Length"]):
            rest += sock.recv(65536)
        return int(head.split()[1]), fields, came, ((came - begin) * 1000, waited)

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def run(self):
        sock = self.connect()
        promised = False
        while not self.stop.is_set():
            status, fields, came, took = self.ask(sock)
            if promised:
                self.kept += status == 200
                self.broken += status != 200
            promised = False
            if status == 200:
                self.stop.wait(0.05)
                continue
            assert status == 429, status
            wait_ms, wait_s = int(fields[b"retry-after-ms"]), int(fields[b"Retry-After"])
            assert wait_s == -(-wait_ms // 1000), fields
            self.refusals.append((*took, wait_ms))
            if self.reconnects:
                sock.close()
            promised = not self.stop.wait(came + (wait_s if self.whole_seconds else wait_ms / 1000) - time.monotonic())
            if self.reconnects:
                sock = self.connect()
        sock.close()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def refusals_of(path, waits):
    """How long the server had each refused request, ms; and the same less what its threads waited for a core within."""
    times, own = [], []
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if line.get("finish") != "refused":
                continue
            took = line["total_ms"]
            times.append(took)
            if took >= 1:
                end = datetime.datetime.fromisoformat(line["time"]).timestamp()
                took = max(took - waits.within_ms(end - took / 1000 - 0.001, end + 0.001), 0.0)
            own.append(took)
    return times, own


def main():
    options = arguments()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "tiny.gguf")
        tiny_gguf.write(model)
        log = open(os.path.join(folder, "log"), "wb")
        server = subprocess.Popen(
            [RETICLE, "serve", "--http", "0", "--grpc", "none", "--model", model, "--model-id", "tiny", "--device",
             "fake", "--max-sequences", str(PLACES), "--device-option", f"step_ns={STEP_NS}", "--device-option",
             "credits=4", "--max-waiting", str(WAITING), "--log-format", "json"], stdout=subprocess.PIPE, stderr=log, text=True)
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        while not server.stdout.readline().startswith("Model"):
            pass
        peak = 0.0
        for share in (0.8, 1.0, 1.2):
            report = load(port, CAPACITY * share, options.measure, folder)()
            good = goodput(report)
            peak = max(peak, good)
            print(f"{share:.1f} times {CAPACITY:.0f}/s: {good:.1f} good requests a second, "
                  f"{report['requests']['rejected']} refused", flush=True)
        server_threads = machine.threads(server.pid, "http")
        waits = machine.CoreWaits(server_threads)
        stop, stolen, begun = threading.Event(), machine.steal_s(), time.time()
        finish = load(port, CAPACITY * options.times, options.seconds, folder)
        time.sleep(min(1.0, options.seconds / 10))
        # Every fourth reads whole seconds, every second one comes back on a new connection.
        clients = [PoliteClient(port, server_threads, stop, f"question {i}", i % 4 == 3, i % 2 == 1) for i in range(options.polite)]
        time.sleep(options.seconds * 0.9)
        stop.set()
        report = finish()
        stolen, starved = machine.steal_s() - stolen, waits.within_ms(begun, time.time()) / (time.time() - begun) / 1000
        for client in clients:
            client.join()
        good = goodput(report)
        refusals = [refusal for client in clients for refusal in client.refusals]
        outside = [took for took, _, _ in refusals]
        outside_own = [max(took - waited, 0.0) for took, waited, _ in refusals]
        told = [wait for _, _, wait in refusals]
        kept, broken = sum(client.kept for client in clients), sum(client.broken for client in clients)
        print(f"{options.times:.0f} times for {options.seconds:.0f} s: {good:.1f} good requests a second "
              f"({good / peak:.1%} of the peak) of {report['rates']['output_tokens_per_second'] / TOKENS:.1f} served, "
              f"{report['requests']['rejected']} refused, errors {report['errors']}, "
              f"client {report['client']['verdict']}")
        print(f"Retry-After: {kept} of {kept + broken} kept for {options.polite} clients that waited so long and came back with "
              f"the same; told p50 {percentile(told, 0.5)} ms, p99 {percentile(told, 0.99)} ms, longest {max(told, default=0)} ms")
        after = load(port, CAPACITY * 0.7, 10, folder)()
        recovered = next((interval["begin_s"] for interval in after["intervals"]
                          if interval["ttft_p99_ms"] <= SLO_MS and interval["failed"] == 0), None)
        print(f"recovery: {goodput(after):.1f} good requests a second at 0.7 times, "
              f"{after['requests']['rejected']} refused; good again {recovered} s after the overload")
        waits.stop()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        server.stdout.close()
        log.close()
        inside, inside_own = refusals_of(log.name, waits)
        print("refusals                                  p50        p99      p99.9    longest, ms")
        for name, times in (("in the server", inside), ("  less its waits for a core", inside_own),
                            ("from outside", outside), ("  less both sides' waits for a core", outside_own)):
            print(f"{name:36}" + "".join(f"{percentile(times, share):11.3f}" for share in (0.5, 0.99, 0.999, 1))
                  + f"  ({len(times)})")
        print(f"during the overload the server waited for a core {starved:.1%} of the time; the host took {stolen:.2f} s")
        errors = {kind: count for kind, count in report["errors"].items() if kind != "http 429"}
        if good < 0.95 * peak:
            doubt = starved > 0.05 or report["client"]["verdict"] != "ok"
            problems.append("goodput falls below 95 % of its peak" +
                            (", on a machine without a core for the server and one for its clients" if doubt else ""))
        if max(inside_own) >= 5 or percentile(outside_own, 0.99) >= 5:
            problems.append("refusals take 5 ms or more")
        if broken or not kept:
            problems.append(f"Retry-After is not true: {broken} promises were broken, {kept} kept")
        if recovered is None or recovered > 5:
            problems.append("no recovery within 5 s")
        if errors:
            problems.append(f"errors: {errors}")
    for problem in problems:
        print("WRONG: " + problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
