"""What a flood of requests without a good key costs those who pay: the rate of paid streams alone, and
beside 64 connections on which one process sends such requests as fast as it can.

    RETICLE=build/release/reticle python3 tests/integration/flood.py [STREAMS [SECONDS]]
"""

import json
import multiprocessing
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time

from serving import Server, build

CONNECTIONS = 64


def flood(port, sent, stop):
    import socket
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 200}]}
    requests = build("POST", "/v1/chat/completions", body, ["Authorization: Bearer rtk_wrong"]) * 20
    selector = selectors.DefaultSelector()

    def connect():
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    for _ in range(CONNECTIONS):
        connect()
    count = 0
    while not stop.is_set():
        for key, ready in selector.select(0.1):
            try:
                if ready & selectors.EVENT_WRITE:
                    count += key.fileobj.send(requests)
                if ready & selectors.EVENT_READ and not key.fileobj.recv(1 << 16):
                    raise ConnectionError
            except BlockingIOError:
                pass
            except ConnectionError:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                connect()
    sent.value = count // len(requests) * 20


def stream(server, key, until, counts, errors):
    body = {"model": "tiny", "prompt": "x", "max_tokens": 3000, "ignore_eos": True, "temperature": 0,
            "stream": True}
    request = build("POST", "/v1/completions", body, ["Authorization: Bearer " + key])
    count = 0
    with server.connect() as sock:
        sock.sendall(request)
        while time.monotonic() < until:
            data = sock.recv(1 << 20)
            count += data.count(b"data: {")
            if not data or b'"error"' in data:
                errors.append(data[:200])
                break
            if b"[DONE]" in data:
                sock.sendall(request)
    counts.append(count)


def rate(server, key, streams, seconds):
    counts, errors = [], []
    begin = time.monotonic()
    readers = [threading.Thread(target=stream, args=(server, key, begin + seconds, counts, errors))
               for _ in range(streams)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not errors, errors
    return sum(counts) / (time.monotonic() - begin)


def main():
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "tenants.db")
        made = subprocess.run([os.environ["RETICLE"], "keys", "create", "name=B", "email=b@example.org",
                               "tier=operator", "--json", "--store", store],
                              capture_output=True, check=True)
        key = json.loads(made.stdout)["key"]
        # A device of 1,000 tokens a second and stream, so that the server is not at its own limit.
        server = Server("--free-tier", "--tenants-store", store, "--context", "4096",
                        "--device-option", "content=fast", "--device-option", "step_ns=1000000")
        alone, beside = [], []
        for _ in range(3):
            alone.append(rate(server, key, streams, seconds))
            sent, stop = multiprocessing.Value("q"), multiprocessing.Event()
            sender = multiprocessing.Process(target=flood, args=(server.port, sent, stop))
            sender.start()
            time.sleep(0.2)
            beside.append(rate(server, key, streams, seconds))
            stop.set()
            sender.join()
        refused = server.gauge("reticle_keys_refused_total")
        server.stop()
    best, worst = sorted(alone)[1], sorted(beside)[1]
    print(f"{streams} streams alone {best:.0f} tokens/s, beside the flood {worst:.0f} "
          f"({100 * (1 - worst / best):.1f} % less); {refused:.0f} requests refused")
    return 0 if worst >= 0.8 * best else 1


if __name__ == "__main__":
    sys.exit(main())
