"""`python -m citewell.threads`, as an operator runs it."""

import asyncio
import os
import subprocess
import sys
from typing import Any

from tests.service import ROOT


async def maintain(kept_in: dict[str, Any], *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error of a command on the threads that these settings name."""
    environment = os.environ | {
        "CITEWELL_DATA_DIR": str(kept_in["data_dir"]), "CITEWELL_REDIS_URL": kept_in.get("redis_url", ""),
        "PYTHONPATH": str(ROOT), "COLUMNS": "80",
    }  # fmt: skip
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "citewell.threads", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=kept_in["data_dir"].parent,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(done.communicate(), 200)
    return done.returncode, out.decode(), errors.decode()
