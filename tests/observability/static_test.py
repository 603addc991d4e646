"""What needs no server: the metrics' document, the dashboards' structure, rules with promtool, runbooks."""

import os
import pathlib
import re
import subprocess
import unittest

import dashboards

ROOT = dashboards.ROOT
HERE = pathlib.Path(__file__).parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
GENERATED = "<!-- What follows is the output of `reticle metrics`. -->\n"
TYPES = {"row", "stat", "timeseries", "table", "heatmap", "bargauge"}


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)


def catalogue():
    listing = run(os.environ["RETICLE"], "metrics")
    assert listing.returncode == 0, listing.stderr
    return listing.stdout


def anchors(path):
    """GitHub's anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Documents(unittest.TestCase):
    def test_metrics_md_is_what_the_program_says(self):
        head, _, generated = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition(GENERATED)
        self.assertTrue(head)
        self.assertEqual(generated, catalogue(), "write it again: see the head of docs/metrics.md")

    def test_every_alert_has_a_runbook_and_a_test(self):
        rules = (PROMETHEUS / "rules" / "alerts.yml").read_text(encoding="utf-8")
        tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("*alerts_test.yml"))
        known = anchors(ROOT / "docs" / "runbooks.md")
        alerts = re.split(r"^      - alert: ", rules, flags=re.M)[1:]
        self.assertGreater(len(alerts), 10)
        for alert in alerts:
            name = alert.split("\n", 1)[0]
            with self.subTest(name):
                self.assertRegex(alert, r"severity: (page|ticket)\n")
                self.assertRegex(alert, r"summary: .+\n +description: .+\n")
                document, anchor = re.search(r"runbook_url: (\S+)#(\S+)", alert).groups()
                self.assertEqual(document, "docs/runbooks.md")
                self.assertIn(anchor, known)
                fires = rf"alertname: {name}\n +exp_alerts:\n +- exp_labels"
                self.assertRegex(tests, fires, "no test shows that it fires")

    def test_every_runbook_says_what_to_check_and_to_do(self):
        text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
        named = set(re.findall(r"runbooks\.md#(\S+)", (PROMETHEUS / "rules" / "alerts.yml").read_text()))
        for section in re.split(r"^## ", text, flags=re.M)[1:]:
            title = section.split("\n", 1)[0]
            if title.lower().replace(" ", "-") in named:
                for part in ("**Means.**", "**Check.**", "**Do.**"):
                    self.assertIn(part, section, title)

    def test_documents_and_rules_name_metrics_that_exist(self):
        names = set(re.findall(r"^\| `([^`]+)`", catalogue(), re.M))
        recorded = set(re.findall(r"record: (\S+)", (PROMETHEUS / "rules" / "recording.yml").read_text()))
        known = names | recorded | {name + end for name in names for end in ("_bucket", "_sum", "_count")}
        texts = [ROOT / "docs" / "runbooks.md", *(PROMETHEUS / "rules").glob("*.yml"), *dashboards.FOLDER.glob("*.json")]
        for path in texts:
            text = re.sub(r"\$\{?\w+\}?", "", path.read_text(encoding="utf-8"))
            for name in re.findall(r"\b(?:vllm:|reticle_|reticle:|http_re|process_)[\w:]*\w", text):
                self.assertTrue(name in known, f"{path.name} names {name}")


class Grafana(unittest.TestCase):
    def test_structure(self):
        boards = dashboards.load()
        self.assertEqual(set(boards), {"reticle-overview", "reticle-devices", "reticle-free-tier",
                                       "reticle-latency-ledger"})
        self.assertEqual(len({board["title"] for board in boards.values()}), len(boards))
        for uid, board in boards.items():
            with self.subTest(uid):
                variables = dashboards.variables(board)
                self.assertEqual(variables["datasource"]["type"], "datasource")
                self.assertEqual(variables["datasource"]["query"], "prometheus")
                panels = list(dashboards.panels(board))
                self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
                self.assertGreaterEqual(board["schemaVersion"], 36)
                for panel in panels:
                    self.check_panel(panel, variables)
                self.check_layout(panels)

    def check_panel(self, panel, variables):
        self.assertIn(panel["type"], TYPES)
        self.assertTrue(panel["title"])
        if panel["type"] == "row":
            self.assertIn(panel.get("repeat", "datasource"), variables)
            return
        self.assertEqual(panel["datasource"]["uid"], "${datasource}")
        self.assertTrue(panel["targets"])
        refs = [target["refId"] for target in panel["targets"]]
        self.assertEqual(len(set(refs)), len(refs))
        for target in panel["targets"]:
            self.assertEqual(target["datasource"]["uid"], "${datasource}")
            for name in re.findall(r"\$\{?(\w+)", target["expr"]):
                self.assertIn(name, {*variables, "__rate_interval", "__range"})

    def check_layout(self, panels):
        taken = set()
        for panel in panels:
            box = panel["gridPos"]
            self.assertLessEqual(box["x"] + box["w"], 24)
            cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} lies over another panel")
            taken |= cells

    def test_devices_have_a_row_a_card(self):
        rows = [panel for panel in dashboards.load()["reticle-devices"]["panels"] if panel.get("repeat")]
        self.assertEqual([row["repeat"] for row in rows], ["card"])

    def test_provisioning_finds_them(self):
        provisioning = ROOT / "deploy" / "grafana" / "provisioning"
        provider = (provisioning / "dashboards" / "reticle.yaml").read_text()
        self.assertIn("path: /var/lib/grafana/dashboards\n", provider)
        self.assertIn("type: prometheus\n", (provisioning / "datasources" / "prometheus.yaml").read_text())


class Prometheus(unittest.TestCase):
    def check(self, *command):
        done = run("promtool", *command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_configuration_and_rules(self):
        self.check("check", "config", PROMETHEUS / "prometheus.yml")
        self.check("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))

    def test_alerts_fire_when_they_should(self):
        self.check("test", "rules", *sorted(HERE.glob("*alerts_test.yml")))


if __name__ == "__main__":
    unittest.main()
