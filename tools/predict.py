"""What is in a video: labels of files of any length, and over time: ``videonet predict``."""

from videonet.commands.predict import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
