"""The version, in a module that imports nothing, so that building needs no dependencies."""

__version__ = "0.1.0"
