"""Data sets between a folder here and the bucket: packed, digested, uploaded, brought back. May not import `cli`."""
