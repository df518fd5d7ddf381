"""Images: reading datasets, packing them once, and the packed format."""
