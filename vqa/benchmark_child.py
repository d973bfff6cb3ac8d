"""One training in processes of its own, for the benchmark: `python -m vqa.benchmark_child --data …`.

Belongs here: what only a process of its own can tell, the most memory it ever took. It prints one line of JSON.
"""

import json
import os
import resource
import threading
import time
from pathlib import Path

from common.config import parse
from common.errors import command
from vqa.options import TrainVqaOptions


@command
def main() -> None:
    options = parse(TrainVqaOptions)
    from vqa.train import train

    own, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            own[0] = max(own[0], private_bytes())

    threading.Thread(target=watch, daemon=True).start()
    started = time.perf_counter()
    train(options)
    done.set()
    if os.environ.get("RANK", "0") == "0":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes, on Linux
        workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest
        found = {"peak": peak, "own": own[0], "worker": workers, "seconds": time.perf_counter() - started}
        print("benchmark " + json.dumps(found), flush=True)


def private_bytes() -> int:
    """Memory that is this process's alone: not the pages of mapped files, which the system takes back as it needs."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
