"""The units and proxy configurations of deploy/ are understood by the programs that read them."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
RETICLE = os.environ["RETICLE"]


def program(name):
    found = shutil.which(name) or f"/usr/sbin/{name}"
    assert os.path.exists(found), f"{name} is not installed: ./dev setup test"
    return found


class Units(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        for unit in (DEPLOY / "systemd").glob("reticle*.s*"):
            text = unit.read_text(encoding="utf-8")
            # The program and its page need not be installed.
            text = text.replace("/usr/bin/reticle ", RETICLE + " ")
            text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
            (self.path / unit.name).write_text(text, encoding="utf-8")

    def tearDown(self):
        self.folder.cleanup()

    def analyze(self, *words):
        return subprocess.run([program("systemd-analyze"), *words], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "SYSTEMD_UNIT_PATH": f"{self.path}:"})

    def test_systemd_finds_nothing_wrong(self):
        units = sorted(str(unit) for unit in self.path.iterdir())
        self.assertEqual(len(units), 3)
        done = self.analyze("verify", "--man=no", *units)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_the_service_is_confined(self):
        done = self.analyze("security", "--offline=yes", "--no-pager", "--threshold=20",
                            str(self.path / "reticle.service"))
        self.assertEqual(done.returncode, 0, done.stdout[-2000:])

    def test_the_service_waits_longer_than_the_server_drains(self):
        service = (self.path / "reticle.service").read_text(encoding="utf-8")
        options = (DEPLOY / "systemd" / "reticle.toml").read_text(encoding="utf-8")
        stop = int(re.search(r"^TimeoutStopSec=(\d+)$", service, re.M)[1])
        delay = int(re.search(r"^drain_delay_ms = (\d+)$", options, re.M)[1])
        drain = int(re.search(r"^drain_timeout_s = (\d+)$", options, re.M)[1])
        self.assertGreater(stop, delay / 1000 + drain)

    def test_the_server_reads_its_file(self):
        done = subprocess.run([RETICLE, "serve", "--config", str(DEPLOY / "systemd" / "reticle.toml"), "--help"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = subprocess.run([RETICLE, "serve", "--config", str(DEPLOY / "systemd" / "reticle.toml"),
                               "--model", "/nowhere", "--http", "0", "--grpc", "none"],
                              capture_output=True, text=True, timeout=60)
        self.assertIn("/nowhere", done.stderr)


class Proxies(unittest.TestCase):
    def test_haproxy_finds_nothing_wrong(self):
        done = subprocess.run([program("haproxy"), "-c", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("WARNING", (done.stdout + done.stderr).upper())


if __name__ == "__main__":
    unittest.main()
