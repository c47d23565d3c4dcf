"""Which module calls an operation came from: as values, in the file, by every source there is."""
