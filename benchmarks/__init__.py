"""Measures cocoindex-fsmirror side by side with what one would take instead.

``python -m benchmarks --help`` tells how.
"""

from typing import Final

__all__ = ["OUTPUT", "TARGETS"]

TARGETS: Final = ("ours", "ours-not-durable", "localfs", "nothing")
"""What a flow can write to."""
OUTPUT: Final = "out"
"""Where it does so, below a folder in which the engine's database lies as well."""
