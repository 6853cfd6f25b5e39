"""Reads the event files of a run with the real tensorboard package, and holds them against its metrics.jsonl.

    python scripts/check_tensorboard.py RUN        # needs: pip install tensorboard==2.21.0
"""

import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
tags = set(events.Tags()["scalars"])
checked = 0
for line in (run / "metrics.jsonl").read_text().splitlines():
    event = json.loads(line)
    if event["event"] == "epoch":
        step, values = event["epoch"], dict(event["losses"] + event.get("figures", []))
        values |= {"lr": event["lr"], "images_per_second": event["images_per_second"]}
    elif event["event"] == "figures":
        step, values = 0, dict(event["figures"])
    else:
        continue
    for name, value in values.items():
        tag = f"{event['stage']}/{name}"
        assert tag in tags, f"no {tag} among {sorted(tags)}"
        found = [scalar.value for scalar in events.Scalars(tag) if scalar.step == step]
        near = any(abs(one - value) <= 1e-5 * max(abs(value), 1e-3) for one in found)
        assert near, f"{tag} at {step}: {found}, and {value} in metrics.jsonl"
        checked += 1
assert checked > 0, "no epoch in metrics.jsonl"
assert any(tag.endswith("/step_loss") for tag in tags), "no losses of steps"
print(f"{checked} scalars as in metrics.jsonl, {len(tags)} tags")
