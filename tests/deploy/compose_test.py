#!/usr/bin/env python3
"""deploy/compose.yaml against the published Compose specification (Debian's docker-compose carries it), and the
Dockerfile and the services against what they promise."""

import copy
import json
import pathlib
import re
import unittest

import compose.config
import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = pathlib.Path(compose.config.__file__).parent / "compose_spec.json"


class ComposeTest(unittest.TestCase):
    def setUp(self):
        self.file = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
        self.services = self.file["services"]
        schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
        self.validator = jsonschema.Draft7Validator(schema)

    def test_agrees_with_the_specification(self):
        errors = [f"{list(e.path)}: {e.message}" for e in self.validator.iter_errors(self.file)]
        self.assertEqual(errors, [])
        for service, field, value in [("redis", "healthchek", {}), ("redis", "read_only", "perhaps"),
                                      ("grafana", "ports", {"3000": 3000})]:
            wrong = copy.deepcopy(self.file)
            wrong["services"][service][field] = value
            self.assertFalse(self.validator.is_valid(wrong), field)

    def test_has_the_four_services(self):
        self.assertEqual(set(self.services), {"reticle", "prometheus", "grafana", "redis"})

    def test_images_are_pinned(self):
        for name, service in self.services.items():
            self.assertRegex(service["image"], r":v?\d+\.\d+\.\d+[-a-z0-9]*$", name)

    def test_services_are_hardened_and_watched(self):
        for name, service in self.services.items():
            self.assertTrue(service["read_only"], name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertIn("no-new-privileges:true", service["security_opt"], name)
            self.assertRegex(service["user"], r"^[1-9][0-9]*(:[0-9]+)?$", name)
            self.assertIn("test", service["healthcheck"], name)
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name} {port}")

    def test_what_is_mounted_is_there(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((ROOT / "deploy" / source).exists(), f"{name} {source}")
                else:
                    self.assertIn(source, self.file["volumes"], name)

    def test_redis_answers_the_servers(self):
        # In its own mode, without a password, it answers its own machine alone.
        command = self.services["redis"]["command"]
        self.assertEqual(command[command.index("--protected-mode") + 1], "no")
        self.assertNotIn("ports", self.services["redis"])

    def test_memory_file_systems_have_options_that_podman_knows_too(self):
        for name, service in self.services.items():
            for mount in service.get("tmpfs", []):
                for option in mount.split(":")[1].split(","):
                    self.assertIn(option.split("=")[0], {"mode", "size", "rw", "ro"}, f"{name} {mount}")

    def test_streams_may_end_before_the_container_is_killed(self):
        config = (ROOT / "deploy/compose/reticle.toml").read_text(encoding="utf-8")
        drain = int(re.search(r"drain_timeout_s = (\d+)", config)[1])
        grace = int(re.fullmatch(r"(\d+)s", self.services["reticle"]["stop_grace_period"])[1])
        self.assertGreater(grace, drain)


class DockerfileTest(unittest.TestCase):
    def setUp(self):
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line.split(None, 1) for line in text.splitlines() if line and line[0] != "#"]
        self.stages = []
        for line in lines:
            if line[0] == "FROM":
                self.stages.append([])
            if self.stages:
                self.stages[-1].append((line[0], line[1]))

    def test_the_last_stage_takes_a_tested_binary_and_nothing_else(self):
        self.assertGreaterEqual(len(self.stages), 3)
        copies = [what for verb, what in self.stages[-1] if verb == "COPY"]
        self.assertEqual([what for what in copies if what.startswith("--from=")],
                         ["--from=test /reticle /usr/local/bin/reticle"])
        self.assertNotIn(". .", copies)
        self.assertTrue(any("http_test.py" in what for verb, what in self.stages[1] if verb == "RUN"))

    def test_it_runs_as_somebody_and_says_how_it_is(self):
        last = dict(self.stages[-1])
        self.assertRegex(last["USER"], r"^[1-9]\d*:[1-9]\d*$")
        self.assertIn("/health/ready", last["HEALTHCHECK"])
        self.assertEqual(last["VOLUME"], last["WORKDIR"])

    def test_the_context_leaves_out_history_and_secrets(self):
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
        for name in [".git", "build", "**/node_modules", "**/*.secret", "**/*.key"]:
            self.assertIn(name, ignored)


if __name__ == "__main__":
    unittest.main()
