"""A laboratory for L4 microkernels on one laptop."""

__version__ = "0.1.0"
