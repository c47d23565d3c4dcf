"""From torch to plain ONNX, and .onnx files on disk."""
