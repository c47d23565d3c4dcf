"""Run passes as a pipeline: steps, verification between them, observers, the run report."""
