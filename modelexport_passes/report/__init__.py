"""Looking at models and runs: the module tree, comparisons, tables."""
