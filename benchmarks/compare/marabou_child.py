"""Marabou as a process, run by an interpreter that has maraboupy: a JSON request a line on stdin, a JSON reply a line.

Request {"network", "property", "seconds"}: files and the limit in CPU seconds, at which the process ends by SIGPROF.
Reply {"verdict", "seconds", "cpu_seconds", "build_seconds", "inputs", "error"}: building the query from the network,
which is read once, is counted apart.
"""

import json
import os
import signal
import sys
import time

replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # Marabou prints

from maraboupy import Marabou, MarabouCore  # noqa: E402  (after the move: importing warns)

networks = {}


def solve(request):
    path = request["network"]
    if path not in networks:
        networks[path] = Marabou.read_onnx(path)
    started = time.perf_counter()
    query = networks[path].getInputQuery()
    built, cpu = time.perf_counter(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])
    MarabouCore.loadProperty(query, request["property"])
    word, values, _ = MarabouCore.solve(query, Marabou.createOptions(numWorkers=1, verbosity=0), "")
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    ended = time.perf_counter()
    variables = networks[path].inputVars[0].ravel().tolist()
    return {
        "verdict": word if word in ("sat", "unsat") else "unknown",
        "seconds": ended - built,
        "cpu_seconds": time.process_time() - cpu,
        "build_seconds": built - started,
        "inputs": [values[variable] for variable in variables] if values else None,
        "error": None if word in ("sat", "unsat") else word,
    }


for line in sys.stdin:
    try:
        reply = solve(json.loads(line))
    except Exception as error:
        reply = {"verdict": "error", "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), file=replies, flush=True)
