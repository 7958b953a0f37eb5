"""Opens the files of trained weights in this folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

import numpy as np

from citewell.errors import ConfigurationError


@contextmanager
def open_weights(name: str) -> Iterator[np.lib.npyio.NpzFile]:
    """The arrays of a file, to be read within the block.

    Raises:
        ConfigurationError: The file is missing, or the block raised KeyError or ValueError: its content is not in the format of
            this version.
    """
    try:
        with resources.files(__package__).joinpath(name).open("rb") as file, np.load(file, allow_pickle=False) as data:
            yield data
    except (OSError, KeyError, ValueError) as exc:
        raise ConfigurationError(
            "The injection guard's weights cannot be read; reinstall citewell, or set CITEWELL_INJECTION_GUARD to off."
        ) from exc
