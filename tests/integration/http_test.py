"""The HTTP front, from outside: shapes, bad input, and clients that misbehave."""

import json
import os
import random
import socket
import ssl
import struct
import subprocess
import tempfile
import time
import unittest

from serving import BEGIN, END, Reader, Server, build, events

# The fake device writes this, again and again, when nothing stops it.
SCRIPT = "Hello, w\u00f6rld! "
SCRIPT_OPTION = "script=" + ",".join(str(b) for b in SCRIPT.encode())
LONG = {"model": "tiny", "prompt": "x", "max_tokens": 4000, "ignore_eos": True, "temperature": 0}


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class HttpTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--device-option", SCRIPT_OPTION, "--device-option", "step_ns=1000000",
                            "--header-timeout-ms", "1500", "--body-timeout-ms", "1500",
                            "--write-timeout-ms", "1500", "--idle-timeout-ms", "60000",
                            "--run-ahead", "4", "--device-option", "credits=4",
                            "--drain-timeout", "20")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def tearDown(self):
        self.assertIsNone(self.server.process.poll(), "the server died")
        self.assertEqual(self.server.request("GET", "/health/live")[0], 200)

    def chat(self, **fields):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}],
                "temperature": 0, "max_tokens": 8}
        body.update(fields)
        return self.server.post("/v1/chat/completions", body)

    def complete(self, **fields):
        body = {"model": "tiny", "prompt": "hi", "temperature": 0, "max_tokens": 8}
        body.update(fields)
        return self.server.post("/v1/completions", body)

    def assert_error(self, reply, status, param=None, code=None, text=""):
        self.assertEqual(reply[0], status, reply[2])
        error = reply[2]["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertIn(text, error["message"])
        if param is not None:
            self.assertEqual(error["param"], param, error)
        if code is not None:
            self.assertEqual(error["code"], code, error)
        self.assertTrue(reply[1]["x-request-id"])

    # ---- shapes

    def test_chat_reply(self):
        status, headers, reply = self.chat()
        self.assertEqual(status, 200, reply)
        self.assertEqual(reply["object"], "chat.completion")
        self.assertEqual(reply["model"], "tiny")
        choice = reply["choices"][0]
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertEqual(choice["message"]["content"], "Hello, w")
        self.assertEqual(choice["finish_reason"], "length")
        self.assertEqual(reply["usage"]["completion_tokens"], 8)
        self.assertEqual(reply["usage"]["total_tokens"], reply["usage"]["prompt_tokens"] + 8)
        self.assertIn("cached_tokens", reply["usage"]["prompt_tokens_details"])

    def test_chat_stream(self):
        status, headers, body = self.server.request("POST", "/v1/chat/completions", {
            "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0,
            "max_tokens": 12, "stream": True, "stream_options": {"include_usage": True}})
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/event-stream"))
        payloads = events(body)
        self.assertEqual(payloads[-1], "[DONE]")
        chunks = [json.loads(p) for p in payloads[:-1]]
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 12)
        self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "length")
        text = [c["choices"][0]["delta"]["content"] for c in chunks[1:-2]]
        self.assertEqual("".join(text), SCRIPT[:11])  # two of the twelve bytes are one letter
        self.assertEqual(len(text), 11, "each token that gives text is an event of its own")
        self.assertTrue(all(c["usage"] is None for c in chunks[:-1]))
        self.assertEqual(len({c["id"] for c in chunks}), 1)

    def test_continuous_usage(self):
        _, _, body = self.server.request("POST", "/v1/completions", {
            "model": "tiny", "prompt": "hi", "temperature": 0, "max_tokens": 3, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}})
        chunks = [json.loads(p) for p in events(body)[:-1]]
        counts = [c["usage"]["completion_tokens"] for c in chunks]
        self.assertEqual(counts, [1, 2, 3, 3, 3])

    def test_completions_of_every_kind_of_prompt(self):
        for prompt, choices in [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2)]:
            status, _, reply = self.complete(prompt=prompt, n=2)
            self.assertEqual(status, 200, reply)
            self.assertEqual([c["index"] for c in reply["choices"]], list(range(2 * choices)))
            self.assertEqual(reply["object"], "text_completion")

    def test_stop_and_echo(self):
        _, _, reply = self.complete(stop=["lo"], max_tokens=50, echo=True)
        choice = reply["choices"][0]
        self.assertEqual((choice["text"], choice["finish_reason"]), ("hiHel", "stop"))
        self.assertEqual(choice["stop_reason"], "lo")
        _, _, reply = self.complete(stop="lo", max_tokens=50, include_stop_str_in_output=True)
        self.assertEqual(reply["choices"][0]["text"], "Hello")
        _, _, reply = self.complete(stop_token_ids=[ord("o")], max_tokens=50)
        self.assertEqual(reply["choices"][0]["stop_reason"], ord("o"))

    def test_logprobs(self):
        _, _, reply = self.complete(logprobs=2, echo=True, max_tokens=2)
        logprobs = reply["choices"][0]["logprobs"]
        self.assertEqual(logprobs["tokens"], ["<|begin|>", "h", "i", "H", "e"])
        self.assertIsNone(logprobs["token_logprobs"][0])
        self.assertEqual(logprobs["text_offset"], [0, 0, 1, 2, 3])
        self.assertEqual(len(logprobs["top_logprobs"][4]), 2)
        _, _, reply = self.chat(logprobs=True, top_logprobs=3, max_tokens=2)
        content = reply["choices"][0]["logprobs"]["content"]
        self.assertEqual([(c["token"], c["bytes"]) for c in content], [("H", [72]), ("e", [101])])
        self.assertEqual(len(content[0]["top_logprobs"]), 3)
        _, _, reply = self.complete(prompt_logprobs=1, max_tokens=1)
        prompt = reply["choices"][0]["prompt_logprobs"]
        self.assertIsNone(prompt[0])
        self.assertIn(str(ord("h")), prompt[1])
        status, _, reply = self.complete(echo=True, logprobs=0, max_tokens=0)
        self.assertEqual((status, reply["choices"][0]["text"]), (200, "hi"))

    def test_tokenize_and_back(self):
        _, _, reply = self.server.post("/tokenize", {"model": "tiny", "prompt": "h\u00e9"})
        self.assertEqual(reply["tokens"], [BEGIN, 104, 0xC3, 0xA9])
        self.assertEqual((reply["count"], reply["max_model_len"]), (4, 4096))
        _, _, reply = self.server.post("/tokenize", {"prompt": "h", "add_special_tokens": False})
        self.assertEqual(reply["tokens"], [104])
        _, _, reply = self.server.post("/detokenize", {"tokens": [104, 0xC3, 0xA9, END]})
        self.assertEqual(reply["prompt"], "h\u00e9<|end|>")
        _, _, reply = self.server.post("/tokenize", {"messages": [
            {"role": "user", "content": "<|end|>"}]})
        self.assertEqual(reply["tokens"].count(END), 1, "only the template's own")

    def test_models(self):
        _, _, data = self.server.request("GET", "/v1/models")
        model = json.loads(data)["data"][0]
        self.assertEqual((model["id"], model["object"], model["max_model_len"]),
                         ("tiny", "model", 4096))
        self.assertEqual(self.server.request("GET", "/v1/models/tiny")[0], 200)
        status, _, data = self.server.request("GET", "/v1/models/other")
        self.assertEqual((status, json.loads(data)["error"]["code"]), (404, "model_not_found"))

    def test_request_ids(self):
        _, headers, _ = self.server.request("GET", "/health/live", None, ["x-request-id: mine-1"])
        self.assertEqual(headers["x-request-id"], "mine-1")
        _, headers, _ = self.server.request("GET", "/health/live", None, ["x-request-id: a b\"c"])
        self.assertNotEqual(headers["x-request-id"], "a b\"c")

    # ---- bad input

    def test_bodies_that_are_no_json(self):
        for body, code in [("", "invalid_json"), ("{", "invalid_json"), ("[]", "invalid_json"),
                           ("null", "invalid_json"), (b'{"a":"\xff"}', "invalid_utf8"),
                           ('{"a":' * 100 + "1" + "}" * 100, "invalid_json"),
                           ('{"prompt":"x"} x', "invalid_json"),
                           ('{"seed":99999999999999999999}', "invalid_json")]:
            for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"]:
                self.assert_error(self.server.post(path, body), 400, code=code)

    def test_wrong_types_and_values_name_the_field(self):
        for field, value in [("temperature", "hot"), ("max_tokens", -1), ("max_tokens", 1.5),
                             ("n", 0), ("n", True), ("stream", "yes"), ("stop", [1]),
                             ("stop", 5), ("seed", "x"), ("logprobs", -3), ("prompt", {}),
                             ("prompt", [1, "a"]), ("prompt", [-1]), ("top_p", 0),
                             ("logit_bias", {"x": 1}), ("logit_bias", {"1": "a"}),
                             ("logit_bias", []), ("stop_token_ids", [None]), ("echo", 1),
                             ("priority", 2 ** 40), ("suffix", "end"), ("best_of", 4),
                             ("guided_json", {}), ("guided_regex", "a"), ("model", 7),
                             ("truncate_prompt_tokens", 0), ("no_such_field", 1),
                             ("response_format", {"type": "json_object"}),
                             ("user", 5), ("metadata", "x"), ("store", "yes"),
                             ("stream_options", {"include_usage": True})]:
            reply = self.complete(**{field: value})
            self.assertEqual(reply[0], 400, (field, value, reply[2]))
            self.assertTrue(reply[2]["error"]["param"].startswith(field), reply[2])
        for field, value in [("tool_choice", "required"), ("functions", []), ("messages", "hi"),
                             ("messages", []), ("messages", [{"role": "user"}]),
                             ("messages", [{"role": "king", "content": "x"}]),
                             ("messages", [{"role": "user", "content": [{"type": "image_url"}]}]),
                             ("top_logprobs", 2), ("modalities", ["audio"]), ("audio", {}),
                             ("tools", [{"type": "web_search"}]), ("chat_template", "x"),
                             ("response_format", {"type": "json_schema"})]:
            reply = self.chat(**{field: value})
            self.assertEqual(reply[0], 400, (field, value, reply[2]))
            self.assertTrue(reply[2]["error"]["param"].startswith(field), reply[2])

        self.assert_error(self.chat(logprobs=True, top_logprobs=21), 400, "top_logprobs")

    def test_a_field_that_comes_twice_is_refused(self):
        for path, body, field in [
                ("/v1/completions", '{"prompt":"a","prompt":"b"}', "prompt"),
                ("/v1/completions", '{"prompt":"a","stop":"b","max_tokens":1,"stop":"c"}', "stop"),
                ("/v1/chat/completions", '{"messages":[],"messages":[]}', "messages"),
                ("/tokenize", '{"prompt":"a","prompt":"b"}', "prompt"),
                ("/detokenize", '{"tokens":[1],"tokens":[2]}', "tokens")]:
            self.assert_error(self.server.post(path, body), 400, field, text="twice")

    def test_harmless_fields_are_accepted(self):
        status, _, reply = self.chat(user="u", metadata={"a": "b"}, store=False, n=None,
                                     service_tier="auto", tools=[], tool_choice="auto",
                                     response_format={"type": "text"}, logit_bias=None)
        self.assertEqual(status, 200, reply)

    def test_prompt_over_the_context_names_both_numbers(self):
        reply = self.complete(prompt="x" * 5000)
        self.assert_error(reply, 400, "prompt", "context_length_exceeded", "4096")
        self.assertIn("5001", reply[2]["error"]["message"])

    def test_a_long_prompt_is_tokenised_aside(self):
        reply = self.server.post("/tokenize", {"prompt": "x" * 1000000})
        self.assertEqual(reply[2]["count"], 1000001)

    def test_unknown_model(self):
        self.assert_error(self.complete(model="gpt-9"), 404, "model", "model_not_found", "gpt-9")

    def test_unknown_paths_and_methods(self):
        self.assertEqual(self.server.request("GET", "/nowhere")[0], 404)
        status, headers, _ = self.server.request("GET", "/v1/completions")
        self.assertEqual((status, headers["allow"]), (405, "POST"))
        status, headers, _ = self.server.request("DELETE", "/metrics")
        self.assertEqual((status, headers["allow"]), (405, "GET, HEAD"))
        status, headers, body = self.server.request("HEAD", "/v1/models")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["content-length"]), 10)

    def test_a_body_of_ten_megabytes(self):
        body = json.dumps({"prompt": "x" * 10_000_000})
        self.assert_error(self.server.post("/v1/completions", body), 413)

    def test_a_chunked_body_over_the_limit(self):
        with self.server.connect() as sock:
            sock.sendall(b"POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
            chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
            try:
                for _ in range(9):
                    sock.sendall(chunk)
            except OSError:
                pass
            self.assertEqual(Reader(sock).response()[0], 413)

    def test_an_unknown_transfer_coding_ends_the_connection(self):
        with self.server.connect() as sock:
            sock.sendall(b"POST /tokenize HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n"
                         b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n")
            reader = Reader(sock)
            self.assertEqual(reader.response()[0], 400)
            self.assertEqual(reader.file.read(), b"")

    def test_huge_headers(self):
        with self.server.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 40000)
            self.assertEqual(Reader(sock).response()[0], 431)

    def test_not_http(self):
        for junk in [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10, b"GET\r\n\r\n",
                     b"GET / HTTP/9.9\r\nHost: t\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"GET /%zz HTTP/1.1\r\nHost: t\r\n\r\n"]:
            with self.server.connect() as sock:
                sock.sendall(junk)
                status = Reader(sock).response()[0]
                self.assertIn(status, (400, 431, 505), junk)

    def test_random_bytes(self):
        draw = random.Random(5)
        request = build("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 2})
        for _ in range(200):
            data = bytearray(request)
            for _ in range(draw.randrange(1, 8)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            with self.server.connect() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass

    # ---- connections

    def test_keep_alive_and_pipelining_keep_the_order(self):
        with self.server.connect() as sock:
            stream = build("POST", "/v1/completions",
                           {"prompt": "a", "max_tokens": 20, "temperature": 0, "stream": True})
            sock.sendall(build("GET", "/v1/models") + stream + build("GET", "/nowhere") +
                         build("POST", "/tokenize", {"prompt": "abc"}) + b"\r\n" +
                         build("GET", "/health/live"))
            reader = Reader(sock)
            statuses = []
            for _ in range(5):
                status, headers, body = reader.response()
                statuses.append(status)
                if headers["content-type"].startswith("text/event-stream"):
                    self.assertEqual(events(body)[-1], "[DONE]")
            self.assertEqual(statuses, [200, 200, 404, 200, 200])

    def test_a_request_byte_by_byte(self):
        with self.server.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in build("POST", "/tokenize", {"prompt": "ab"}):
                sock.sendall(bytes([byte]))
            self.assertEqual(json.loads(Reader(sock).response()[2])["count"], 3)

    def test_expect_continue(self):
        with self.server.connect() as sock:
            request = build("POST", "/tokenize", {"prompt": "ab"}, ["Expect: 100-continue"])
            head, body = request.split(b"\r\n\r\n")
            sock.sendall(head + b"\r\n\r\n")
            reader = Reader(sock)
            self.assertEqual(reader.response()[0], 100)
            sock.sendall(body)
            self.assertEqual(reader.response()[0], 200)

    def test_http_1_0_streams_to_the_end_of_the_connection(self):
        body = json.dumps({"prompt": "a", "max_tokens": 3, "temperature": 0, "stream": True})
        with self.server.connect() as sock:
            sock.sendall(f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
                         f"{body}".encode())
            data = b""
            while part := sock.recv(65536):
                data += part
            head, _, rest = data.partition(b"\r\n\r\n")
            self.assertNotIn(b"chunked", head)
            self.assertEqual(events(rest)[-1], "[DONE]")

    def test_slow_headers_and_bodies_time_out(self):
        with self.server.connect() as head, self.server.connect() as body:
            head.sendall(b"GET / HTTP/1.1\r\nHos")
            body.sendall(b"POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{")
            self.assertEqual(Reader(head).response()[0], 408)
            self.assertEqual(Reader(body).response()[0], 408)
        with self.server.connect() as silent:
            self.assertEqual(silent.recv(1), b"")

    def wait_idle(self):
        until(lambda: "0 running" in self.status(), "the sequence was not cancelled")

    def status(self):
        _, _, data = self.server.request("GET", "/health/ready")
        reply = json.loads(data)
        return f"{reply['active_requests']} running"

    def test_a_client_that_vanishes_is_cancelled(self):
        for stream in (True, False):
            with self.server.connect() as sock:
                sock.sendall(build("POST", "/v1/completions", dict(LONG, stream=stream)))
                if stream:
                    self.assertTrue(sock.recv(1000))
                else:
                    until(lambda: "1 running" in self.status(), "the request does not run")
                # A reset instead of an orderly end, in one of the two cases.
                if stream:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wait_idle()

    def test_a_client_that_reads_nothing_is_closed(self):
        # A device that never ends and a small window: the server has to stop by itself.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", self.server.port))
        body = dict(LONG, stream=True, n=64, logprobs=5)
        sock.sendall(build("POST", "/v1/completions", body))
        until(lambda: "1 running" in self.status(), "the request does not run")
        self.wait_idle()
        sock.close()


class LifeTest(unittest.TestCase):

    def test_drain_lets_streams_finish(self):
        server = Server("--device-option", SCRIPT_OPTION, "--device-option", "step_ns=1000000",
                        "--run-ahead", "1", "--device-option", "credits=1")
        with server.connect() as sock, server.connect() as probe, server.connect() as idle:
            sock.sendall(build("POST", "/v1/completions",
                               dict(LONG, max_tokens=3000, stream=True)))
            first = sock.recv(20, socket.MSG_PEEK)
            self.assertTrue(first)
            server.terminate()
            self.assertEqual(idle.recv(1), b"", "an idle connection is closed")

            def state():
                return server.request("GET", "/health/ready")[0]

            until(lambda: state() == 503, "readiness stays")
            self.assertEqual(server.request("GET", "/health/live")[0], 200)
            # When another one takes over is not known here.
            status, headers, reply = server.post("/v1/completions", {"prompt": "x"})
            self.assertEqual(status, 503)
            self.assertNotIn("retry-after", headers)
            self.assertNotIn("retry-after", server.request("GET", "/health/ready")[1])
            reader = Reader(sock)
            status, _, body = reader.response()
            self.assertEqual(events(body)[-1], "[DONE]")
            self.assertTrue(reader.at_end())
        server.stop()

    def test_request_deadline(self):
        server = Server("--device-option", SCRIPT_OPTION, "--device-option", "step_ns=5000000",
                        "--run-ahead", "1", "--device-option", "credits=1")
        status, headers, data = server.request("POST", "/v1/completions", LONG,
                                               ["x-request-timeout-ms: 50"])
        self.assertEqual(status, 504, data)
        status, _, body = server.request("POST", "/v1/completions", dict(LONG, stream=True),
                                         ["x-request-timeout-ms: 3000"])
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(events(body)[-1])["error"]["code"], "deadline_exceeded")
        status, _, data = server.request("POST", "/v1/completions", LONG,
                                         ["x-request-timeout-ms: soon"])
        self.assertEqual(status, 400, data)
        server.stop()

    def test_drain_is_bounded(self):
        server = Server("--device-option", SCRIPT_OPTION, "--device-option", "step_ns=20000000",
                        "--run-ahead", "1", "--device-option", "credits=1",
                        "--drain-timeout", "1")
        with server.connect() as sock:
            sock.sendall(build("POST", "/v1/completions", dict(LONG, stream=True)))
            self.assertTrue(sock.recv(20))
            server.stop()

    def test_a_full_queue_is_429(self):
        server = Server("--device-option", SCRIPT_OPTION, "--device-option", "step_ns=5000000",
                        "--max-waiting", "1", "--max-sequences", "1")
        with server.connect() as running:
            running.sendall(build("POST", "/v1/completions", dict(LONG, stream=True)))
            self.assertTrue(running.recv(1))
            with server.connect() as waiting:
                waiting.sendall(build("POST", "/v1/completions", LONG))
                until(lambda: json.loads(server.request("GET", "/health/ready")[2])
                      ["active_requests"] == 2, "the second request does not wait")
                status, headers, reply = server.post("/v1/completions", dict(LONG, stream=True))
                self.assertEqual(status, 429, reply)
                self.assertIn("retry-after", headers)
        server.stop()

    def test_a_device_with_a_smaller_vocabulary_takes_the_tokens_it_has(self):
        server = Server("--device-option", "vocab=200")
        try:
            status, _, reply = server.post("/v1/completions", {"prompt": [97, 98], "max_tokens": 4,
                                                               "temperature": 0})
            self.assertEqual((status, reply.get("usage", {}).get("completion_tokens")), (200, 4),
                             reply)
            self.assertEqual(server.post("/v1/completions", {"prompt": [200]})[0], 400)
        finally:
            server.stop()

    def test_sampling_reaches_the_device(self):
        server = Server()

        def text(**fields):
            body = {"prompt": "hi", "max_tokens": 12, "seed": 1, **fields}
            _, _, reply = server.post("/v1/completions", body)
            return reply["choices"][0]["text"]

        self.assertEqual(text(logit_bias={str(ord("Z")): 100}), "Z" * 12)
        self.assertEqual(text(), text())
        self.assertNotEqual(text(), text(seed=2))
        self.assertEqual(text(temperature=0, seed=1), text(temperature=0, seed=2))
        self.assertEqual(text(temperature=0), text(top_k=1))
        server.stop()

    def test_tls(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        folder = folder.name
        cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-days",
                        "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True)
        server = Server("--device-option", SCRIPT_OPTION, "--tls-cert", cert, "--tls-key", key,
                        wait=False)
        context = ssl.create_default_context(cafile=cert)

        def connect():
            return context.wrap_socket(server.connect(), server_hostname="127.0.0.1")

        def ready():
            with connect() as sock:
                sock.sendall(build("GET", "/health/ready"))
                return Reader(sock).response()[0] == 200

        until(ready, "the server does not get ready")
        with connect() as sock:
            reader = Reader(sock)
            for stream in (True, False):
                sock.sendall(build("POST", "/v1/completions", {
                    "prompt": "x", "max_tokens": 50, "ignore_eos": True, "temperature": 0,
                    "stream": stream}))
                status, _, body = reader.response()
                self.assertEqual(status, 200)
            self.assertEqual(json.loads(body)["usage"]["completion_tokens"], 50)
        with connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 40000)
            self.assertEqual(Reader(sock).response()[0], 431)
        with server.connect() as plain:
            plain.sendall(build("GET", "/health/live"))
            self.assertNotIn(b"HTTP", plain.recv(100))
        server.stop()

    def test_bad_command_lines(self):
        for arguments, text in [(["--http", "x:y:z"], "--http"), (["--no-such"], "--no-such"),
                                (["--kv-type", "f64"], "--kv-type"),
                                (["--tls-cert", "a"], "TLS"), (["--config", "/none"], "/none")]:
            run = subprocess.run([os.environ["RETICLE"], "serve", *arguments], capture_output=True,
                                 timeout=60, check=False)
            self.assertEqual(run.returncode, 2, run.stderr)
            self.assertIn(text, run.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
