#!/usr/bin/env python3
"""`reticle load` against `reticle serve` with the house model, and against the null server, whose bytes must be
those of `reticle serve`."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from serving import Server, build

RETICLE = os.environ["RETICLE"]


def load(*arguments, expect=0):
    """Runs reticle load; returns its JSON result."""
    done = subprocess.run([RETICLE, "load", "--json", "-", "--quiet", "--no-progress", *arguments],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expect, f"exit {done.returncode}: {done.stderr}\n{done.stdout[:2000]}"
    return json.loads(done.stdout) if done.stdout else done.stderr


class NullServer:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([RETICLE, "load", "--null-server", "0", *arguments],
                                        stdout=subprocess.PIPE)
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, "the null server prints nothing"
        self.port = int(self.process.stdout.readline().rsplit(b":", 1)[1])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.process.stdout.close()
        assert status == 0, status


def raw(port, path, body):
    """The bytes of one reply."""
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(build("POST", path, body))
        data = b""
        while not (data.endswith(b"0\r\n\r\n") or
                   (b"Content-Length: " in data and len(data) >= whole_size(data))):
            part = sock.recv(1 << 16)
            assert part, data
            data += part
        return data


def whole_size(data):
    head, sep, _ = data.partition(b"\r\n\r\n")
    return len(head) + 4 + int(re.search(rb"Content-Length: (\d+)", head).group(1)) if sep else 1 << 60


def shape(data):
    """A reply with everything replaced that may differ between two servers, and its body's chunks joined."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head:
        joined = b""
        while True:
            size, _, body = body.partition(b"\r\n")
            assert re.fullmatch(rb"[0-9a-f]{8}|0", size), size
            if int(size, 16) == 0:
                break
            joined += body[:int(size, 16)]
            body = body[int(size, 16) + 2:]
        body = joined
    text = (head + b"\r\n\r\n" + body).decode()
    for pattern, place in [
            (r"Date: [^\r]*", "Date"), (r"Content-Length: \d+", "Content-Length"),
            (r"00-[0-9a-f]{32}-[0-9a-f]{16}-", "TRACE-"), (r"[0-9a-f]{32}", "ID"), (r'"created":\d{10}', "CREATED"), (r'"fp_[0-9a-f]{12}"', "FP"),
            (r'"model":"[^"]*"', "MODEL"), (r'"(content|text)":"(?:[^"\\]|\\.)+"', r"\1"),
            (r'"(prompt|cached)_tokens":\d+', r"\1"), (r'"total_tokens":\d+', "TOTAL"),
            (r'_(ms|mj)":\d+\.\d{3}', r"_\1")]:
        text = re.sub(pattern, place, text)
    return text


class NullServerBytes(unittest.TestCase):
    def test_are_those_of_reticle_serve(self):
        script = ",".join(str(letter) for letter in b"word ")
        server, null = Server("--device-option", "script=" + script), NullServer()
        try:
            for stream in (True, False):
                for path, prompt in [("/v1/completions", {"prompt": "abc"}),
                                     ("/v1/chat/completions",
                                      {"messages": [{"role": "user", "content": "abc"}]})]:
                    body = {**prompt, "max_tokens": 6, "ignore_eos": True, "temperature": 0}
                    if stream:
                        body.update(stream=True, stream_options={"include_usage": True})
                    with self.subTest(path=path, stream=stream):
                        self.assertEqual(shape(raw(null.port, path, body)),
                                         shape(raw(server.port, path, {"model": "tiny", **body})))
        finally:
            null.stop()
            server.stop()


class House(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--grpc", "0", fake=False)
        line = cls.server.process.stdout.readline().decode()
        cls.grpc = int(re.match(r"gRPC +127\.0\.0\.1:(\d+)", line).group(1))

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def url(self):
        return f"http://127.0.0.1:{self.server.port}"

    def check(self, result, requests, tokens):
        self.assertEqual(result["model"], "house")
        self.assertEqual(result["requests"]["total"], requests)
        self.assertEqual(result["requests"]["succeeded"], requests)
        self.assertEqual(result["requests"]["short"], 0)
        self.assertEqual(result["tokens"]["completion"], requests * tokens)
        self.assertEqual(result["finish_reasons"], {"length": requests})
        self.assertEqual(result["errors"], {})

    def test_counts_requests_and_tokens_over_http(self):
        for api in ("chat", "completions"):
            for stream in ("--stream", "--no-stream"):
                result = load("--url", self.url(), "--api", api, stream, "--users", "3", "--requests", "6",
                              "--prompt-tokens", "40", "--output-tokens", "8", "--slo", "errors<=0%",
                              "--slo", "e2e<=1h")
                self.check(result, 6, 8)
                # The calibration makes prompts of about the length that was asked for.
                self.assertAlmostEqual(result["tokens"]["prompt"] / 6, 40, delta=12)

    def test_counts_requests_and_tokens_over_grpc(self):
        for stream in ("--stream", "--no-stream"):
            result = load("--url", f"grpc://127.0.0.1:{self.grpc}", stream, "--users", "3", "--requests", "6",
                          "--output-tokens", "8")
            self.check(result, 6, 8)

    def test_conversations_reuse_the_cached_prefix(self):
        # On the CPU, whose KV memory is the scheduler's: a hardwired card keeps its own and shares none.
        server = Server("--device", "cpu", fake=False)
        try:
            result = load("--url", f"http://127.0.0.1:{server.port}", "--requests", "4", "--turns", "4",
                          "--prompt-tokens", "30", "--output-tokens", "20", "--think-ms", "0")
        finally:
            server.stop()
        self.check(result, 4, 20)
        self.assertEqual(result["conversation_ms"]["count"], 1)
        self.assertGreater(result["tokens"]["cached"], 0)

    def test_clients_that_leave_are_cancelled(self):
        result = load("--url", self.url(), "--requests", "4", "--users", "2", "--output-tokens", "600",
                      "--disconnect-share", "1", "--disconnect-after", "2")
        self.assertEqual(result["requests"]["disconnected"], 4)
        self.assertEqual(result["errors"], {})
        deadline = time.monotonic() + 30
        while self.server.gauge("vllm:num_requests_running") > 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def test_refusals_are_errors_by_status(self):
        result = load("--url", self.url(), "--model", "nobody", "--requests", "2", "--no-calibrate", expect=1)
        self.assertEqual(result["errors"], {"http 404": 2})
        result = load("--url", f"grpc://127.0.0.1:{self.grpc}", "--model", "nobody", "--requests", "2",
                      "--no-calibrate", expect=1)
        self.assertEqual(result["errors"], {"grpc 5": 2})


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.null = NullServer("--rate", "2000")
        cls.url = f"http://127.0.0.1:{cls.null.port}"

    @classmethod
    def tearDownClass(cls):
        cls.null.stop()

    def test_exit_statuses(self):
        short = ["--url", self.url, "--requests", "3", "--output-tokens", "4"]
        load(*short, "--slo", "errors<=0%")
        # Missed; 4 where this machine is too busy for a verdict.
        done = subprocess.run([RETICLE, "load", *short, "--slo", "ttft.max<=1ns"], capture_output=True,
                              text=True, timeout=60, check=False)
        self.assertIn(done.returncode, (1, 4), done.stderr)
        self.assertIn("MISSED", done.stdout)
        load("--url", "http://127.0.0.1:1", expect=3)
        for wrong in (["--rate", "x"], ["--scenario", "nothing"], ["--nonsense"], ["--slo", "x"],
                      ["--arrival", "trace", "--trace", "/nowhere.jsonl", "--url", self.url]):
            message = load(*wrong, expect=2)
            self.assertTrue(message)

    def test_a_scenario_file_is_overridden_by_flags(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "mine.toml")
            with open(path, "w", encoding="utf-8") as file:
                file.write('name = "mine"\n[arrival]\nusers = 2\n[output]\ntokens = 9\n[run]\nrequests = 50\n')
            page = os.path.join(folder, "page.html")
            result = load("--scenario", path, "--url", self.url, "--requests", "4", "--html", page)
            self.assertEqual(result["name"], "mine")
            self.assertEqual(result["requests"]["total"], 4)
            self.assertEqual(result["tokens"]["completion"], 36)
            self.assertEqual(result["settings"]["--users"], "2")
            with open(page, encoding="utf-8") as file:
                self.assertIn("mine", file.read())
            first, second = os.path.join(folder, "a.json"), os.path.join(folder, "b.json")
            for name in (first, second):
                with open(name, "w", encoding="utf-8") as file:
                    json.dump(result, file)
                result["rates"]["output_tokens_per_second"] /= 2
            compare = [RETICLE, "load", "--compare", first, second]
            self.assertEqual(subprocess.run(compare, capture_output=True, check=False).returncode, 0)
            worse = subprocess.run(compare + ["--max-regression", "10%"], capture_output=True, text=True, check=False)
            self.assertEqual(worse.returncode, 1)
            self.assertIn("output tokens/s", worse.stdout)

    def test_control_c_reports(self):
        process = subprocess.Popen([RETICLE, "load", "--url", self.url, "--duration", "1h", "--output-tokens", "5",
                                    "--json", "-", "--quiet", "--progress"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stderr.readline()  # a line of progress: it runs
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        result = json.loads(out)
        self.assertTrue(result["interrupted"])
        self.assertGreater(result["requests"]["succeeded"], 0)
        self.assertEqual(result["errors"], {})


class Tls(unittest.TestCase):
    def test_https_is_verified(self):
        with tempfile.TemporaryDirectory() as folder:
            key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                            "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=test",
                            "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            server = Server("--tls-cert", cert, "--tls-key", key, wait=False)
            try:
                url = f"https://127.0.0.1:{server.port}"
                deadline = time.monotonic() + 60
                while subprocess.run(["curl", "-sfk", url + "/health/ready"], capture_output=True,
                                     check=False).returncode != 0:
                    self.assertLess(time.monotonic(), deadline)
                    time.sleep(0.05)
                for trust in (["--ca-file", cert], ["--insecure"]):
                    result = load("--url", url, *trust, "--requests", "3", "--users", "3", "--output-tokens", "50")
                    self.assertEqual(result["tokens"]["completion"], 150)
                message = load("--url", url, "--requests", "1", expect=3)
                self.assertIn("certificate", message)
            finally:
                server.stop()


if __name__ == "__main__":
    unittest.main()
