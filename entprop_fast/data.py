"""Load, batch and corrupt images; ``python -m entprop_fast.data check`` looks at a data set."""

import sys

from entprop_fast.lab import data as _data
from entprop_fast.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.lab.data import *  # noqa: F403

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]
__all__ += _data.__all__

if __name__ == "__main__":
    from entprop_fast.lab.cli.data import main

    sys.exit(main())
