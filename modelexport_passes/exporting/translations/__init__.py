"""ONNX translations of torch operators that torch's exporter has none for, one subject a file."""
