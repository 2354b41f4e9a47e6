"""A recorded run for viewers: Perfetto, speedscope, text."""
