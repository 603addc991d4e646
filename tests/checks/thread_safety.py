#!/usr/bin/env python3
"""Runs clang's thread-safety analysis, all warnings as errors, over every source of a compile database.

The `clang` preset does the same by a full build; this only parses.
"""

import pathlib
import sys

import compile_database


def main():
    arguments = compile_database.parse_arguments(__doc__)
    commands = []
    for name, directory, words in compile_database.entries(arguments.build_dir, arguments.only):
        commands.append((name, [*words, "-fsyntax-only", "-Wthread-safety", "-Werror",
                                str(pathlib.Path(name).resolve())], directory))
    return 1 if compile_database.run_all(arguments.jobs, commands) else 0


if __name__ == "__main__":
    sys.exit(main())
