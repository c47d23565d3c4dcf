"""Hugging Face models: their export, their inputs and outputs, their caches."""
