"""A laboratory for L4 microkernels on one laptop."""
