"""Runs a command derived from each entry of a compile database, several at once."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys


def parse_arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("build_dir", type=pathlib.Path)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("only", nargs="*", help="substrings of the paths to look at (default: all)")
    return parser.parse_intermixed_args()


def entries(build_dir, only=()):
    """(source path relative to the root, directory, compiler arguments without output options)."""
    root = pathlib.Path.cwd()
    for entry in json.loads((build_dir / "compile_commands.json").read_text(encoding="utf-8")):
        path = pathlib.Path(entry["file"])
        if not path.is_relative_to(root) or path.is_relative_to(root / build_dir):
            continue
        name = str(path.relative_to(root))
        if only and not any(part in name for part in only):
            continue
        words = shlex.split(entry["command"])
        while words and not words[0].endswith(("clang++-16", "clang-16", "g++", "gcc", "c++", "cc", "clang++", "clang")):
            words.pop(0)
        cleaned, skip = [], False
        for word in words:
            if skip:
                skip = False
            elif word in ("-o", "-MF", "-MT"):
                skip = True
            elif word not in ("-c", "-MD", str(path)):
                cleaned.append(word)
        yield name, entry["directory"], cleaned


def run_all(jobs, commands):
    """commands: (label, argv, cwd). Prints what failing ones print; returns how many failed."""
    def run(command):
        label, argv, cwd = command
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True)
        return label, done.returncode, done.stdout + done.stderr

    commands = list(commands)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for label, code, output in pool.map(run, commands):
            if code != 0:
                failed += 1
                print(f"{label}: failed\n{output}", flush=True)
    print(f"{len(commands) - failed} passed, {failed} failed", file=sys.stderr)
    return failed
