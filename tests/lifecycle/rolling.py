"""Rolling restart: two replicas behind nginx or HAProxy are restarted one after the other, again and again, under load.
No request fails.

    ./dev bench rolling                             100,000 requests behind each of them
    ./dev bench rolling -- --proxy haproxy --requests 20000
    ./dev bench rolling -- --help

The configuration of the proxies is that of deploy/, with other ports. The load is `reticle load`: closed-loop users on
kept connections, most of whom read streams.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
import tiny_gguf  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RETICLE = os.environ["RETICLE"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", choices=("nginx", "haproxy", "both"), default="both")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--step-us", type=int, default=200, help="time of a token")
    parser.add_argument("--restarts", type=int, default=0, help="of each replica; 0: for as long as the load lasts")
    return parser.parse_args()


def free_ports(count):
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def ready(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"GET /health/ready HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            return sock.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def wait_ready(port, limit=60):
    end = time.monotonic() + limit
    while not ready(port):
        assert time.monotonic() < end, f"nothing is ready at port {port}"
        time.sleep(0.02)


class Replica:
    def __init__(self, folder, model, port, step_us):
        self.command = [RETICLE, "serve", "--http", str(port), "--grpc", "none", "--model", model, "--model-id", "tiny",
                        "--device", "fake", "--device-option", f"step_ns={step_us * 1000}", "--log-format", "json",
                        "--drain-delay-ms", "600", "--drain-timeout", "20"]
        self.port = port
        self.log = open(os.path.join(folder, f"{port}.log"), "ab")
        self.restarts = 0
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=self.log)
        wait_ready(self.port)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        assert status == 0, f"a replica ended with {status}"

    def restart(self):
        self.stop()
        self.start()
        self.restarts += 1


class Proxy:
    def __init__(self, kind, folder, front, replicas):
        self.kind = kind
        program = shutil.which(kind) or f"/usr/sbin/{kind}"
        assert os.path.exists(program), f"{kind} is not installed: ./dev setup test"
        name = "nginx/nginx.conf" if kind == "nginx" else "haproxy/haproxy.cfg"
        with open(os.path.join(ROOT, "deploy", name), encoding="utf-8") as file:
            text = file.read()
        for port, other in ((8080, front), (8081, replicas[0]), (8082, replicas[1])):
            assert f"127.0.0.1:{port}" in text
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
        # What needs another user or folder than a test has.
        text = text.replace("pid /run/nginx.pid;", f"pid {folder}/nginx.pid;\ndaemon off;")
        text = re.sub(r"worker_processes auto;", "worker_processes 1;", text)
        if kind == "nginx":
            paths = "".join(f"  {what}_temp_path {folder}/{what};\n" for what in (
                "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            text = text.replace("http {\n", "http {\n" + paths, 1)
        path = os.path.join(folder, "proxy.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.log = open(os.path.join(folder, kind + ".log"), "w+b")
        command = [program, "-c", path] if kind == "nginx" else [program, "-db", "-f", path]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        try:
            wait_ready(front, 20)
        except AssertionError:
            self.process.kill()
            self.log.seek(0)
            raise AssertionError(f"{kind}: {self.log.read().decode()}") from None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log.close()


def run(kind, options, folder):
    model = os.path.join(folder, "tiny.gguf")
    tiny_gguf.write(model)
    front, first, second = free_ports(3)
    replicas = [Replica(folder, model, port, options.step_us) for port in (first, second)]
    proxy = Proxy(kind, folder, front, (first, second))
    result = os.path.join(folder, "load.json")
    load = subprocess.Popen(
        [RETICLE, "load", "--url", f"http://127.0.0.1:{front}", "--api", "completions", "--users", str(options.users),
         "--requests", str(options.requests), "--duration", "1h", "--prompt-tokens", "16", "--output-tokens",
         str(options.tokens), "--no-calibrate", "--json", result, "--quiet", "--timeout", "60s"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    failure = []

    def restart():
        turn = 0
        try:
            while load.poll() is None and (not options.restarts or turn < 2 * options.restarts):
                time.sleep(0.3)
                replicas[turn % 2].restart()
                turn += 1
        except AssertionError as error:
            failure.append(str(error))
    restarter = threading.Thread(target=restart)
    start = time.monotonic()
    restarter.start()
    output = load.communicate()[0]
    took = time.monotonic() - start
    restarter.join()
    proxy.stop()
    for replica in replicas:
        replica.stop()
        replica.log.close()
    assert load.returncode == 0, f"reticle load ends with {load.returncode}: {output}"
    with open(result, encoding="utf-8") as file:
        report = json.load(file)
    return report, sum(replica.restarts for replica in replicas), took, failure


def main():
    options = arguments()
    wrong = 0
    for kind in ("nginx", "haproxy") if options.proxy == "both" else (options.proxy,):
        with tempfile.TemporaryDirectory() as folder:
            # nginx gives its workers to another user when it is started by root.
            os.chmod(folder, 0o755)
            report, restarts, took, failure = run(kind, options, folder)
        requests = report["requests"]
        good, failed = requests["succeeded"], sum(report["errors"].values()) + requests["rejected"]
        print(f"{kind}: {good} of {options.requests} requests served in {took:.1f} s through {restarts} restarts; "
              f"{failed} failed {report['errors'] or ''}", flush=True)
        if failed or good != options.requests or restarts < 2 or failure:
            print("not as it should be", *failure)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
