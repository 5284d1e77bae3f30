"""Measures one kdaug command: wall time, CPU time, peak memory, and the sizes of the pages that it writes.

    python tools/measure_command.py NAME FILE.json inspect demo --out runs/inspection

Adds an entry NAME to FILE.json. Peak memory is that of the largest process (resident set). Pages are the HTML files in
the folder of --out. Run it on a machine that does nothing else; the load before is recorded.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from harness.machine import load_average, this_machine


def measure(arguments: list[str]) -> dict[str, object]:
    """Runs `kdaug` with `arguments`; its output goes to the terminal. Raises CalledProcessError if it fails."""
    load, start = load_average(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "kdaug", *arguments], check=True)
    seconds, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "command": " ".join(["kdaug", *arguments]),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mib": usage.ru_maxrss // 1024,
        "page_mib": {page.name: round(page.stat().st_size / 2**20, 2) for page in pages(arguments)},
        "load_before": load,
        "machine": asdict(this_machine()),
    }


def pages(arguments: list[str]) -> list[Path]:
    if "--out" not in arguments:
        return []
    return sorted(Path(arguments[arguments.index("--out") + 1]).glob("*.html"))


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    name, file = sys.argv[1], Path(sys.argv[2])
    entries = json.loads(file.read_text()) if file.exists() else {}
    entries[name] = measure(sys.argv[3:])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries, indent=1) + os.linesep)
    print({key: value for key, value in entries[name].items() if key != "machine"})


if __name__ == "__main__":
    main()
