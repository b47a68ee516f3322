"""`python -m bench.worker`: one of several processes that write to one file; `bench.concurrency` starts it.

Says "ready", waits for a line, writes, and prints what it took as JSON. In this process there is one SQLite library.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench import contenders, data


def main() -> None:
    """Write so many tasks, each in a transaction of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description=__doc__)
    parser.add_argument("contender", choices=contenders.CONTENDERS)
    parser.add_argument("path", type=Path)
    parser.add_argument("place", type=int, help="the number of this process among all of the run")
    parser.add_argument("writes", type=int)
    options = parser.parse_args()
    data.begin_at(options.place)
    contender = contenders.load(options.contender)
    contenders.open_one(contender, options.path)
    items = [contender.new(data.fresh_values()) for _ in range(options.writes)]
    print("ready", flush=True)
    sys.stdin.readline()
    worst, errors, begun = 0.0, 0, time.monotonic()
    last = begun
    for item in items:
        try:
            contender.create(item)
        except Exception:  # noqa: BLE001 - each library has a class of its own for "locked"; it is counted
            errors += 1
        now = time.monotonic()
        worst, last = max(worst, now - last), now
    # the monotonic clock is that of the machine: the parent compares the processes by it
    print(json.dumps({"begun": begun, "ended": last, "worst": worst, "errors": errors}), flush=True)
    contender.close()


if __name__ == "__main__":
    main()
