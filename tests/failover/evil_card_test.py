"""A server whose card lies (backends/hardwired/card/evil_card.cc): it may refuse, and must live.

RETICLE=... EVIL_CARD=... python3 evil_card_test.py
"""

import json
import os
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "integration"))
from serving import Server  # noqa: E402

CLIENTS, REQUESTS = 6, 40


class EvilCardTest(unittest.TestCase):
    def test_a_server_outlives_what_its_cards_say(self):
        server = Server("--device", "taalas-hc1", "--cards", "2", "--fence-after", "0", "--watchdog-ms", "200",
                        "--failover-timeout-ms", "3000", "--log-level", "error",
                        *[part for option in ("compute=synthetic", "vocab=2048", "card=process",
                                              "card_program=" + os.environ["EVIL_CARD"])
                          for part in ("--device-option", option)], fake=False)
        statuses, wrong = [], []

        def client(number):
            for i in range(REQUESTS):
                body = {"model": "house", "prompt": [1, 2, number], "max_tokens": 40, "seed": i, "top_k": 0,
                        "logprobs": 2 if i % 2 else None, "stream": i % 3 == 0, "n": 1 + i % 2}
                try:
                    status, _, data = server.request("POST", "/v1/completions", body)
                    statuses.append(status)
                    if status == 503:
                        time.sleep(0.005)
                    if not body["stream"]:
                        json.loads(data)
                except (OSError, ValueError, AssertionError) as error:
                    wrong.append((number, i, repr(error)))

        clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(len(statuses), CLIENTS * REQUESTS)
        self.assertLessEqual(set(statuses), {200, 429, 500, 503})
        self.assertEqual(server.request("GET", "/health/live")[0], 200)
        self.assertGreater(server.gauge("reticle_device_losses_total"), 0)
        server.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)
