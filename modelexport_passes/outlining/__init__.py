"""Module calls become calls of functions: a plan first, then the rewrite."""
