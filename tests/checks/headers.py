#!/usr/bin/env python3
"""Checks that every header compiles alone, with the flags of a source file of its folder."""

import pathlib
import subprocess
import sys

import compile_database


def main():
    arguments = compile_database.parse_arguments(__doc__)
    flags = {}
    for name, directory, words in compile_database.entries(arguments.build_dir):
        if name.endswith(".cc"):
            flags.setdefault(str(pathlib.Path(name).parent), (directory, words))
    default = flags["base"]
    listing = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h"],
                             capture_output=True, text=True, check=True)
    commands = []
    for name in sorted(set(listing.stdout.split())):
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        # foreach_target includes these once per instruction set; they make no sense alone.
        if name.endswith("-inl.h"):
            continue
        directory, words = flags.get(str(pathlib.Path(name).parent), default)
        path = str(pathlib.Path(name).resolve())
        commands.append((name, [*words, "-fsyntax-only", "-Werror", "-Wno-pragma-once-outside-header",
                                "-x", "c++", path], directory))
    return 1 if compile_database.run_all(arguments.jobs, commands) else 0


if __name__ == "__main__":
    sys.exit(main())
