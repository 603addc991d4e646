"""Every query of every panel, and every rule, against a real Prometheus that scrapes a live server under load."""

import math
import shutil
import time
import unittest

import dashboards
import live

# Metrics that vLLM's own dashboards ask for; those of features that no server here has (speculation, several KV stores,
# images) are left out.
VLLM = """vllm:cache_config_info vllm:e2e_request_latency_seconds_bucket vllm:generation_tokens_total
vllm:inter_token_latency_seconds_bucket vllm:iteration_tokens_total_bucket vllm:kv_cache_usage_perc
vllm:lora_requests_info vllm:num_preemptions_total vllm:num_requests_running vllm:num_requests_waiting
vllm:num_requests_waiting_by_reason vllm:prefix_cache_hits_total vllm:prefix_cache_queries_total
vllm:prompt_tokens_by_source_total vllm:prompt_tokens_cached_total vllm:prompt_tokens_total
vllm:request_decode_time_seconds_sum vllm:request_generation_tokens_bucket vllm:request_inference_time_seconds_count
vllm:request_max_num_generation_tokens_sum vllm:request_params_max_tokens_bucket vllm:request_params_n_bucket
vllm:request_prefill_time_seconds_sum vllm:request_prompt_tokens_bucket vllm:request_queue_time_seconds_sum
vllm:request_success_total vllm:request_time_per_output_token_seconds_bucket vllm:time_to_first_token_seconds_bucket
http_requests_total http_request_duration_seconds_bucket""".split()


def has_data(result):
    return any(not math.isnan(float(series["value"][1])) for series in result)


class Dashboards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        assert shutil.which("prometheus"), "the package prometheus is not installed"
        # So that some of the free tier is refused.
        cls.tier = live.FreeTier("--tier-limit", "free.requests_per_minute=60")
        cls.addClassCleanup(cls.tier.stop)
        cls.prometheus = live.Prometheus(cls.tier.server.port)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.load = live.Load(cls.tier)
        cls.addClassCleanup(cls.load.stop)

    def wait_for(self, queries, limit=45):
        """Asks until each has returned data once."""
        missing, deadline = list(queries), time.monotonic() + limit
        while missing:
            missing = [query for query in missing if not has_data(self.prometheus.query(query[-1]))]
            if missing and time.monotonic() > deadline:
                self.fail("no data: " + "\n".join(map(str, missing)))
            if missing:
                time.sleep(0.5)

    def test_every_panel_returns_data(self):
        queries = []
        for uid, board in dashboards.load().items():
            values = dashboards.everything(board, rate_interval="10s", span="1m")
            for panel in dashboards.panels(board):
                for target in panel.get("targets", []):
                    query = dashboards.substitute(target["expr"], values)
                    self.assertNotIn("$", query)
                    queries.append((uid, panel["title"], query))
        self.assertGreater(len(queries), 80)
        self.wait_for(queries)
        self.assertEqual(self.load.wrong, [])
        # The load is what it should be: served, refused by quota, by validation, by key.
        self.assertGreaterEqual(set(self.load.statuses), {200, 400, 401, 429})

    def test_variables_have_values(self):
        for board in dashboards.load().values():
            values = dashboards.everything(board, rate_interval="10s", span="1m")
            for name, variable in dashboards.variables(board).items():
                if variable["type"] != "query":
                    continue
                inner, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
                query = f"count by ({label}) ({dashboards.substitute(inner, values)})"
                self.wait_for([(board["uid"], name, query)])
                self.assertTrue(all(label in series["metric"] for series in self.prometheus.query(query)))

    def test_rules_record_and_none_fails(self):
        names = [rule["name"] for group in self.prometheus.get("rules?type=record")["groups"] for rule in group["rules"]]
        self.assertIn("reticle:request_errors:ratio_rate5m", names)
        self.wait_for([(name,) for name in names])
        for group in self.prometheus.get("rules")["groups"]:
            for rule in group["rules"]:
                self.assertEqual(rule["health"], "ok", rule)

    def test_what_vllms_dashboards_ask_for_is_there(self):
        self.wait_for([(name,) for name in VLLM])
        self.wait_for([('http_requests_total{status="2xx"}',), ('http_requests_total{status="4xx"}',)])

    def test_scrapes_succeed_and_no_label_names_an_account(self):
        self.wait_for([("up",)])
        targets = self.prometheus.get("targets?state=active")["activeTargets"]
        errors = {target["lastError"] for target in targets if target["labels"]["job"] == "reticle"}
        self.assertEqual(errors, {""})
        text = self.tier.server.request("GET", "/metrics")[2].decode()
        for key in self.tier.keys.values():
            self.assertNotIn(key[4:12], text)
        self.assertNotIn("example.org", text)


if __name__ == "__main__":
    unittest.main()
