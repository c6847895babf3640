"""What a training script does, without training: rounds, a curve, a checkpoint after each of them."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
resumed = "--resume" in options
folder = Path(options["--resume" if resumed else "--log-dir"])
checkpoint, curve = folder / "checkpoint", folder / "curve.csv"


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
config: dict[str, Any]
if resumed:
    config = json.loads((folder / "config.json").read_text())["config"]
else:
    config = {name[2:].replace("-", "_"): value for name, value in options.items() if name != "--log-dir"}
    config["seed"] = int(config["seed"])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"kind": "tiny", "config": config}))
    curve.write_text("round\n")
behaviour = config["behaviour"]
marker = folder.parent / f"{folder.name}-died"
if behaviour == "fails":
    print("\n".join(f"line {number}" for number in range(1, 9)))
    sys.exit("the reason")
if behaviour == "dies-at-once" and not marker.exists():
    marker.touch()
    kill_myself()
done = int(checkpoint.read_text()) if resumed else 0
for number in range(done + 1, int(options["--rounds"]) + 1):
    if behaviour == "always-dies" or (behaviour == "dies-once" and number == 3 and not resumed):
        kill_myself()
    if behaviour == "kills-its-parent" and number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.05 if behaviour == "slow" else 0)
    checkpoint.with_suffix(".partial").write_text(str(number))
    os.replace(checkpoint.with_suffix(".partial"), checkpoint)
    with curve.open("a") as file:
        file.write(f"{number}\n")
    if stopped:
        sys.exit(130)
