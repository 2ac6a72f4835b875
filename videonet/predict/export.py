"""The old name of :mod:`videonet.inference.export`."""

from videonet.inference.export import export_model, read_aoti, read_onnx, read_pt2

__all__ = ["export_model", "read_aoti", "read_onnx", "read_pt2"]
