"""Train and test a model as a configuration says.

python tools/run_net.py --cfg configs/K400/MVITv2_B.yaml DATA.PATH_TO_DATA_DIR /data/k400
torchrun --nproc-per-node 8 tools/run_net.py --cfg configs/K400/MVITv2_B.yaml
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from fvcore.common.config import CfgNode

from videonet.config.command_line import load_configs, training_parser
from videonet.engine.distributed import process
from videonet.engine.lock import only_run_in
from videonet.engine.multiview import run_multiview_test
from videonet.engine.parent import end_with_torchrun
from videonet.engine.runlog import start_logging
from videonet.engine.train import Trainer
from videonet.errors import run_tool

logger = logging.getLogger("videonet.run_net")


def main() -> None:
    start_logging(main=os.environ.get("RANK", "0") == "0")
    configs = load_configs(training_parser(__doc__).parse_args())
    with end_with_torchrun():
        for cfg in configs:
            run(cfg)


def run(cfg: CfgNode) -> None:
    with process(cfg.DEVICE, cfg.DIST_BACKEND) as this, only_run_in(cfg.OUTPUT_DIR, this):
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
