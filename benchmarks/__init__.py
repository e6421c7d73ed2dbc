"""Measures cocoindex-fsmirror side by side with what one would take instead.

``python -m benchmarks --help`` tells how.
"""
