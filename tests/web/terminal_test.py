"""`reticle chat` against a real server: by pipe, and in a terminal."""

import os
import pathlib
import pty
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
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


class Terminator:
    """Speaks TLS in front of a server, with a certificate of its own authority."""

    def __init__(self, port, folder):
        self.behind = port
        self.names, self.served = [], 0
        self.authority, authority_key = self.certificate(folder, "authority", "/CN=Authority")
        self.stranger, _ = self.certificate(folder, "stranger", "/CN=Authority")
        certificate, key = self.certificate(
            folder, "server", "/CN=localhost", "-CA", self.authority, "-CAkey", authority_key, "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.listener = socket.create_server(("0.0.0.0", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run)

    @staticmethod
    def certificate(folder, name, subject, *arguments):
        paths = [os.path.join(folder, f"{name}.{kind}") for kind in ("pem", "key")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-nodes", "-days", "2", "-subj", subject, "-out", paths[0], "-keyout", paths[1],
                        *arguments], check=True, capture_output=True)
        return paths

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def run(self):
        while True:
            try:
                plain = self.listener.accept()[0]
            except OSError:
                return
            with plain, socket.create_connection(("127.0.0.1", self.behind)) as server:
                try:
                    with self.context.wrap_socket(plain, server_side=True) as client:
                        request = client.recv(65536)
                        if not request:
                            continue
                        self.served += 1
                        server.sendall(request)
                        # The client asks for one reply a connection.
                        while data := server.recv(65536):
                            client.sendall(data)
                except OSError:
                    pass


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

    def test_over_https(self):
        with tempfile.TemporaryDirectory() as folder, Terminator(self.server.port, folder) as tls:
            # Its certificate is of an authority that is asked for.
            for host in ("localhost", "127.0.0.1"):
                done = self.pipe("hi\n", "--ca-file", tls.authority, "--set", "max_tokens=10", "--set",
                                 "temperature=0", url=f"https://{host}:{tls.port}")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(done.stdout.decode(), "Hello, w\u00f6\n")
            url = f"https://localhost:{tls.port}"
            self.assertEqual(tls.names, ["localhost"] * 2 + [None] * 2)
            served = tls.served
            with tempfile.NamedTemporaryFile("w") as file:
                file.write("secret-key\n")
                file.flush()
                key = ("--api-key-file", file.name)
                for arguments, reason in (((), b"localhost is not trusted: unable to get local issuer"),
                                          (("--ca-file", tls.stranger), b"localhost is not trusted: "),
                                          (("--ca-file", file.name), b"holds no certificates")):
                    done = self.pipe("hi", *key, *arguments, url=url)
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertIn(reason, done.stderr)
                    self.assertNotIn(b"is \"reticle serve\" running", done.stderr)
                    self.assertEqual(done.stdout, b"")
                # The right authority, another name.
                done = self.pipe("hi", *key, "--ca-file", tls.authority, url=f"https://127.0.0.2:{tls.port}")
                self.assertEqual(done.returncode, 1)
                self.assertIn(b"IP address mismatch", done.stderr)
            # Whoever is not trusted is told nothing, the key least of all.
            self.assertEqual(tls.served, served)

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
