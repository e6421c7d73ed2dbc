"""``python -m cocoindex_fsmirror`` is the ``fsmirror`` command."""

from ._command.process import run

if __name__ == "__main__":
    run()
