"""What the machine, not the program, takes of a thread's time: its waits for a core while it could run.

Linux counts them for each thread (/proc/PID/task/TID/schedstat: time on a core, time of waiting for one, in ns). What
the host of a virtual machine takes from it ("steal") is counted for the whole machine alone.
"""

import bisect
import os
import threading
import time


def core_wait_ns(path):
    """How long the thread of this schedstat has waited for a core so far; 0 where the kernel does not count."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


def threads(pid, name):
    """The schedstat files of the process's threads of this name."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as file:
            if file.read().strip() == name:
                found.append(f"/proc/{pid}/task/{thread}/schedstat")
    return found


def steal_s():
    with open("/proc/stat", encoding="ascii") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


class CoreWaits(threading.Thread):
    """Follows threads of another process, so that one may ask later how long they waited in a certain moment."""

    def __init__(self, paths, interval_s=0.02):
        super().__init__(daemon=True)
        self.paths, self.interval_s = paths, interval_s
        self.times, self.waited_ns = [], []
        self.over = threading.Event()
        self.start()

    def run(self):
        while True:
            self.times.append(time.time())
            self.waited_ns.append(sum(core_wait_ns(path) for path in self.paths))
            if self.over.wait(self.interval_s):
                return

    def stop(self):
        self.over.set()
        self.join()

    def within_ms(self, begin, end):
        """At most how long they waited for a core between these times (seconds since 1970)."""
        if not self.times:
            return 0.0
        first = max(bisect.bisect_right(self.times, begin) - 1, 0)
        last = min(bisect.bisect_left(self.times, end), len(self.times) - 1)
        return (self.waited_ns[last] - self.waited_ns[first]) / 1e6
