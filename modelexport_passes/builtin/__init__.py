"""The passes: thin; the work is in the rooms that they name."""
