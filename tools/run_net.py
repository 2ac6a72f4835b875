"""Train and test a model as a configuration says.

python tools/run_net.py --cfg configs/K400/MVITv2_B.yaml DATA.PATH_TO_DATA_DIR /data/k400
torchrun --nproc-per-node 8 tools/run_net.py --cfg configs/K400/MVITv2_B.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from videonet.config import load_config
from videonet.engine.distributed import process
from videonet.engine.multiview import run_multiview_test
from videonet.engine.runlog import start_logging
from videonet.engine.train import Trainer
from videonet.errors import run_tool

logger = logging.getLogger("videonet.run_net")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, help="a YAML file, on disk or shipped by name")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the file")
    args = parser.parse_args()
    cfg = load_config(args.cfg, args.opts)
    with process(cfg.DEVICE, cfg.DIST_BACKEND) as this:
        start_logging(Path(cfg.OUTPUT_DIR), main=this.is_main)
        if cfg.TRAIN.ENABLE:
            Trainer(cfg, this).run()
            if this.is_main:
                logger.info("learning curve: %s", Path(cfg.OUTPUT_DIR, "learning_curve.png"))
        if cfg.TEST.ENABLE:
            results = run_multiview_test(cfg, this)
            if this.is_main:
                logger.info("confusion matrix: %s", Path(cfg.OUTPUT_DIR, "confusion.png"))
                print(json.dumps(results, indent=2))


if __name__ == "__main__":
    run_tool(main)
