#!/usr/bin/env python3
"""Starts deploy/compose.yaml with podman-compose as an operator would, and checks that its parts work together.

    tests/deploy/compose_run.py [--image reticle:0.1.0] [--without grafana] [--bare]

Needs root, podman-compose, podman's dnsname plug-in, and the images (`podman pull`, or others under their names).
--without leaves services out. --bare is for a machine without systemd and CAP_SYS_RESOURCE: podman then sets up no timers
and no limits of its own; the health checks are run by hand here in any case.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
PROJECT = "reticle-compose-test"
BARE = """#!/usr/bin/env python3
import os, sys
words = sys.argv[1:]
if words[0] == "run":
    if "--healthcheck-interval" in words:
        words[words.index("--healthcheck-interval") + 1] = "disable"
    words[1:1] = ["--ulimit", "nofile=8192:8192", "--ulimit", "nproc=1000:1000"]
os.execvp("podman", ["podman", "--cgroup-manager=cgroupfs", "--runtime=runc", *words])
"""


def get(url, body=None, key=None):
    """Status and JSON of the reply."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="reticle:0.1.0")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--bare", action="store_true")
    options = parser.parse_args()
    file = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    for name in options.without:
        del file["services"][name]
    file["services"]["reticle"]["image"] = options.image
    del file["services"]["reticle"]["build"]
    checks = []

    def check(name, condition, seen=""):
        checks.append(bool(condition))
        print(f"{'ok  ' if condition else 'FAIL'} {name}{f': {seen}' if seen != '' else ''}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        podman = "podman"
        if options.bare:
            podman = f"{folder}/podman"
            pathlib.Path(podman).write_text(BARE, encoding="utf-8")
            pathlib.Path(podman).chmod(0o755)
        for service in file["services"].values():
            service["volumes"] = [str(DEPLOY / volume) if volume.startswith(".") else volume
                                  for volume in service.get("volumes", [])]
        path = f"{folder}/compose.yaml"
        pathlib.Path(path).write_text(yaml.safe_dump(file, sort_keys=False), encoding="utf-8")

        def compose(*words):
            return subprocess.run(["podman-compose", "--podman-path", podman, "-p", PROJECT, "-f", path, *words],
                                  capture_output=True, text=True, timeout=180)

        def call(*words):
            done = subprocess.run([podman, *words], capture_output=True, text=True, timeout=60)
            return done.returncode, (done.stdout + done.stderr).strip()

        def until(what, limit=60):
            end = time.monotonic() + limit
            while time.monotonic() < end:
                try:
                    if what():
                        return True
                except (urllib.error.URLError, ConnectionError):
                    pass
                time.sleep(0.3)
            return False

        try:
            up = compose("up", "-d")
            containers = {name: f"{PROJECT}_{name}_1" for name in file["services"]}
            base = "http://127.0.0.1:8080"
            check("it starts", until(lambda: get(f"{base}/health/ready")[0] == 200), up.stderr[-500:] if up.returncode else "")
            for name, container in containers.items():
                check(f"the health check of {name} passes", until(lambda c=container: call("healthcheck", "run", c)[0] == 0),
                      " ".join(file["services"][name]["healthcheck"]["test"][1:]))
                code, said = call("exec", container, "touch", "/usr/bin/x")
                check(f"the root of {name} is read-only", code != 0 and "ead-only" in said)
                said = call("exec", container, "grep", "-E", "^(Uid|CapEff|NoNewPrivs)", "/proc/1/status")[1].split()
                check(f"{name} is not root and has no capabilities",
                      said[1] != "0" and said[6].strip("0") == "" and said[8] == "1", " ".join(said))
            made = json.loads(call("exec", containers["reticle"], "reticle", "keys", "create", "name=Me",
                                   "email=me@example.org", "tier=free", "--store", "/var/lib/reticle/tenants.db", "--json")[1])
            key, ask = made["key"], {"model": "house", "prompt": "Reticle is", "max_tokens": 4}
            check("a key is known once it is made",
                  until(lambda: get(f"{base}/v1/completions", ask, key)[0] == 200, 5))
            check("quotas are shared by Redis", until(lambda: not get(f"{base}/health/ready")[1].get("degraded"), 10),
                  get(f"{base}/health/ready")[1])
            # A second replica on the same store.
            volume = f"{PROJECT}_reticle-data"
            second = f"{PROJECT}_second"
            code, said = call("run", "-d", "--name", second, "--net", f"{PROJECT}_reticle", "--read-only", "--cap-drop=all",
                              "--security-opt=no-new-privileges", "-p", "127.0.0.1:8081:8080", "-v", f"{volume}:/var/lib/reticle",
                              "-v", f"{DEPLOY}/compose/reticle.toml:/etc/reticle/reticle.toml:ro", options.image,
                              "serve", "--config", "/etc/reticle/reticle.toml")
            other = "http://127.0.0.1:8081"
            check("a second replica starts on the same volume",
                  code == 0 and until(lambda: get(f"{other}/health/ready")[0] == 200 and not get(f"{other}/health/ready")[1].get("degraded")),
                  said if code else "")
            served = [get(f"{[base, other][i % 2]}/v1/completions", ask, key)[0] for i in range(40)]
            check("two replicas grant one quota, 30 a minute", 28 <= served.count(200) <= 31 and served.count(429) == 40 - served.count(200),
                  f"{served.count(200)} of 40 served")
            call("rm", "-f", "-t", "5", second)
            prometheus = "http://127.0.0.1:9090/api/v1"
            check("Prometheus scrapes the server", until(lambda: get(f"{prometheus}/query?query=up%7Bjob%3D%22reticle%22%7D")[1]
                                                         ["data"]["result"][0:1] and get(
                f"{prometheus}/query?query=up%7Bjob%3D%22reticle%22%7D")[1]["data"]["result"][0]["value"][1] == "1"))
            groups = get(f"{prometheus}/rules")[1]["data"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            check("its rules and alerts are loaded and healthy",
                  until(lambda: all(rule["health"] == "ok" for group in get(f"{prometheus}/rules")[1]["data"]["groups"]
                                    for rule in group["rules"])), f"{len(rules)}")
            if "grafana" in containers:
                check("Grafana has the dashboards", len(get("http://admin:admin@127.0.0.1:3000/api/search?type=dash-db")[1]) >= 4)
            call("stop", "-t", "40", containers["reticle"])
            code, said = call("inspect", "--format", "{{.State.ExitCode}}", containers["reticle"])
            check("SIGTERM drains and ends the server", said == "0", said)
            call("start", containers["reticle"])
            check("after a restart the key is still known",
                  until(lambda: get(f"{base}/health/ready")[0] == 200) and get(f"{base}/v1/models", key=key)[0] == 200)
        finally:
            call("rm", "-f", f"{PROJECT}_second")
            compose("down", "-v")
            for volume in file["volumes"]:
                call("volume", "rm", "-f", f"{PROJECT}_{volume}")
            call("network", "rm", "-f", f"{PROJECT}_reticle")
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
