"""sessiond: one small daemon gives every web process the same sessions."""

__version__ = "0.1.0"
