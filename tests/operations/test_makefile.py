"""What `make` says before it builds anything."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_python_that_is_too_old_is_named_and_leaves_no_environment(tmp_path: Path) -> None:
    old = tmp_path / "python3"  # this Python, but for the version that it tells
    pretend = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])"
    old.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{pretend}" "$2"\nexec {sys.executable} "$@"\n'
    )
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert made.returncode == 2
    assert f"Citewell needs Python 3.11 or later, and {old} is 3.10: name another, as PYTHON=python3.12" in made.stderr
    assert not (tmp_path / "venv").exists()
