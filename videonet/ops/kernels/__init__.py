"""Faster operators for single devices, and all private functions of torch that videonet calls.

Each function is tested once, before its first use. Where it is missing, raises or gives other
numbers than the plain operator, one line is logged and the plain operator takes its place: another
version of torch can make videonet slower, but not wrong.
"""
