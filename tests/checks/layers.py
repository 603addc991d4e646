#!/usr/bin/env python3
"""Checks that #include lines follow the layers of docs/architecture.md. Exits 1 and names each offender."""

import pathlib
import re
import subprocess
import sys

# Folder -> folders that it may include from, besides itself. The longest matching prefix decides.
ALLOWED = {
    "base": [],
    "models": ["base"],
    "tokenizer": ["models", "base"],
    "backends/abi": ["base"],
    "backends/sampling": ["backends/abi", "base"],
    "backends/fake": ["backends/abi", "backends/sampling", "base"],
    "backends/kernels": ["models", "base"],
    "backends/cpu": ["backends/abi", "backends/sampling", "backends/kernels", "models", "base"],
    "backends/hardwired": ["backends/abi", "backends/sampling", "backends/kernels", "models", "base"],
    "backends/conformance": ["backends/abi", "models", "base"],
    "backends/example": [],
    "scheduler": ["backends/abi", "base"],
    "proto": [],
    "server": ["scheduler", "tokenizer", "models", "proto", "backends/abi", "base"],
    "loadtest": ["proto", "base"],
}
# Where concrete parts meet: programs, and what crosses modules.
FREE = ["server/main.cc", "server/cli/", "backends/conformance/builtin_drivers.cc",
        "backends/conformance/mutants.cc", "tests/"]
# Tests and benchmarks may also use the fake device, synthetic models and the suite.
TEST_EXTRA = ["backends/fake", "backends/conformance", "backends/sampling", "models", "tests"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def layer_of(path):
    best = ""
    for layer in ALLOWED:
        if (path == layer or path.startswith(layer + "/")) and len(layer) > len(best):
            best = layer
    return best


def main():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.cc", "*.c"],
        capture_output=True, text=True, check=True)
    offences = []
    for name in sorted(set(listing.stdout.split())):
        if any(name == free or (free.endswith("/") and name.startswith(free)) for free in FREE):
            continue
        layer = layer_of(name)
        if not layer:
            offences.append(f"{name}: lies in no layer")
            continue
        allowed = [layer, *ALLOWED[layer]]
        if re.search(r"_(test|benchmark|fuzz)\.(cc|h)$|test_util|testing", name):
            allowed += TEST_EXTRA
        text = pathlib.Path(name).read_text(encoding="utf-8")
        for line in INCLUDE.findall(text):
            if not pathlib.Path(line).exists() and "/" not in line:
                continue  # generated or beside the file
            target = layer_of(line)
            if target and target not in allowed:
                offences.append(f"{name}: includes \"{line}\" ({target} is not below {layer})")
    for offence in offences:
        print(offence)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
