"""Counts the words of texts."""

__version__ = "0.3.1"
