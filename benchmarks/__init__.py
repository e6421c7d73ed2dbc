"""Benchmarks of cocoindex-fsmirror beside localfs, rsync, rclone and cp.

See ``python -m benchmarks --help``.
"""

from typing import Final

__all__ = ["OURS", "OUTPUT", "TARGETS"]

TARGETS: Final = ("ours", "ours-not-durable", "localfs", "nothing")
"""The targets of a flow."""
OURS: Final = ("ours", "ours-without-copies")
"""Ours with its defaults, and without copies of what it writes."""
OUTPUT: Final = "out"
"""The output folder, beside the engine's database."""
