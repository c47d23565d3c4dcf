"""``pipeline.yaml``: strict loading, with every error at its line and column."""
