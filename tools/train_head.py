"""Train an attention head over the frozen features of clips: ``videonet head``."""

from videonet.commands.head import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
