"""Write the embeddings of videos' clips: ``videonet features``."""

from videonet.commands.features import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
