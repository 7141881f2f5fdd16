"""Adapters as files: this package's format, and the public ones."""
