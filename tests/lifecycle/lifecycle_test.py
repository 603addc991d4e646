"""Logs, traces, readiness, reloading, draining and handing over, of a real process on the fake device."""

import contextlib
import ctypes
import http.server
import json
import os
import queue
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "integration"))
from serving import Reader, Server, build, events  # noqa: E402

RETICLE = os.environ["RETICLE"]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BODY = {"prompt": "abc", "max_tokens": 8, "ignore_eos": True}
SLOW = ("--device-option", "step_ns=5000000", "--run-ahead", "1", "--device-option", "credits=1")


def until(condition, what, limit=30.0):
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Managed(Server):
    """A server with an admin listener and a log of JSON lines."""

    def __init__(self, *arguments, **more):
        super().__init__("--admin", "127.0.0.1:0", "--log-format", "json", *arguments, **more)
        self.admin_port = None
        while self.admin_port is None:
            match = re.match(r"Admin http://127\.0\.0\.1:(\d+)", self._read_line())
            self.admin_port = int(match.group(1)) if match else None

    def admin(self, method, path, body=None):
        with socket.create_connection(("127.0.0.1", self.admin_port), 60) as sock:
            sock.sendall(build(method, path, body, ["Connection: close"]))
            status, _, data = Reader(sock).response()
        return status, json.loads(data)

    def lines(self):
        """What the log holds so far."""
        whole = self.errors().rpartition("\n")[0]
        return [json.loads(line) for line in whole.split("\n") if line]

    def requests(self, **fields):
        return [line for line in self.lines() if line["msg"] == "request" and line["front"] == "http"
                and all(line.get(key) == value for key, value in fields.items())]

    def line_of(self, request_id):
        found = until(lambda: self.requests(id=request_id), f"no line of {request_id}")
        assert len(found) == 1, found
        return found[0]


class RequestLines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Managed("--max-sequences", "1", "--max-waiting", "1", *SLOW)

    @classmethod
    def tearDownClass(cls):
        log = cls.server.stop()
        assert "SECRET" not in log, "a prompt is in the log"

    def post(self, body, *headers):
        return self.server.request("POST", "/v1/completions", body, headers)

    def test_a_request_leaves_one_line_with_everything(self):
        status, headers, data = self.post({**BODY, "prompt": "SECRET words"}, "x-request-id: one.1",
                                          "traceparent: " + PARENT)
        self.assertEqual(status, 200, data)
        usage = json.loads(data)["usage"]
        self.assertEqual(headers["x-request-id"], "one.1")
        line = self.server.line_of("one.1")
        self.assertEqual(line["status"], 200)
        self.assertEqual(line["finish"], "length")
        self.assertEqual(line["model"], "tiny")
        self.assertEqual(line["device"], "fake")
        self.assertEqual(line["prompt_tokens"], usage["prompt_tokens"])
        self.assertEqual(line["output_tokens"], 8)
        self.assertEqual(line["cached_tokens"], usage["prompt_tokens_details"]["cached_tokens"])
        self.assertEqual(line["level"], "info")
        self.assertEqual(line["trace_id"], PARENT.split("-")[1])
        self.assertGreater(line["ttft_ms"], 0)
        self.assertGreaterEqual(line["queue_ms"], 0)
        self.assertGreater(line["decode_ms"], 0)
        self.assertGreaterEqual(line["total_ms"], line["ttft_ms"])
        self.assertGreaterEqual(line["total_ms"], line["queue_ms"] + line["decode_ms"] - 1)
        self.assertNotIn("tenant", line)

    def test_traceparent_is_kept_or_made_anew(self):
        _, headers, _ = self.post(BODY, "traceparent: " + PARENT)
        version, trace, span, flags = headers["traceparent"].split("-")
        self.assertEqual((version, trace, flags), ("00", PARENT.split("-")[1], "01"))
        self.assertNotEqual(span, PARENT.split("-")[2])
        for bad in ("", "x", PARENT.upper(), PARENT + "0", PARENT.replace("00-", "ff-", 1),
                    "00-" + "0" * 32 + PARENT[35:]):
            _, headers, _ = self.post(BODY, "traceparent: " + bad)
            self.assertRegex(headers["traceparent"], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
            self.assertNotIn(PARENT.split("-")[1], headers["traceparent"])
        # Two of them say nothing.
        _, headers, _ = self.post(BODY, "traceparent: " + PARENT, "traceparent: " + PARENT)
        self.assertNotIn(PARENT.split("-")[1], headers["traceparent"])
        # Refusals and errors have one too.
        self.assertIn("traceparent", self.server.request("GET", "/nowhere")[1])

    def test_a_client_that_leaves_and_a_refusal_have_their_lines(self):
        with self.server.connect() as sock:
            sock.sendall(build("POST", "/v1/completions", {**BODY, "max_tokens": 5000, "stream": True},
                               ["x-request-id: gone"]))
            self.assertTrue(sock.recv(100))
            with self.server.connect() as waiting:
                waiting.sendall(build("POST", "/v1/completions", {**BODY, "max_tokens": 2},
                                      ["x-request-id: waited"]))
                until(lambda: self.server.gauge("vllm:num_requests_waiting") == 1, "it does not wait")
                status, headers, _ = self.post(BODY, "x-request-id: refused")
                self.assertEqual(status, 429)
                self.assertIn("retry-after", headers)
                sock.close()
                self.assertEqual(Reader(waiting).response()[0], 200)
        line = self.server.line_of("gone")
        self.assertEqual((line["status"], line["finish"]), (499, "abort"))
        self.assertGreater(line["output_tokens"], 0)
        line = self.server.line_of("refused")
        self.assertEqual((line["status"], line["finish"]), (429, "refused"))
        self.assertIn("error", line)
        self.assertNotIn("output_tokens", line)
        self.assertGreater(self.server.line_of("waited")["queue_ms"], 0)

    def test_a_mistake_tells_what_it_was(self):
        status, _, _ = self.post({**BODY, "temperature": 9}, "x-request-id: wrong")
        self.assertEqual(status, 400)
        self.assertIn("temperature", self.server.line_of("wrong")["error"])

    def test_an_id_that_could_forge_lines_is_replaced(self):
        for bad in ("a b", 'a"b', "x" * 129):
            _, headers, _ = self.post(BODY, "x-request-id: " + bad)
            self.assertRegex(headers["x-request-id"], r"^[0-9a-f]{32}$")


class Levels(unittest.TestCase):
    def test_the_level_changes_at_run_time(self):
        server = Managed("--log-level", "error")
        try:
            server.request("POST", "/v1/completions", BODY, ["x-request-id: quiet"])
            self.assertEqual(server.admin("GET", "/admin/log")[1]["level"], "error")
            status, reply = server.admin("POST", "/admin/log", {"level": "debug"})
            self.assertEqual((status, reply["level"]), (200, "debug"))
            server.request("POST", "/v1/completions", BODY, ["x-request-id: loud"])
            server.line_of("loud")
            # What is no generation is worth a line at debug only.
            server.request("GET", "/health/live")
            until(lambda: server.requests(route="/health/live"), "no line at debug")
            self.assertEqual(server.requests(id="quiet"), [])
            status, reply = server.admin("POST", "/admin/log", {"level": "chatty"})
            self.assertEqual((status, reply["error"]["param"]), (400, "level"))
        finally:
            server.stop()

    def test_prompts_only_when_asked_for(self):
        server = Managed("--log-prompts")
        try:
            server.request("POST", "/v1/completions", {**BODY, "prompt": 'say "hi"'}, ["x-request-id: p"])
            self.assertIn('say "hi"', server.line_of("p")["prompt"])
        finally:
            server.stop()

    def test_logfmt_is_the_default(self):
        server = Server()
        server.request("POST", "/v1/completions", BODY, ["x-request-id: fmt"])
        self.assertRegex(server.stop(), r"time=\S+ level=info msg=request id=fmt front=http method=POST ")

    def test_a_stalled_standard_error_stalls_nobody(self):
        read_end, write_end = os.pipe()
        real = subprocess.Popen

        def popen(*arguments, **more):
            return real(*arguments, **{**more, "stderr": write_end})
        subprocess.Popen = popen
        try:
            server = Server()
        finally:
            subprocess.Popen = real
            os.close(write_end)
        try:
            long_id = "x" * 120
            request = build("POST", "/v1/completions", {**BODY, "max_tokens": 1},
                            [f"x-request-id: {long_id}"])
            with server.connect() as sock:
                reader = Reader(sock)
                # Ten times what the pipe and the queue hold, so that a server which waits hangs here.
                for _ in range(100):
                    sock.sendall(request * 120)
                    for _ in range(120):
                        self.assertEqual(reader.response()[0], 200)
            until(lambda: server.gauge("reticle_telemetry_dropped_total") > 1000, "no loss is counted")
        finally:
            # Its end does not wait for the pipe either.
            server.stop()
            os.close(read_end)


class Collector:
    """An OTLP/HTTP collector that keeps what it is sent."""

    def __init__(self):
        bodies = self.bodies = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                bodies.put((self.path, self.headers["content-type"], json.loads(body)))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self):
        path, kind, body = self.bodies.get(timeout=30)
        assert (path, kind) == ("/v1/traces", "application/json")
        return [span for resource_ in body["resourceSpans"] for scope in resource_["scopeSpans"]
                for span in scope["spans"]]

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Traces(unittest.TestCase):
    def test_sampled_requests_become_spans(self):
        collector = Collector()
        server = Managed("--otlp-endpoint", collector.url, "--trace-ratio", "0", *SLOW)
        try:
            server.request("POST", "/v1/completions", BODY, ["x-request-id: unsampled"])
            now = time.time_ns()
            server.request("POST", "/v1/completions", BODY, ["traceparent: " + PARENT, "x-request-id: traced"])
            spans = collector.spans()
            root = next(span for span in spans if span["kind"] == 2)
            self.assertEqual(root["traceId"], PARENT.split("-")[1])
            self.assertEqual(root["parentSpanId"], PARENT.split("-")[2])
            self.assertEqual(root["name"], "POST /v1/completions")
            # Half a minute either side: the clocks agree.
            self.assertLess(abs(int(root["startTimeUnixNano"]) - now), 30e9)
            attributes = {item["key"]: item["value"] for item in root["attributes"]}
            self.assertEqual(attributes["reticle.request_id"], {"stringValue": "traced"})
            self.assertEqual(attributes["gen_ai.usage.output_tokens"], {"intValue": "8"})
            parts = {span["name"]: span for span in spans if span is not root}
            self.assertLessEqual(set(parts), {"queue", "prefill", "decode"})
            self.assertIn("decode", parts)
            for span in parts.values():
                self.assertEqual(span["parentSpanId"], root["spanId"])
                self.assertLessEqual(int(root["startTimeUnixNano"]), int(span["startTimeUnixNano"]))
                self.assertLessEqual(int(span["endTimeUnixNano"]), int(root["endTimeUnixNano"]) + 1_000_000)
            self.assertEqual(len({span["spanId"] for span in spans}), len(spans))
        finally:
            server.stop()
            collector.stop()
        self.assertTrue(collector.bodies.empty(), "an unsampled request was sent")


class Lifecycle(unittest.TestCase):
    def test_draining_serves_until_load_balancers_have_noticed(self):
        server = Managed("--drain-delay-ms", "600000", "--drain-timeout", "20")
        with server.connect() as kept:
            reader = Reader(kept)
            kept.sendall(build("GET", "/health/ready"))
            status, headers, body = reader.response()
            self.assertEqual((status, json.loads(body)["status"]), (200, "ready"))
            self.assertNotIn("connection", headers)
            server.terminate()
            until(lambda: server.request("GET", "/health/ready")[0] == 503, "readiness stays")
            self.assertEqual(json.loads(server.request("GET", "/health/ready")[2])["status"], "draining")
            # Whoever has not noticed is served, on old connections and on new ones, and sent away.
            status, headers, _ = server.request("POST", "/v1/completions", BODY)
            self.assertEqual(status, 200)
            kept.sendall(build("POST", "/v1/completions", BODY))
            status, headers, _ = reader.response()
            self.assertEqual((status, headers["connection"]), (200, "close"))
            self.assertTrue(reader.at_end())
        # Nothing runs, so a second signal ends the delay and nothing else.
        until(lambda: json.loads(server.request("GET", "/health/ready")[2])["active_requests"] == 0, "it runs on")
        time.sleep(0.1)
        server.terminate()
        server.stop()

    def test_an_order_to_drain_and_a_signal_after_it_cut_nothing_off(self):
        server = Managed(*SLOW)
        with server.connect() as sock:
            sock.sendall(build("POST", "/v1/completions", {**BODY, "max_tokens": 600, "stream": True}))
            self.assertTrue(sock.recv(20, socket.MSG_PEEK))
            drain = subprocess.Popen([RETICLE, "drain", "--admin", f"127.0.0.1:{server.admin_port}",
                                      "--delay-ms", "100"])
            self.assertEqual(drain.wait(60), 0)
            # As a kubelet does once the preStop hook is over.
            server.terminate()
            self.assertEqual(server.request("POST", "/v1/completions", BODY)[0], 503)
            self.assertEqual(events(Reader(sock).response()[2])[-1], "[DONE]")
        server.stop()

    def test_a_second_signal_ends_the_process(self):
        server = Managed(*SLOW)
        with server.connect() as sock:
            sock.sendall(build("POST", "/v1/completions", {**BODY, "max_tokens": 3000, "stream": True}))
            self.assertTrue(sock.recv(20))
            server.terminate()
            until(lambda: server.request("GET", "/health/ready")[0] == 503, "readiness stays")
            server.terminate()
            self.assertIn("cut off", server.stop(expect=130))

    def test_a_service_manager_is_told(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            path = os.path.join(folder, "notify")
            told.bind(path)
            told.settimeout(60)
            os.environ["NOTIFY_SOCKET"] = path
            try:
                server = Managed()
            finally:
                del os.environ["NOTIFY_SOCKET"]
            self.assertIn(b"READY=1", told.recv(4096))
            server.process.send_signal(signal.SIGHUP)
            self.assertRegex(told.recv(4096), rb"^RELOADING=1\nMONOTONIC_USEC=\d+$")
            self.assertEqual(told.recv(4096), b"READY=1")
            server.terminate()
            self.assertIn(b"STOPPING=1", told.recv(4096))
            server.stop()


class Reload(unittest.TestCase):
    def write(self, text):
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "reticle.toml")
        self.store = os.path.join(self.folder.name, "tenants.db")
        made = subprocess.run([RETICLE, "keys", "create", "name=T", "email=t@example.org", "tier=free",
                               "--store", self.store, "--json"], capture_output=True, check=True)
        self.key = json.loads(made.stdout)["key"]
        self.write('log-level = "error"\n[tenants]\nlimits = ["free.requests_per_minute=2"]\n')
        self.server = Managed("--config", self.path, "--free-tier", "--tenants-store", self.store,
                              "--drain-timeout", "21")

    def tearDown(self):
        self.server.stop()
        self.folder.cleanup()

    def limit(self):
        _, headers, _ = self.server.request("GET", "/v1/usage", None, [f"Authorization: Bearer {self.key}"])
        return headers, json.loads(self.server.request(
            "GET", "/v1/usage", None, [f"Authorization: Bearer {self.key}"])[2])["limits"][
                "requests_per_minute"]["limit"]

    def test_limits_keys_and_the_log_follow_the_file_and_a_bad_one_changes_nothing(self):
        self.assertEqual(self.limit()[1], 2)
        self.write('log-level = "debug"\n[tenants]\nlimits = ["free.requests_per_minute=77"]\n'
                   '[http]\nidle_timeout_ms = 5\n')
        self.server.process.send_signal(signal.SIGHUP)
        # It is reported when all of it holds.
        line = until(lambda: [line for line in self.server.lines()
                              if line["msg"].startswith("the configuration is reloaded")], "no report")[0]
        self.assertEqual(self.limit()[1], 77)
        self.assertEqual(self.server.admin("GET", "/admin/log")[1]["level"], "debug")
        report = json.loads(line["msg"].partition(": ")[2])
        self.assertEqual(set(report["applied"]), {"--log-level", "--tier-limit", "keys"})
        # It is named, and not in force: connections live longer than 5 ms.
        self.assertEqual(report["needs_restart"], ["--idle-timeout-ms"])
        for bad, why in (('log-level = "loud"\n', "loud"), ("nonsense = 1\n", "nonsense"), ("[", "line 1"),
                         ('log-level = "error"\n[tenants]\nlimits = ["free.requests_per_minute=-1"]\n', "-1")):
            self.write(bad)
            status, reply = self.server.admin("POST", "/admin/reload")
            self.assertEqual(status, 400, reply)
            self.assertIn(why, reply["error"]["message"])
            self.assertEqual(self.limit()[1], 77)
            self.assertEqual(self.server.admin("GET", "/admin/log")[1]["level"], "debug")
        os.unlink(self.path)
        self.server.process.send_signal(signal.SIGHUP)
        until(lambda: [line for line in self.server.lines() if line["level"] == "error"
                       and "nothing has changed" in line["msg"] and self.path in line["msg"]],
              "a file that is gone is not told")
        self.assertEqual(self.limit()[1], 77)

    def test_the_admin_token_follows_its_file(self):
        token = os.path.join(self.folder.name, "admin.token")

        def write(text):
            with open(token, "w", encoding="utf-8") as file:
                file.write(text)

        def asked(server, word):
            with socket.create_connection(("127.0.0.1", server.admin_port), 60) as sock:
                sock.sendall(build("GET", "/admin/log", None, ["Connection: close", f"Authorization: Bearer {word}"]))
                return Reader(sock).response()[0]
        write("first\n")
        server = Managed("--admin-token-file", token)
        self.addCleanup(server.stop)
        self.assertEqual([asked(server, word) for word in ("first", "second")], [200, 401])
        write("second\n")
        self.assertEqual([asked(server, word) for word in ("first", "second")], [200, 401])
        server.process.send_signal(signal.SIGHUP)
        until(lambda: asked(server, "second") == 200, "the new token is not taken")
        self.assertEqual(asked(server, "first"), 401)
        # An empty file is a mistake and no open door.
        write("")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: any("nothing has changed" in line["msg"] for line in server.lines()), "the mistake is not told")
        self.assertEqual([asked(server, word) for word in ("second", "")], [200, 401])

    def test_the_tenant_is_a_hash(self):
        self.server.admin("POST", "/admin/log", {"level": "info"})
        status, _, _ = self.server.request("POST", "/v1/completions", BODY,
                                           [f"Authorization: Bearer {self.key}", "x-request-id: t"])
        self.assertEqual(status, 200)
        line = self.server.line_of("t")
        self.assertRegex(line["tenant"], r"^[0-9a-f]{16}$")
        self.assertEqual(line["tier"], "free")
        self.assertNotIn(self.key, self.server.errors())


class Knocker:
    """Opens connections one after the other, each with a request, and keeps what went wrong."""

    def __init__(self, port, threads=4):
        self.port, self.served, self.wrong = port, 0, []
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        request = build("POST", "/v1/completions", BODY, ["Connection: close"])
        while not self.stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 60) as sock:
                    sock.sendall(request)
                    status = Reader(sock).response()[0]
                problem = None if status == 200 else status
            except (OSError, AssertionError) as error:
                problem = repr(error)
            with self.lock:
                self.served += problem is None
                if problem is not None:
                    self.wrong.append(problem)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


class HandOver(unittest.TestCase):
    def start(self, port):
        server = Server("--reuse-port", "--http", port, wait=False)
        while not server._read_line().startswith("Model"):
            pass
        return server

    def test_a_new_process_takes_over_the_port_and_nobody_is_refused(self):
        old = self.start("0")
        knocker = Knocker(old.port)
        try:
            for _ in range(3):
                until(lambda: knocker.served > 50 or knocker.wrong, "nobody is served")
                new = self.start(str(old.port))
                old.stop()
                knocker.served, old = 0, new
            until(lambda: knocker.served > 50 or knocker.wrong, "nobody is served")
        finally:
            knocker.end()
            old.stop()
        self.assertEqual(knocker.wrong, [])

    def test_without_the_option_a_port_is_not_shared(self):
        first = Server()
        second = subprocess.run([RETICLE, "serve", "--http", str(first.port), "--grpc", "none", "--device", "fake",
                                 "--model", os.path.join(first.folder.name, "tiny.gguf")],
                                capture_output=True, text=True, timeout=60)
        first.stop()
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"127.0.0.1:{first.port}", second.stderr)

    def test_a_socket_of_the_service_manager_outlives_the_process(self):
        with socket.socket() as listener, socket.socket() as grpc:
            for sock in (listener, grpc):
                sock.bind(("127.0.0.1", 0))
                sock.listen(512)
            port = listener.getsockname()[1]

            # The tiny model is written by a server that is thrown away; real ones inherit the sockets.
            donor = Server()
            model = os.path.join(donor.folder.name, "tiny.gguf")

            def start():
                # Not 3 or 4 themselves; dash knows descriptors of one digit only.
                keep = [os.dup2(grpc.fileno(), 8), os.dup2(listener.fileno(), 9)]
                # The shell becomes the server, so its id is the one to name.
                process = subprocess.Popen(
                    ["/bin/sh", "-c", f'exec env LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=grpc:http "{RETICLE}" '
                     f'serve --model "{model}" --model-id tiny --device fake 3<&{keep[0]} 4<&{keep[1]}'],
                    pass_fds=keep, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                lines = [process.stdout.readline() for _ in range(2)]
                self.assertIn(f":{port}", lines[0])
                self.assertIn(f":{grpc.getsockname()[1]}", lines[1])
                return process
            process = start()
            knocker = Knocker(port)
            try:
                for _ in range(3):
                    knocker.served = 0
                    until(lambda: knocker.served > 50 or knocker.wrong, "nobody is served")
                    process.send_signal(signal.SIGTERM)
                    self.assertEqual(process.wait(60), 0)
                    process.stdout.close()
                    process = start()
                knocker.served = 0
                until(lambda: knocker.served > 50 or knocker.wrong, "nobody is served")
                with socket.create_connection(grpc.getsockname(), 60) as http2:
                    # The preface of an HTTP/2 client; the server's first frame is SETTINGS (4).
                    http2.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
                    self.assertEqual(http2.recv(9)[3], 4)
            finally:
                knocker.end()
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(60), 0)
                process.stdout.close()
                donor.stop()
            # Those that came while no process was ready have waited.
            self.assertEqual(knocker.wrong, [])


class Limits(unittest.TestCase):
    def test_bodies_share_a_bounded_memory(self):
        server = Server("--max-request-memory", "100000")
        try:
            large = b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n"
            with server.connect() as first, server.connect() as second:
                first.sendall(large + b"{")
                until(lambda: server.gauge("reticle_connections") >= 2, "not connected")
                # Announced is as good as sent.
                def refused():
                    with server.connect() as sock:
                        sock.sendall(large)
                        sock.settimeout(1)
                        try:
                            return Reader(sock).response()
                        except TimeoutError:
                            return None
                status, headers, body = until(refused, "a second large body is taken")
                self.assertEqual(status, 503)
                self.assertIn("100000", json.loads(body)["error"]["message"])
                self.assertNotIn("retry-after", headers)
                self.assertEqual(server.request("POST", "/v1/completions", BODY)[0], 200)
                # One of unknown length is stopped on the way.
                second.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(8):
                    second.sendall(b"1f40\r\n" + b" " * 8000 + b"\r\n")
                self.assertEqual(Reader(second).response()[0], 503)
            # It comes back when its request is gone.
            good = json.dumps({**BODY, "user": "x" * 59000})
            until(lambda: server.request("POST", "/v1/completions", good)[0] == 200, "memory is lost")
            for _ in range(5):
                self.assertEqual(server.request("POST", "/v1/completions", good)[0], 200)
        finally:
            server.stop()

    def test_without_descriptors_it_neither_spins_nor_dies(self):
        libc = ctypes.CDLL(None, use_errno=True)
        server = Server()

        class Limit(ctypes.Structure):
            _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]
        try:
            open_now = len(os.listdir(f"/proc/{server.process.pid}/fd"))
            limit = Limit(open_now + 4, open_now + 4)
            done = libc.prlimit(server.process.pid, resource.RLIMIT_NOFILE, ctypes.byref(limit), None)
            self.assertEqual(done, 0, os.strerror(ctypes.get_errno()))

            def ticks():
                with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
                    fields = file.read().rpartition(")")[2].split()
                return int(fields[11]) + int(fields[12])
            with contextlib.ExitStack() as stack:
                socks = [stack.enter_context(server.connect()) for _ in range(40)]
                until(lambda: "cannot accept" in server.errors(), "no descriptor is missing")
                before, start = ticks(), time.monotonic()
                time.sleep(1)
                share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)
                # A loop that asks for ever takes the whole of it.
                self.assertLess(share, 0.5)
                # Those that got in are served.
                socks[0].sendall(build("POST", "/v1/completions", BODY))
                self.assertEqual(Reader(socks[0]).response()[0], 200)
            # And the rest once there is room.
            self.assertEqual(server.request("POST", "/v1/completions", BODY)[0], 200)
            self.assertLess(server.errors().count("cannot accept"), 200)
        finally:
            server.stop()

    def test_connections_never_need_more_than_there_is(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            server = Server("--max-connections", str(hard + 1))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        try:
            with open(f"/proc/{server.process.pid}/limits", encoding="ascii") as file:
                self.assertRegex(file.read(), rf"Max open files\s+{hard}\s")
        finally:
            self.assertIn(f"may open {hard} files", server.stop())


if __name__ == "__main__":
    unittest.main()
