"""The operator's files: manifests, profiles, programs; every mistake in them is one line."""
