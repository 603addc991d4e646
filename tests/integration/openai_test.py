"""Runs openai_test.mjs against the fake device, then against the house model as it is served by default:
python3 openai_test.py NODE FOLDER_WITH_node_modules"""

import os
import subprocess
import sys

from serving import Server


def run(node, packages, server, model):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openai_test.mjs")
    command = [node, script, f"http://127.0.0.1:{server.port}/v1", model, packages]
    status = subprocess.run(command, timeout=200, check=False).returncode
    server.stop()
    if status != 0:
        sys.exit(f"{model}: openai_test.mjs ended with status {status}")


def main():
    node, packages = sys.argv[1:3]
    run(node, packages, Server(), "tiny")
    run(node, packages, Server("--threads", "1", fake=False), "house")


if __name__ == "__main__":
    main()
