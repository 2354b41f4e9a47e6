"""Is it right: the conformance suite, random programs, the profiles against published figures."""
