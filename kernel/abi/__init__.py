"""User-visible numbers, one module for each member of the L4 family that is spoken."""
