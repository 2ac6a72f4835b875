"""Where a device has something better than torch's plain operators, and torch's private functions.

Nothing outside of this package calls a private function of torch. What stands here is probed once,
at its first use: where it is missing, raises or gives other numbers than the plain operator, one
line is logged and the plain operator takes its place. Another torch can make videonet slower, not
wrong.
"""
