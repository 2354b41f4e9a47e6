"""What the ledger of a run says: sums, balances, stretches of time."""
