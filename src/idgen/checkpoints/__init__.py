"""Checkpoint files → adapters, and back."""
