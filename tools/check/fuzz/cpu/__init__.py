"""`l4lab fuzz cpu`: random user-mode code on our vCPU and on the host's own processor."""
