"""The command ``mx-pipeline``: one file per verb; each parses, delegates and prints."""
