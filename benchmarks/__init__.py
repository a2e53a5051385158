"""What this package costs its hosts, beside the same work without it: ``python -m benchmarks [topic ...]``.

Every figure is taken side by side in one process: the variants take turns, in rotated order, so that a slow moment of
the machine hits all of them, and a difference is the median of the differences turn by turn. It prints one table and
judges nothing: the exit code is 0 whatever was measured.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "examples"))  # the loopback server
