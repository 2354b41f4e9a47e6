"""Payloads and the requests they stand for: one module for each family, and `parsing` over them; no effects."""
