#!/usr/bin/env python3
"""Runs the image with podman as an operator would, on a read-only root, and checks what it promises.

    docker build -t reticle:0.1.0 .          # or: buildah bud --format docker -t reticle:0.1.0 .
    tests/deploy/image.py reticle:0.1.0 [--podman "podman --cgroup-manager=cgroupfs --runtime runc"] \
        [--run-options "--no-healthcheck --ulimit nofile=8192:8192 --ulimit nproc=1000:1000"]

The further options are for a machine without systemd and without CAP_SYS_RESOURCE.

Serves from it (a whole answer, a stream, keys in the store on the volume), and prints its size and how long it takes
from `run` to ready.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request

NAME = "reticle-image-test"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--podman", default="podman")
    parser.add_argument("--run-options", default="", help="further ones of podman run")
    parser.add_argument("--port", type=int, default=18080)
    options = parser.parse_args()
    podman = shlex.split(options.podman)
    base = f"http://127.0.0.1:{options.port}"

    def call(*arguments, check=True):
        return subprocess.run([*podman, *arguments], check=check, capture_output=True, text=True).stdout.strip()

    def get(path, body=None, stream=False):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(base + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return [line.decode() for line in reply] if stream else json.load(reply)

    checks = []

    def check(name, condition, seen=""):
        checks.append(bool(condition))
        print(f"{'ok  ' if condition else 'FAIL'} {name}{f': {seen}' if seen != '' else ''}")

    call("rm", "-f", NAME, check=False)
    call("volume", "rm", "-f", NAME, check=False)
    begin = time.monotonic()
    started = call("run", "-d", "--name", NAME, "--network=host", "--read-only", "--cap-drop=all",
         "--security-opt=no-new-privileges", "-v", f"{NAME}:/var/lib/reticle:U",
         *shlex.split(options.run_options), options.image, "serve",
         "--http", f"127.0.0.1:{options.port}", "--grpc", "none", check=False)
    if not started:
        print("podman run failed; try it by hand")
        return 1
    try:
        while True:
            try:
                if get("/health/ready"):
                    break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() - begin > 60:
                    print(call("logs", NAME))
                    raise
                time.sleep(0.02)
        print(f"     from run to ready: {time.monotonic() - begin:.2f} s")
        size = int(call("image", "inspect", "--format", "{{.Size}}", options.image))
        layer = int(call("exec", NAME, "stat", "-c", "%s", "/usr/local/bin/reticle"))
        print(f"     image {size / 1e6:.0f} MB, of which the program {layer / 1e6:.0f} MB")
        user = call("exec", NAME, "id", "-u")
        check("it is not root", user == "10001", user)
        writes = subprocess.run([*podman, "exec", NAME, "touch", "/usr/local/bin/x"], capture_output=True, text=True)
        check("its root is read-only", "Read-only" in writes.stderr, writes.stderr.strip())
        status = call("exec", NAME, "grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/1/status").split()
        check("it has no capabilities", status[1].strip("0") == "" and status[3] == "1", " ".join(status))
        compilers = call("exec", NAME, "sh", "-c", "command -v gcc clang-16 cmake; true", check=False)
        check("it holds no compiler", compilers == "", compilers)

        question = {"model": "house", "messages": [{"role": "user", "content": "What is Reticle?"}], "max_tokens": 40}
        answer = get("/v1/chat/completions", question)
        text = answer["choices"][0]["message"]["content"]
        check("it answers", len(text) > 10, text[:60])
        lines = get("/v1/chat/completions", {**question, "stream": True}, stream=True)
        events = [line for line in lines if line.startswith("data: {")]
        check("it streams", len(events) > 10 and lines[-2].strip() == "data: [DONE]", f"{len(events)} events")
        made = json.loads(call("exec", NAME, "reticle", "keys", "create", "name=Me", "email=me@example.org",
                               "tier=operator", "--store", "/var/lib/reticle/tenants.db", "--json"))
        check("its store lies on the volume", str(made.get("key", "")).startswith("rtk_"))
        inspected = json.loads(call("image", "inspect", options.image))[0]
        health = inspected.get("HealthCheck") or inspected["Config"].get("Healthcheck") or inspected["Healthcheck"]
        # Its own port is 8080; here it is another one.
        command = [word.replace(":8080", f":{options.port}") for word in health["Test"][1:]]
        healthy = subprocess.run([*podman, "exec", NAME, *command], capture_output=True, text=True)
        check("its health check passes", healthy.returncode == 0, " ".join(command))
        begin = time.monotonic()
        call("stop", "-t", "20", NAME)
        code = call("inspect", "--format", "{{.State.ExitCode}}", NAME)
        check("SIGTERM drains and ends it", code == "0", f"exit {code} after {time.monotonic() - begin:.1f} s")
    finally:
        call("rm", "-f", NAME, check=False)
        call("volume", "rm", "-f", NAME, check=False)
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
