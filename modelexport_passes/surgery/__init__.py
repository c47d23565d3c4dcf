"""Surgery on single modules: taking one out as a model of its own, putting another body in its place."""
