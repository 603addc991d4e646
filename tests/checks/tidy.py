#!/usr/bin/env python3
"""Runs clang-tidy (.clang-tidy) over every source of a compile database."""

import pathlib
import sys

import compile_database


def main():
    arguments = compile_database.parse_arguments(__doc__)
    build = str(arguments.build_dir.resolve())
    commands = [(name, ["clang-tidy-16", "--quiet", "-p", build, str(pathlib.Path(name).resolve())], directory)
                for name, directory, _ in compile_database.entries(arguments.build_dir, arguments.only)]
    return 1 if compile_database.run_all(arguments.jobs, commands) else 0


if __name__ == "__main__":
    sys.exit(main())
