"""Variables out of MATLAB files, in which two data sets keep their lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from entprop_fast.optional import require


def read_matlab(path: Path, key: str) -> Any:
    """A variable of a MATLAB 5 file as a NumPy array of at least one dimension.

    Raises:
        ValueError: there is no such file or variable, or it is damaged.
        ImportError: SciPy is not installed.
    """
    require("scipy", extra="train", purpose=f"reading {path.name}")
    from scipy.io import loadmat

    if not path.is_file():
        raise ValueError(f"{path.parent} lacks {path.name}")
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[key])
    except Exception as error:  # scipy raises whatever damaged bytes lead it to
        raise ValueError(f"{path} cannot be read as MATLAB's {key}: {error!r}") from error
