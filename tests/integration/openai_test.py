"""Runs openai_test.mjs against a server: python3 openai_test.py NODE FOLDER_WITH_node_modules"""

import os
import subprocess
import sys

from serving import Server


def main():
    node, packages = sys.argv[1:3]
    server = Server()
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openai_test.mjs")
    status = subprocess.run([node, script, f"http://127.0.0.1:{server.port}/v1", "tiny", packages],
                            timeout=120, check=False).returncode
    server.stop()
    sys.exit(status)


if __name__ == "__main__":
    main()
