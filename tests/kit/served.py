"""A server for `--serve`, as vLLM is started: `python -m tests.kit.served MODEL --port PORT`.

Starts a child of its own, as vLLM does, and writes both process ids to `$SERVED_LOG`. It ends with
a message when MODEL is `broken`, and ignores SIGTERM when MODEL is `stubborn`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> None:
    model, port = sys.argv[1], sys.argv[3]
    if model == "broken":
        sys.exit("out of memory: try a smaller model")
    if model == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = subprocess.Popen(["sleep", "1000"])
    with Path(os.environ["SERVED_LOG"]).open("a") as log:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
        log.write(f"{os.getpid()} {helper.pid} {gpu}\n")
    from tests.kit import model_server

    sys.argv = ["model_server", "--port", port, "--latency", "0.02"]
    model_server.main()


if __name__ == "__main__":
    main()
