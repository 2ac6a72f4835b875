"""From a folder of your videos to a model and a report: ``videonet finetune``."""

from videonet.commands.finetune import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
