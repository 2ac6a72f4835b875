"""Checkpoints: files, dialects of other projects, inflation, and the load report."""

from videonet.checkpoint.files import write_checkpoint
from videonet.checkpoint.load import load_checkpoint, load_trained
from videonet.checkpoint.read import read_checkpoint
from videonet.checkpoint.report import LoadReport

__all__ = ["LoadReport", "load_checkpoint", "load_trained", "read_checkpoint", "write_checkpoint"]
