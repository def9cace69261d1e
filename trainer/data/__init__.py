"""Images: where they come from, how they lie on the disk, in which order they are seen, how they become batches."""
