"""Overload: ten times as many requests as the cards can serve.

Says what is served in good time at rising load up to the capacity (the peak), then at ten times of it, how fast the
others are refused and whether their Retry-After is true, and how long the server takes to recover.

    ./dev bench overload                     one minute of overload
    ./dev bench overload -- --seconds 300    five
    ./dev bench overload -- --help
"""

import argparse
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
import tiny_gguf  # noqa: E402

RETICLE = os.environ["RETICLE"]
STEP_NS = 4_000_000
PLACES = 16
TOKENS = 40
# A card feeds each place once in a step; a request takes a step for its prompt.
CAPACITY = PLACES * 1e9 / STEP_NS / (TOKENS + 1)
SLO_MS = 500
WAITING = 8
PROBES = 2
LONGEST_WAIT_MS = 2000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
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


class Probe(threading.Thread):
    """Asks on a kept connection now and then, and notes how refusals are told."""

    def __init__(self, port, stop):
        super().__init__()
        self.port, self.stop = port, stop
        self.refusals, self.kept_promises, self.broken = [], 0, 0
        self.start()

    def run(self):
        body = json.dumps({"prompt": "probe", "max_tokens": 1}).encode()
        request = (f"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
        with socket.create_connection(("127.0.0.1", self.port), 60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            promised = False
            while not self.stop.is_set():
                begin = time.monotonic()
                sock.sendall(request)
                reply = b""
                while b"\r\n\r\n" not in reply:
                    reply += sock.recv(65536)
                took = time.monotonic() - begin
                head, _, rest = reply.partition(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
                length = int(fields[b"Content-Length"])
                while len(rest) < length:
                    rest += sock.recv(65536)
                refused = head.split()[1] == b"429"
                if promised:
                    self.kept_promises += not refused
                    self.broken += refused
                promised = False
                if not refused:
                    time.sleep(0.02)
                    continue
                wait_ms = int(fields[b"retry-after-ms"])
                assert int(fields[b"Retry-After"]) == -(-wait_ms // 1000), fields
                self.refusals.append((took, wait_ms))
                # Nobody else comes back here, so the times that are told grow; a few are kept to see whether they hold.
                promised = wait_ms <= LONGEST_WAIT_MS
                self.stop.wait(wait_ms / 1000 if promised else 0.02)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def refusals_of(path):
    """How long the server had each refused request, ms."""
    times = []
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if line.get("finish") == "refused":
                times.append(line["total_ms"])
    return times


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
        stop = threading.Event()
        finish = load(port, CAPACITY * options.times, options.seconds, folder)
        time.sleep(min(1.0, options.seconds / 10))
        probes = [Probe(port, stop) for _ in range(PROBES)]
        time.sleep(options.seconds * 0.9)
        stop.set()
        report = finish()
        for probe in probes:
            probe.join()
        good = goodput(report)
        refusals = [refusal for probe in probes for refusal in probe.refusals]
        times = [took * 1000 for took, _ in refusals]
        kept, broken = sum(p.kept_promises for p in probes), sum(p.broken for p in probes)
        print(f"{options.times:.0f} times for {options.seconds:.0f} s: {good:.1f} good requests a second "
              f"({good / peak:.1%} of the peak), {report['requests']['rejected']} refused, errors {report['errors']}, "
              f"client {report['client']['verdict']}")
        print(f"{len(refusals)} refusals seen by probes: p50 {percentile(times, 0.5):.2f} ms, p99 "
              f"{percentile(times, 0.99):.2f} ms, longest {max(times, default=0):.2f} ms; Retry-After p50 "
              f"{percentile([wait for _, wait in refusals], 0.5):.0f} ms; {kept} of {kept + broken} who waited so long "
              "were served then")
        after = load(port, CAPACITY * 0.7, 10, folder)()
        recovered = next((interval["begin_s"] for interval in after["intervals"]
                          if interval["ttft_p99_ms"] <= SLO_MS and interval["failed"] == 0), None)
        print(f"recovery: {goodput(after):.1f} good requests a second at 0.7 times, "
              f"{after['requests']['rejected']} refused; good again {recovered} s after the overload")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        server.stdout.close()
        log.close()
        inside = refusals_of(log.name)
        print(f"{len(inside)} refusals as the server saw them: p50 {percentile(inside, 0.5):.3f} ms, p99 "
              f"{percentile(inside, 0.99):.3f} ms, p99.9 {percentile(inside, 0.999):.3f} ms, longest {max(inside):.3f} ms")
        errors = {kind: count for kind, count in report["errors"].items() if kind != "http 429"}
        if good < 0.95 * peak:
            problems.append("goodput falls below 95 % of its peak")
        if percentile(times, 0.5) >= 5 or percentile(inside, 0.99) >= 5:
            problems.append("refusals take 5 ms or more")
        if recovered is None or recovered > 5:
            problems.append("no recovery within 5 s")
        if errors:
            problems.append(f"errors: {errors}")
    for problem in problems:
        print("WRONG: " + problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
