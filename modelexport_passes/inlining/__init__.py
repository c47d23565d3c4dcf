"""Calls of functions become operations again."""
