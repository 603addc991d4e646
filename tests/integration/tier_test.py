"""Accounts, keys, quotas and HC1's own API, against a real process on the fake device."""

import concurrent.futures
import json
import os
import time
import unittest
import urllib.parse

import taalas_contract
from serving import Reader, Server, build, events
from tiers import CHAT, Tier, bearer, until

GENERATE = {"prompt": [{"role": "user", "content": "hi"}], "max_output_tokens": 4}


class Accounts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tier = Tier()
        made = cls.tier.create()
        cls.key, cls.organisation = made["key"], made["organisation"]
        cls.server = cls.tier.server("--tier-limit", "free.requests_per_minute=6",
                                     "--tier-limit", "free.tokens_per_minute=5000",
                                     "--tier-limit", "free.max_output=16",
                                     "--applications-per-hour", "3",
                                     "--cors-origin", "https://page.example")

    @classmethod
    def tearDownClass(cls):
        log = cls.server.stop()
        assert "rtk_" not in log, "a key is in the log"

    def post(self, path, body, key=None, headers=()):
        status, got, data = self.server.request(
            "POST", path, body, (bearer(key) if key else []) + list(headers))
        return status, got, json.loads(data)

    def chat(self, key, **more):
        return self.post("/v1/chat/completions", {**CHAT, **more}, key)

    def test_a_key_is_needed_and_a_bad_one_tells_nothing(self):
        for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", {}),
                           ("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": []})):
            status, headers, answer = self.post(path, body)
            self.assertEqual((status, answer["error"]["code"]), (401, "missing_api_key"), path)
            self.assertEqual(headers["www-authenticate"], "Bearer")
        shown = self.key[:-1] + ("a" if self.key[-1] != "a" else "b")
        for wrong in ("x", "rtk_", shown, self.key[:12], "Basic " + self.key):
            status, _, answer = self.chat(wrong)
            self.assertEqual((status, answer["error"]["code"]), (401, "invalid_api_key"), wrong)
            self.assertNotIn(wrong, json.dumps(answer)) if len(wrong) > 8 else None
        self.assertEqual(self.server.request("GET", "/v1/models")[0], 401)
        self.assertEqual(self.server.request("GET", "/health/live")[0], 200)
        self.assertEqual(self.chat(self.key)[0], 200)

    def test_a_refused_body_is_not_read_and_the_connection_goes_on(self):
        with self.server.connect() as sock:
            reader = Reader(sock)
            sock.sendall(build("POST", "/v1/chat/completions", "x" * 5000))
            self.assertEqual(reader.response()[0], 401)
            sock.sendall(build("POST", "/v1/chat/completions", CHAT, bearer(self.key)))
            self.assertEqual(reader.response()[0], 200)
        with self.server.connect() as sock:
            sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n")
            self.assertEqual(Reader(sock).response()[0], 401)

    def test_rate_limit_headers_of_both_conventions(self):
        made = self.tier.create("free")
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(made["key"]))[0] == 200)
        status, headers, _ = self.chat(made["key"], max_tokens=10)
        self.assertEqual(status, 200)
        for name in ("limit", "remaining", "reset"):
            for suffix in ("requests", "tokens", "requests-day", "tokens-minute"):
                self.assertIn(f"x-ratelimit-{name}-{suffix}", headers)
        self.assertEqual(headers["x-ratelimit-limit-tokens"], "5000")
        self.assertEqual(headers["x-ratelimit-limit-requests"], "14400")
        self.assertEqual(headers["x-ratelimit-remaining-requests"], "14399")
        self.assertLess(int(headers["x-ratelimit-remaining-tokens"]), 5000)
        self.assertNotIn("retry-after", headers)
        # Errors and streams carry them too.
        status, headers, _ = self.chat(made["key"], temperature=9)
        self.assertEqual((status, "x-ratelimit-limit-tokens" in headers), (400, True))
        status, headers, _ = self.server.request(
            "POST", "/v1/chat/completions", {**CHAT, "stream": True}, bearer(made["key"]))
        self.assertEqual((status, "x-ratelimit-limit-tokens" in headers), (200, True))
        # So does what is nowhere, or open to all; there a key that is not good changes nothing.
        for path, wanted in (("/v1/nothing", 404), ("/health", 200), ("/docs", 200), ("/apply", 200)):
            for key, limits in ((made["key"], True), ("rtk_" + "x" * 40, False)):
                status, headers, _ = self.server.request("GET", path, None, bearer(key))
                self.assertEqual((status, "x-ratelimit-limit-tokens" in headers), (wanted, limits), path)

    def test_retry_after_is_true(self):
        made = self.tier.create("free")
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(made["key"]))[0] == 200)
        self.tier.keys("limits", f"organisation={made['organisation']}", "requests_per_minute=12",
                       "concurrent=0")
        refused = None
        while refused is None:
            status, headers, answer = self.chat(made["key"])
            if status == 429:
                refused = headers, answer
            else:
                self.assertEqual(status, 200)
        headers, answer = refused
        self.assertEqual(answer["error"]["type"], "rate_limit_error")
        self.assertGreaterEqual(int(headers["retry-after"]) * 1000, int(headers["retry-after-ms"]))
        time.sleep(int(headers["retry-after-ms"]) / 1000)
        self.assertEqual(self.chat(made["key"])[0], 200)

    def test_tokens_are_reserved_and_given_back(self):
        made = self.tier.create("free")
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(made["key"]))[0] == 200)
        self.tier.keys("limits", f"organisation={made['organisation']}", "tokens_per_minute=60",
                       "requests_per_minute=0", "max_output=0")
        def known():
            headers = self.server.request("GET", "/v1/models", None, bearer(made["key"]))[1]
            return headers.get("x-ratelimit-limit-tokens") == "60"
        until(known)
        status, headers, answer = self.chat(made["key"], max_tokens=100)
        self.assertEqual((status, answer["error"]["code"]), (413, "request_too_large"))
        self.assertNotIn("retry-after", headers)
        # Stops at once: nearly all of the 40 tokens that were reserved come back.
        for _ in range(3):
            status, headers, answer = self.post(
                "/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 40,
                                    "min_tokens": 0, "logit_bias": {"257": 100}}, made["key"])
            self.assertEqual(status, 200, answer)
            self.assertLess(answer["usage"]["completion_tokens"], 40)

    def test_a_body_that_is_wrong_takes_a_turn(self):
        made = self.tier.create("free")
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(made["key"]))[0] == 200)
        def left():
            headers = self.server.request("GET", "/v1/models", None, bearer(made["key"]))[1]
            return int(headers["x-ratelimit-remaining-requests"])
        for more in ({"temperatur": 1}, {"temperature": 9}, {"max_tokens": "x"}):
            before = left()
            self.assertEqual(self.chat(made["key"], **more)[0], 400)
            self.assertEqual(left(), before - 1)

    def test_limits_of_a_tier(self):
        made = self.tier.create("free")
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(made["key"]))[0] == 200)
        status, _, answer = self.chat(made["key"], max_tokens=17)
        self.assertEqual((status, answer["error"]["param"]), (400, "max_tokens"))
        body = {**CHAT}
        del body["max_tokens"]
        status, _, answer = self.post("/v1/chat/completions", body, made["key"])
        self.assertEqual(status, 200)
        self.assertLessEqual(answer["usage"]["completion_tokens"], 16)
        status, _, answer = self.chat(made["key"], priority=-5)
        self.assertEqual((status, answer["error"]["param"]), (400, "priority"))
        self.tier.keys("limits", f"organisation={made['organisation']}", "models=other")
        until(lambda: self.chat(made["key"])[0] == 403)

    def test_service_tier_is_chosen_and_told(self):
        free = self.tier.create("free")["key"]
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(free))[0] == 200)
        for key, asked, given in ((self.key, "auto", "default"), (self.key, "flex", "flex"),
                                  (self.key, "priority", "priority"), (free, "priority", "default"),
                                  (free, "flex", "flex")):
            status, _, answer = self.chat(key, service_tier=asked)
            self.assertEqual((status, answer.get("service_tier")), (200, given), asked)
        status, _, answer = self.chat(self.key, service_tier="gold")
        self.assertEqual((status, answer["error"]["param"]), (400, "service_tier"))

    def test_revocation_within_a_second(self):
        made = self.tier.create()
        until(lambda: self.chat(made["key"])[0] == 200)
        self.tier.keys("revoke", f"key={made['id']}")
        until(lambda: self.chat(made["key"])[0] == 401)

    def test_rotation_and_expiry(self):
        made = self.tier.create(expires_in=3600)
        new = self.tier.keys("rotate", f"key={made['id']}", "grace=3600")
        self.assertEqual(new["organisation"], made["organisation"])
        self.assertEqual(new["expires_at"], made["expires_at"])
        until(lambda: self.chat(new["key"])[0] == 200)
        self.assertEqual(self.chat(made["key"])[0], 200)
        last = self.tier.keys("rotate", f"key={new['id']}")
        until(lambda: self.chat(new["key"])[0] == 401)
        until(lambda: self.chat(last["key"])[0] == 200)
        # On a machine that is very busy a short time may pass before the key is known.
        for seconds in (2, 8, 30):
            soon = self.tier.create(expires_in=seconds)
            end = time.monotonic() + seconds
            good = False
            while not good and time.monotonic() < end:
                good = self.chat(soon["key"])[0] == 200
            until(lambda key=soon["key"]: self.chat(key)[0] == 401, 60)
            if good:
                break
        self.assertTrue(good)

    def test_usage_of_the_keys_owner(self):
        made = self.tier.create()
        second = self.tier.keys("create", f"organisation={made['organisation']}", "label=second")
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(second["key"]))[0] == 200)
        total = 0
        for key in (made["key"], second["key"]):
            total += self.chat(key)[2]["usage"]["total_tokens"]
        def days():
            data = self.server.request("GET", "/v1/usage", None, bearer(made["key"]))[2]
            return json.loads(data)["days"]
        self.assertEqual(sum(day["requests"] for day in days()), 2)
        self.assertEqual({day["key"] for day in days()}, {made["id"], second["id"]})
        self.assertEqual(sum(day["prompt_tokens"] + day["cached_tokens"] + day["completion_tokens"]
                             for day in days()), total)
        listed = self.tier.keys("usage", f"organisation={made['organisation']}")["data"]
        self.assertEqual(sum(row["requests"] for row in listed), 2)

    def test_cached_prompt_tokens_are_counted_apart(self):
        made = self.tier.create()
        until(lambda: self.server.request("GET", "/v1/models", None, bearer(made["key"]))[0] == 200)
        body = {"model": "tiny", "prompt": "cache me " * 20, "max_tokens": 1}
        for _ in range(2):
            status, _, answer = self.post("/v1/completions", body, made["key"])
            self.assertEqual(status, 200)
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.assertGreater(cached, 0)
        data = self.server.request("GET", "/v1/usage", None, bearer(made["key"]))[2]
        day = json.loads(data)["days"][0]
        self.assertEqual(day["cached_tokens"], cached)
        self.assertEqual(day["prompt_tokens"], 2 * answer["usage"]["prompt_tokens"] - cached)

    def test_cors_only_for_configured_origins(self):
        page = "Origin: https://page.example"
        for origin, expected in ((page, "https://page.example"), ("Origin: https://other", None)):
            _, headers, _ = self.server.request("GET", "/health/live", None, [origin])
            self.assertEqual(headers.get("access-control-allow-origin"), expected)
        status, headers, _ = self.server.request("OPTIONS", "/v1/chat/completions", None,
                                                 [page, "Access-Control-Request-Method: POST"])
        self.assertEqual(status, 200)
        self.assertIn("authorization", headers["access-control-allow-headers"])
        status, _, _ = self.server.request("OPTIONS", "/v1/chat/completions", None,
                                           ["Origin: https://other",
                                            "Access-Control-Request-Method: POST"])
        self.assertEqual(status, 405)

    def test_metrics_hold_no_key(self):
        self.chat(self.key)
        _, _, text = self.server.request("GET", "/metrics")
        self.assertNotIn(self.key[:12], text.decode())
        self.assertIn("reticle_keys_refused_total", text.decode())
        stored = open(self.tier.store, "rb").read() + open(self.tier.store + "-wal", "rb").read()
        self.assertNotIn(self.key.encode(), stored)
        self.assertIn(self.key[:12].encode(), stored)
        self.assertEqual(os.stat(self.tier.store + ".secret").st_mode & 0o777, 0o600)

    def test_mistakes_on_the_command_line(self):
        for words, why in ((["create"], "name"), (["revoke", "key=nobody"], "nobody"),
                           (["create", "name=A", "email=no"], "e-mail"), (["fly"], "fly"),
                           (["limits", f"organisation={self.organisation}", "speed=1"], "speed"),
                           (["create", "name=A", "email=a@b", "tier=gold"], "gold")):
            done = self.tier.run(*words)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(why, done.stderr)


class Applications(unittest.TestCase):
    FORM = {"email": "a@example.org", "name": "A", "use_case": "research", "terms": True}

    def setUp(self):
        self.tier = Tier()

    def test_apply_approve_claim(self):
        server = self.tier.server("--applications-per-hour", "3")
        status, headers, page = server.request("GET", "/apply")
        self.assertEqual(status, 200)
        self.assertIn("default-src 'none'", headers["content-security-policy"])
        self.assertNotIn(b"<script", page)
        for field in ("email", "name", "use_case", "terms"):
            self.assertIn(f'<label for="{field}"'.encode(), page)

        status, headers, answer = server.post("/v1/apply", self.FORM)
        self.assertEqual((status, headers["cache-control"]), (202, "no-store"))
        claim = answer["claim"]
        self.assertEqual(server.post("/v1/apply/claim", {"claim": claim})[2]["status"], "pending")
        waiting = self.tier.keys("applications")["data"]
        self.assertEqual([row["email"] for row in waiting], ["a@example.org"])
        self.tier.keys("approve", f"id={waiting[0]['id']}")
        status, _, answer = server.post("/v1/apply/claim", {"claim": claim})
        self.assertEqual(status, 200)
        self.assertEqual(server.request("POST", "/v1/chat/completions", CHAT,
                                        bearer(answer["key"]))[0], 200)
        self.assertEqual(server.post("/v1/apply/claim", {"claim": claim})[0], 404)

        # By page. An address that has applied before is answered in the same way as a new one.
        answers = []
        for email in ("a@example.org", "b@example.org"):
            body = urllib.parse.urlencode({**self.FORM, "email": email, "terms": "yes",
                                           "action": "apply", "name": "<b>"})
            status, _, page = server.request(
                "POST", "/apply", body, ["Content-Type: application/x-www-form-urlencoded"])
            self.assertEqual(status, 202)
            code = page.split(b"<code>")[1].split(b"</code>")[0]
            answers.append(page.replace(code, b"CLAIM"))
        self.assertEqual(answers[0], answers[1])
        # The fourth of one address within the hour.
        status, headers, answer = server.post("/v1/apply", self.FORM)
        self.assertEqual(status, 429)
        self.assertIn("retry-after", headers)
        server.stop()

    def test_auto_approval_has_its_cap_and_forms_their_limits(self):
        server = self.tier.server("--applications-per-hour", "0", "--auto-approve", "1")
        claims = [server.post("/v1/apply", self.FORM)[2]["claim"] for _ in range(2)]
        self.assertEqual(server.post("/v1/apply/claim", {"claim": claims[0]})[0], 200)
        self.assertEqual(server.post("/v1/apply/claim", {"claim": claims[1]})[0], 202)
        for wrong in ({**self.FORM, "email": "no"}, {**self.FORM, "terms": False},
                      {**self.FORM, "use_case": "x" * 5000}, {**self.FORM, "more": 1}):
            self.assertEqual(server.post("/v1/apply", wrong)[0], 400, wrong.keys())
        self.assertEqual(server.post("/v1/apply", {**self.FORM, "use_case": "x" * 20000})[0], 413)
        for body in ("action=apply", "%zz=1", "email=a&email=b", "action=claim&claim=no"):
            status, _, page = server.request(
                "POST", "/apply", body, ["Content-Type: application/x-www-form-urlencoded"])
            self.assertIn(status, (400, 404), body)
            self.assertIn(b'role="alert"', page)
        server.stop()


class WithoutAccounts(unittest.TestCase):
    def test_nothing_changes(self):
        server = Server()
        self.assertEqual(server.post("/v1/chat/completions", CHAT)[0], 200)
        self.assertEqual(server.request("GET", "/apply")[0], 404)
        self.assertEqual(server.request("GET", "/v1/usage")[0], 404)
        _, headers, _ = server.request("GET", "/v1/models", None, ["Origin: https://a.example"])
        self.assertFalse([name for name in headers
                          if name.startswith(("x-ratelimit", "access-control"))])
        server.stop()


class Taalas(unittest.TestCase):
    """Every request and reply against the contract, written down in taalas_contract.py."""

    @classmethod
    def setUpClass(cls):
        cls.tier = Tier()
        cls.key = cls.tier.create()["key"]
        cls.server = cls.tier.server()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def generate(self, body, valid=True):
        self.assertEqual(taalas_contract.fits(body, taalas_contract.GENERATE_REQUEST), valid, body)
        status, headers, data = self.server.request("POST", "/generate", body, bearer(self.key))
        if status == 422:
            taalas_contract.check(json.loads(data), taalas_contract.VALIDATION_ERROR)
        return status, headers, data

    def test_health_is_open(self):
        status, _, data = self.server.request("GET", "/health")
        self.assertEqual(status, 200)
        taalas_contract.check(json.loads(data), taalas_contract.HEALTH)
        self.assertEqual(json.loads(data),
                         {"status": "healthy", "queue_size": 0, "current_adapter": "none"})

    def test_health_names_the_adapter(self):
        server = self.tier.server("--adapter", "poet=/dev/null")
        self.assertEqual(json.loads(server.request("GET", "/health")[2])["current_adapter"], "poet")
        status, _, data = server.request("POST", "/generate", {**GENERATE, "model": "poet"},
                                         bearer(self.key))
        self.assertEqual(status, 200, data)
        server.stop()

    def test_unauthorized_bodies(self):
        for path, method in (("/generate", "POST"), ("/models", "GET")):
            body = GENERATE if method == "POST" else None
            status, _, data = self.server.request(method, path, body)
            self.assertEqual((status, json.loads(data)), (401, {"detail": "Unauthorized"}))
            status, _, data = self.server.request(method, path, body, bearer("bad"))
            self.assertEqual((status, json.loads(data)),
                             (401, {"detail": "Unauthorized: Invalid API Key"}))

    def test_models(self):
        status, _, data = self.server.request("GET", "/models", None, bearer(self.key))
        self.assertEqual((status, json.loads(data)["data"][0]["id"]), (200, "tiny"))

    def test_generate(self):
        status, headers, data = self.generate(GENERATE)
        self.assertEqual(status, 200, data)
        answer = json.loads(data)
        self.assertLessEqual(answer["usage"]["completion_tokens"], 4)
        self.assertIn("x-ratelimit-limit-tokens", headers)
        # One candidate: the same bytes again.
        again = json.loads(self.generate({**GENERATE, "topk": 1})[2])
        self.assertEqual(answer["choices"], again["choices"])

    def test_generate_streams(self):
        body = {**GENERATE, "stream": True, "ignore_eos": True, "max_output_tokens": 8,
                "stream_options": {"include_usage": True}}
        status, headers, data = self.generate(body)
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/event-stream"))
        got = events(data)
        self.assertEqual(got[-1], "[DONE]")
        self.assertEqual(json.loads(got[-2])["usage"]["completion_tokens"], 8)

    def test_lengths_stops_and_logprobs(self):
        status, _, data = self.generate({**GENERATE, "min_output_tokens": 6, "max_output_tokens": 6})
        self.assertEqual(status, 200, data)
        self.assertEqual(json.loads(data)["usage"]["completion_tokens"], 6)
        status, _, data = self.generate({**GENERATE, "logprobs": True, "top_logprobs": 2, "topk": 8,
                                         "temperature": 0.7})
        self.assertEqual(status, 200, data)
        content = json.loads(data)["choices"][0]["logprobs"]["content"]
        self.assertTrue(all(len(token["top_logprobs"]) == 2 for token in content))
        for stop in ("x", ["x", "y"], None):
            self.assertEqual(self.generate({**GENERATE, "stop": stop})[0], 200)

    def test_echo(self):
        plain = json.loads(self.generate(GENERATE)[2])["choices"][0]["message"]["content"]
        status, _, data = self.generate({**GENERATE, "echo": True})
        self.assertEqual(status, 200, data)
        text = json.loads(data)["choices"][0]["message"]["content"]
        self.assertTrue(text.endswith(plain) and "hi" in text[:len(text) - len(plain)], text)

    def test_all_that_the_contract_allows_is_taken(self):
        for more in ({"tools": None}, {"tool_choice": "auto"}, {"metadata": {"a": 1}}, {"seed": 3},
                     {"model": "llama3.1-8B"}, {"model": "tiny"}, {"stream": None},
                     {"system_prompt_version": "offline"}, {"temperature": None},
                     {"max_output_tokens": 0, "stop": ["a"]}, {"guided_json": None},
                     {"stream_options": None}, {"top_logprobs": 20}, {"unknown": [1, 2]}):
            status, _, data = self.generate({**GENERATE, **more})
            self.assertEqual(status, 200, (more, data))

    def test_what_the_contract_forbids_is_422_at_its_place(self):
        for more, loc in (({"topk": 9}, "topk"), ({"topk": 0}, "topk"), ({"topk": "1"}, "topk"),
                          ({"temperature": 2.5}, "temperature"), ({"stream": 1}, "stream"),
                          ({"max_output_tokens": -1}, "max_output_tokens"),
                          ({"min_output_tokens": -1}, "min_output_tokens"),
                          ({"top_logprobs": 21}, "top_logprobs"), ({"echo": None}, "echo"),
                          ({"prompt": "text"}, "prompt"), ({"prompt": None}, "prompt"),
                          ({"model": 1}, "model"), ({"stop": 1}, "stop"),
                          ({"metadata": 1}, "metadata"), ({"tools": 1}, "tools"),
                          ({"stream_options": 1}, "stream_options"),
                          ({"ignore_eos": "yes"}, "ignore_eos")):
            status, _, data = self.generate({**GENERATE, **more}, valid=False)
            self.assertEqual(status, 422, (more, data))
            self.assertEqual(json.loads(data)["detail"][0]["loc"][:2], ["body", loc])
        status, _, data = self.generate({}, valid=False)
        self.assertEqual((status, json.loads(data)["detail"][0]["type"]), (422, "missing"))
        status, _, data = self.server.request("POST", "/generate", "{", bearer(self.key))
        self.assertEqual((status, json.loads(data)["detail"][0]["type"]), (422, "json_invalid"))

    def test_what_is_not_offered_is_refused_by_name(self):
        for more, loc in (({"guided_json": {"type": "object"}}, "guided_json"),
                          ({"guided_regex": "a+"}, "guided_regex"),
                          ({"response_format": {"type": "json_object"}}, "response_format"),
                          ({"tool_choice": "required"}, "tool_choice"),
                          ({"system_prompt_version": "v2"}, "system_prompt_version"),
                          ({"tool_name": "search"}, "tool_name")):
            status, _, data = self.generate({**GENERATE, **more})
            self.assertEqual(status, 422, (more, data))
            self.assertEqual(json.loads(data)["detail"][0]["loc"], ["body", loc])

    def test_several_mistakes_are_told_at_once(self):
        status, _, data = self.generate({**GENERATE, "topk": 9, "temperature": 3}, valid=False)
        self.assertEqual(status, 422)
        self.assertEqual({item["loc"][1] for item in json.loads(data)["detail"]},
                         {"topk", "temperature"})

    def test_a_prompt_beyond_the_context_is_an_error_with_its_numbers(self):
        body = {"prompt": [{"role": "user", "content": "x" * 20000}]}
        status, _, data = self.generate(body)
        self.assertEqual(status, 422)
        self.assertEqual(json.loads(data)["detail"][0]["type"], "context_length_exceeded")

    def test_v1_takes_what_its_contract_allows(self):
        chat = {"model": "llama3.1-8B", "max_tokens": 3,
                "messages": [{"role": "user", "content": "hi"}]}
        completion = {"model": "llama3.1-8B", "prompt": "hi", "max_tokens": 3}
        common = [{"temperature": 0}, {"temperature": 2}, {"top_p": 0.5}, {"top_p": None},
                  {"stream": False}, {"stop": "x"}, {"stop": ["x", "y"]}, {"stop": None},
                  {"ignore_eos": True}, {"stream_options": None},
                  {"stream": True, "stream_options": {"include_usage": True}}]
        of_chat = [{"n": 2}, {"n": None}, {"max_tokens": None, "max_completion_tokens": 3},
                   {"presence_penalty": -2}, {"frequency_penalty": 2}, {"logit_bias": {"65": 1.5}},
                   {"user": "u"}, {"tools": None}, {"tool_choice": "auto", "tools": [
                       {"type": "function", "function": {"name": "f", "description": "d"}}]},
                   {"logprobs": True, "top_logprobs": 20}, {"logprobs": False},
                   {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}]
        of_completions = [{"echo": True}, {"echo": None}, {"logprobs": 5}, {"logprobs": None},
                          {"prompt": ["a", "b"]}, {"prompt": [65, 66]}, {"prompt": [[65], [66]]}]
        for path, base, contract, more in (
                ("/v1/chat/completions", chat, taalas_contract.V1_CHAT_REQUEST, of_chat),
                ("/v1/completions", completion, taalas_contract.V1_COMPLETIONS_REQUEST,
                 of_completions)):
            tried = set(base)
            for change in [{}] + common + more:
                body = {**base, **change}
                tried |= set(change)
                taalas_contract.check(body, contract)
                status, headers, data = self.server.request("POST", path, body, bearer(self.key))
                self.assertEqual(status, 200, (path, change, data))
                if not body.get("stream"):
                    self.assertEqual(headers["content-type"], "application/json")
                    json.loads(data)
            self.assertEqual(tried, set(contract["properties"]))
            for change in ({"temperature": 3}, {"top_p": 2}, {"max_tokens": -1}, {"stop": 1},
                           {"ignore_eos": "yes"}, {"stream": 1}):
                self.assertFalse(taalas_contract.fits({**base, **change}, contract), change)
                status, _, data = self.server.request("POST", path, {**base, **change},
                                                      bearer(self.key))
                self.assertEqual((status, json.loads(data)["error"]["param"]),
                                 (400, list(change)[0]))

    def test_v1_has_openais_errors(self):
        status, _, data = self.server.request("POST", "/v1/chat/completions",
                                              {**CHAT, "temperature": 3}, bearer(self.key))
        self.assertEqual((status, json.loads(data)["error"]["param"]), (400, "temperature"))


class Flood(unittest.TestCase):
    def test_refused_requests_do_not_disturb_streams(self):
        tier = Tier()
        key = tier.create()["key"]
        server = tier.server()
        bad = build("POST", "/v1/chat/completions", CHAT) * 100
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            socks = [server.connect() for _ in range(64)]
            for sock in socks:
                sock.setblocking(False)
            stop = False

            def flood(part):
                while not stop:
                    for sock in part:
                        try:
                            sock.send(bad)
                        except (BlockingIOError, ConnectionError):
                            pass
                    time.sleep(0.001)
            jobs = [pool.submit(flood, socks[i::2]) for i in range(2)]
            try:
                for _ in range(20):
                    status, _, data = server.request(
                        "POST", "/v1/chat/completions", {**CHAT, "stream": True}, bearer(key))
                    self.assertEqual(status, 200)
                    self.assertEqual(events(data)[-1], "[DONE]")
                # Each connection was answered a few times, not as fast as it asks.
                refused = server.gauge("reticle_keys_refused_total")
                self.assertGreaterEqual(refused, 64)
                self.assertLess(refused, 64 * 1000)
            finally:
                stop = True
                for job in jobs:
                    job.result()
                for sock in socks:
                    sock.close()
        server.stop()


if __name__ == "__main__":
    unittest.main()
