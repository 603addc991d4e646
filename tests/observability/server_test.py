"""/metrics of live servers: every request is accounted for, TLS shows its certificate, buckets are the operator's."""

import calendar
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "integration"))
from serving import Server, build  # noqa: E402

BODY = {"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 20, "ignore_eos": True}


def samples(text, name):
    """{labels: value} of a metric."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(1) or ""))
            found[tuple(sorted(labels.items()))] = float(match.group(2))
    return found


def scrape(server):
    return server.request("GET", "/metrics")[2].decode()


def make_certificate(folder, days):
    """Writes the pair in `folder` and returns (certificate file, key file, its end)."""
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", str(days), "-subj", "/CN=localhost", "-keyout", key, "-out", cert], check=True,
                   capture_output=True)
    shown = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-enddate"], check=True, capture_output=True,
                           text=True).stdout.strip().removeprefix("notAfter=")
    return cert, key, calendar.timegm(time.strptime(shown, "%b %d %H:%M:%S %Y %Z"))


def served_certificate(port):
    """PEM of the certificate that a handshake shows; HTTP/2 is offered, which gRPC asks for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", port), 30) as plain, context.wrap_socket(plain) as secure:
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(True))


class Metrics(unittest.TestCase):
    def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def test_every_request_is_accounted_for(self):
        server = Server("--device-option", "step_ns=2000000")
        try:
            threads = [threading.Thread(target=server.request, args=("POST", "/v1/completions", {**BODY, "n": n}))
                       for n in (1, 2, 3)]
            for thread in threads:
                thread.start()
            with server.connect() as sock:
                sock.sendall(build("POST", "/v1/completions", {**BODY, "max_tokens": 4000, "stream": True}))
                sock.recv(100)
            for thread in threads:
                thread.join()
            for fields in ({"temperature": -1}, {"model": "nobody"}, {"prompt": "x" * 5}, {"unknown": 1}):
                server.request("POST", "/v1/completions", {**BODY, **fields})
            timed = server.request("POST", "/v1/completions", {**BODY, "max_tokens": 4000}, ["x-request-timeout-ms: 30"])
            self.assertEqual(timed[0], 504)
            expected = {"length": 4, "abort": 1, "deadline": 1, "stop": 0, "error": 0}
            ended = lambda: {dict(labels)["outcome"]: value
                             for labels, value in samples(scrape(server), "reticle_tier_requests_total").items()}
            self.until(lambda: ended() == expected)
            text = scrape(server)
            refused = {dict(labels)["reason"]: value
                       for labels, value in samples(text, "reticle_tier_rejections_total").items()}
            self.assertEqual(refused, {"invalid": 2, "not_found": 1, "queue_full": 0, "unavailable": 0})
            output = sum(value for labels, value in samples(text, "reticle_tier_tokens_total").items()
                         if dict(labels)["kind"] == "output" and dict(labels)["outcome"] == "length")
            self.assertEqual(output, 20 * (1 + 2 + 3 + 1))
            prompt = sum(samples(text, "vllm:prompt_tokens_total").values())
            by_source = sum(samples(text, "vllm:prompt_tokens_by_source_total").values())
            self.assertEqual(prompt, by_source)
            self.assertEqual(sum(samples(text, "vllm:request_max_num_generation_tokens_count").values()), 6)
            self.assertEqual({dict(labels)["tier"] for labels in samples(text, "reticle_tier_requests_total")}, {"none"})
        finally:
            server.stop()

    def test_promtool_finds_no_fault_but_vllms_names(self):
        server = Server()
        try:
            server.post("/v1/completions", BODY)
            done = subprocess.run(["promtool", "check", "metrics"], input=scrape(server), capture_output=True, text=True,
                                  timeout=60)
        finally:
            server.stop()
        complaints = [line for line in (done.stdout + done.stderr).splitlines()
                      if line and not re.match(r"vllm:\S+ (metric names should not contain ':'|non-counter metrics)", line)]
        self.assertEqual(complaints, [])

    def test_the_certificate_in_use_is_shown_and_a_renewed_one_taken_over_by_every_listener(self):
        name = "reticle_tls_certificate_expiry_timestamp_seconds"
        with tempfile.TemporaryDirectory() as folder:
            cert, key, end = make_certificate(folder, 30)
            server = Server("--tls-cert", cert, "--tls-key", key, "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                            wait=False)
            # Lines that came with the first one are in the buffer.
            ports = [server.port] + [int(server.process.stdout.readline().decode().rsplit(":", 1)[1]) for _ in range(2)]

            def shown():
                context = ssl.create_default_context(cafile=cert)
                with urllib.request.urlopen(f"https://localhost:{server.port}/metrics", context=context, timeout=30) as reply:
                    return samples(reply.read().decode(), name)

            def served():
                return [served_certificate(port).split() for port in ports]

            def file():
                with open(cert, encoding="ascii") as opened:
                    return opened.read().split()
            try:
                self.assertEqual(shown(), {(): end})
                self.assertEqual(served(), [file()] * 3)
                old = file()
                _, _, later = make_certificate(folder, 60)
                self.assertEqual(served(), [old] * 3)
                server.process.send_signal(signal.SIGHUP)
                self.until(lambda: served() == [file()] * 3)
                self.assertEqual(shown(), {(): later})
                # A key that is another's changes nothing.
                new = file()
                os.rename(key, key + ".good")
                make_certificate(folder, 90)
                os.rename(key + ".good", key)
                server.process.send_signal(signal.SIGHUP)
                self.until(lambda: "nothing has changed" in server.errors())
                self.assertEqual(served(), [new] * 3)
            finally:
                server.stop()

    def test_a_store_of_accounts_that_can_be_read_but_not_written_is_shown(self):
        with tempfile.TemporaryDirectory() as folder:
            store = os.path.join(folder, "tenants.db")
            made = subprocess.run([os.environ["RETICLE"], "keys", "create", "name=A", "email=a@example.org", "tier=free",
                                   "--store", store, "--json"], check=True, capture_output=True)
            key = json.loads(made.stdout)["key"]
            server = Server("--free-tier", "--tenants-store", store)

            def failed():
                return samples(scrape(server), "reticle_accounts_store_failed")[()]

            def rename(old, new):
                with contextlib.closing(sqlite3.connect(store, 30)) as database, database:
                    database.execute(f"ALTER TABLE {old} RENAME TO {new}")

            def ask():
                headers = [f"Authorization: Bearer {key}"]
                self.assertEqual(server.request("POST", "/v1/completions", BODY, headers)[0], 200)
            try:
                ask()
                self.assertEqual(failed(), 0)
                rename("usage_days", "away")
                ask()
                self.until(lambda: failed() == 1)
                # Keys are read all the while, which works.
                for _ in range(20):
                    time.sleep(0.05)
                    self.assertEqual(failed(), 1)
                rename("away", "usage_days")
                self.until(lambda: failed() == 0)
            finally:
                server.stop()

    def test_buckets_are_the_operators(self):
        server = Server("--metrics-buckets", "vllm:time_to_first_token_seconds=0.25,0.5", "--metrics-buckets",
                        "reticle_tier_tokens_per_second=100,1000")
        try:
            bounds = [dict(labels)["le"] for labels in samples(scrape(server), "vllm:time_to_first_token_seconds_bucket")]
            self.assertEqual(bounds, ["0.25", "0.5", "+Inf"])
        finally:
            server.stop()
        done = subprocess.run([os.environ["RETICLE"], "serve", "--metrics-buckets", "vllm:nothing=1"], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--metrics-buckets", done.stderr)

    def test_scrapes_do_not_disturb_each_other_nor_a_stream(self):
        server = Server("--device-option", "step_ns=1000000")
        try:
            texts = []
            threads = [threading.Thread(target=lambda: texts.append(scrape(server))) for _ in range(20)]
            stream = threading.Thread(target=server.request, args=("POST", "/v1/completions", {**BODY, "max_tokens": 500,
                                                                                              "stream": True}))
            stream.start()
            for thread in threads:
                thread.start()
            for thread in [*threads, stream]:
                thread.join()
            self.assertEqual(len(texts), 20)
            self.assertTrue(all(text.endswith("\n") and "process_start_time_seconds" in text for text in texts))
        finally:
            server.stop()


if __name__ == "__main__":
    assert shutil.which("promtool"), "the package prometheus is not installed"
    unittest.main()
