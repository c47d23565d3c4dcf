"""Showing that a model is valid, keeps its hierarchy, and computes the same."""
