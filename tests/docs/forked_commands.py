"""Runs Python command lines one after the other, each in a fork of this process, which has imported the service once.

Reads a line of JSON for each (`argv`, the folder `cwd`, the files `out` and `err`) and writes its exit code.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import citewell.terminal  # noqa: F401  # imports what the commands need, which is what takes long
import ingest  # noqa: F401


def run(argv: list[str]) -> int:
    try:
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = argv
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(task["cwd"])
        for number, name in ((1, task["out"]), (2, task["err"])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.path[0] = str(Path.cwd())
        code = run(task["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
