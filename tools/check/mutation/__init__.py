"""`l4lab check mutation`: small bugs planted in the kernel by a tool, and which tests find them."""
