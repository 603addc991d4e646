"""The house model as users meet it: `reticle serve` with no model named answers the held-out questions.

python3 house_test.py PERCENT_OF_QUESTIONS_TO_ANSWER
"""

import os
import subprocess
import sys

from serving import Server


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    server = Server(fake=False)
    status = subprocess.run(
        [sys.executable, os.path.join(root, "models", "house", "eval", "evaluate.py"),
         "--url", f"http://127.0.0.1:{server.port}", "--model-id", "house", "--need", sys.argv[1]],
        timeout=240, check=False).returncode
    server.stop()
    sys.exit(status)


if __name__ == "__main__":
    main()
