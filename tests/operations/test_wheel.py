"""What is installed: the wheel's top level, nobody else's names, no torch in the base."""

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.service import ROOT

TOP = {"graph", "chains", "citewell", "server.py", "ingest.py"}


def test_the_wheel_holds_exactly_what_ships(tmp_path: Path) -> None:
    subprocess.run(
        [str(Path(sys.executable).with_name("uv")), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)],
        check=True, timeout=200,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == TOP
    assert {"citewell/models/vocab.txt", "citewell/api/page.html", "citewell/py.typed"} <= set(names)


def test_no_other_distribution_owns_our_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for name in ("graph", "chains", "citewell", "server", "ingest"):
        assert set(owners.get(name, ())) <= {"citewell"}


def test_the_base_install_has_no_torch() -> None:
    locked = (ROOT / "requirements" / "run.txt").read_text()
    names = {line.split("==")[0] for line in locked.splitlines() if "==" in line and not line.startswith(" ")}
    assert not names & {"torch", "sentence-transformers", "transformers", "scipy", "scikit-learn"}
