"""`reticle chat` against a real server: by pipe, and in a terminal."""

import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
from serving import Server  # pylint: disable=wrong-import-position

# The fake device writes this, long enough to be stopped.
SCRIPT = "Hello, w\u00f6rld! \x1b[31m"
SCRIPT_OPTION = "script=" + ",".join(str(b) for b in (SCRIPT * 180).encode())


class Terminal:
    """`reticle chat` behind a pseudo-terminal."""

    def __init__(self, url, *arguments):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(os.environ["RETICLE"], ["reticle", "chat", "--url", url, *arguments])
        self.text = ""
        self.seen = 0

    def expect(self, wanted):
        """Reads until `wanted` comes, behind what was expected before; returns what came."""
        deadline = time.monotonic() + 60
        while True:
            at = self.text.find(wanted, self.seen)
            if at >= 0:
                part, self.seen = self.text[self.seen:at], at + len(wanted)
                return part
            assert time.monotonic() < deadline, f"no {wanted!r} in {self.text[self.seen:]!r}"
            if select.select([self.file], [], [], 1)[0]:
                try:
                    self.text += os.read(self.file, 65536).decode(errors="replace")
                except OSError as error:
                    raise AssertionError(f"ended without {wanted!r}: {self.text!r}") from error

    def send(self, text):
        os.write(self.file, text.encode())

    def exit_status(self):
        try:
            while os.read(self.file, 65536):
                pass
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class ChatTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--device-option", SCRIPT_OPTION, "--device-option", "step_ns=2000000")
        cls.url = f"http://127.0.0.1:{cls.server.port}"

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def pipe(self, text, *arguments, url=None):
        environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
        return subprocess.run([os.environ["RETICLE"], "chat", "--url", url or self.url, *arguments],
                              input=text.encode(), capture_output=True, timeout=60, check=False,
                              env=environment)

    def test_a_pipe_gets_the_answer_alone(self):
        for url in (self.url, self.url + "/v1"):
            done = self.pipe("hi\n", "--set", "max_tokens=10", "--set", "temperature=0", url=url)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.decode(), "Hello, w\u00f6\n")
            self.assertEqual(done.stderr, b"")

    def test_errors_say_what_is_wrong(self):
        done = self.pipe("hi", url="http://127.0.0.1:1")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"no answer from http://127.0.0.1:1: Connection refused", done.stderr)
        self.assertEqual(done.stdout, b"")
        done = self.pipe("hi", "--model", "other")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"other", done.stderr)
        self.assertEqual(self.pipe("").returncode, 1)
        self.assertEqual(self.pipe("hi", "--api-key-file", "/nonexistent").returncode, 2)
        self.assertEqual(self.pipe("hi", "--set", "temperature=9").returncode, 2)

    def test_a_key_goes_out_and_stays_out_of_errors(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("secret-key\n")
            file.flush()
            done = self.pipe("hi", "--api-key-file", file.name, "--set", "max_tokens=2")
            self.assertEqual(done.returncode, 0, done.stderr)
            done = self.pipe("hi", "--api-key-file", file.name, "--model", "other")
            self.assertNotIn(b"secret-key", done.stderr)

    def test_a_conversation(self):
        terminal = Terminal(self.url, "--set", "max_tokens=30", "--set", "temperature=0")
        terminal.expect("tiny at " + self.url)
        terminal.expect("> ")
        terminal.send("hi\n")
        terminal.expect("Hello, w\u00f6rld! [31mHello")
        stats = terminal.expect("> ")
        self.assertIn("tok/s, first token after", stats)
        self.assertIn("30 tokens, cut at its limit", stats)
        self.assertNotIn("\x1b[31m", terminal.text)
        terminal.send("/set max_tokens 5\n")
        terminal.expect("max_tokens   5")
        terminal.send("/stats off\n/stats maybe\n")
        terminal.expect('/stats takes "on" or "off"')
        terminal.send("more\\\nand more\n")
        terminal.expect("Hello")
        terminal.expect("> ")
        self.assertNotIn("tok/s", terminal.text[terminal.text.rindex("and more"):])
        terminal.send("/model nothing\nhi\n")
        terminal.expect("nothing")
        terminal.expect("does not exist")
        terminal.send("/exit\n")
        self.assertEqual(terminal.exit_status(), 0)

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        terminal = Terminal(self.url, "--set", "temperature=0")
        terminal.expect("> ")
        terminal.send("hi\n")
        terminal.expect("Hello")
        terminal.send("\x03")
        terminal.expect("stopped")
        terminal.expect("> ")
        deadline = time.monotonic() + 30
        while self.server.gauge("vllm:num_requests_running") and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.server.gauge("vllm:num_requests_running"), 0)
        terminal.send("half a line")
        terminal.send("\x03")
        terminal.expect("> ")
        terminal.send("/set max_tokens 3\n")
        terminal.expect("max_tokens   3")
        terminal.send("again\n")
        terminal.expect("Hel")
        terminal.expect("> ")
        terminal.send("\x04")
        self.assertEqual(terminal.exit_status(), 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    unittest.main()
