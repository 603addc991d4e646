"""What the server itself costs per streamed token: streams over the fake device at full speed.
Prints events per second and the CPU time of each of the server's threads per event.

    RETICLE=build/release/reticle python3 tests/integration/overhead.py [STREAMS [TOKENS]]
"""

import glob
import sys
import threading
import time

from serving import Server, build


def thread_times(pid):
    times = {}
    for task in glob.glob(f"/proc/{pid}/task/*"):
        with open(task + "/comm") as name, open(task + "/schedstat") as stat:
            key = name.read().strip()
            times[key] = times.get(key, 0) + int(stat.read().split()[0])
    return times


def read_stream(server, tokens, counts):
    with server.connect() as sock:
        sock.sendall(build("POST", "/v1/completions", {
            "prompt": "x", "max_tokens": tokens, "ignore_eos": True, "temperature": 0,
            "stream": True}, ["Connection: close"]))
        count = 0
        while data := sock.recv(1 << 20):
            count += data.count(b"data: {")
        counts.append(count)


def main():
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    tokens = int(sys.argv[2]) if len(sys.argv) > 2 else 60000
    script = ",".join(str(b) for b in b"lorem ipsum dolor ")
    server = Server("--context", str(tokens + 100), "--device-option", "content=fast",
                    "--device-option", "script=" + script,
                    "--device-option", f"blocks={streams * (tokens // 16 + 10)}")
    counts = []
    before = thread_times(server.process.pid)
    begin = time.monotonic()
    readers = [threading.Thread(target=read_stream, args=(server, tokens, counts))
               for _ in range(streams)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.monotonic() - begin
    after = thread_times(server.process.pid)
    server.stop()
    events = sum(counts)
    print(f"{streams} streams, {events} events, {events / seconds:.0f} events/s")
    for name in sorted(after):
        spent = (after[name] - before.get(name, 0)) / 1000
        print(f"  {name:16} {spent / events:8.3f} us of CPU per event")


if __name__ == "__main__":
    main()
