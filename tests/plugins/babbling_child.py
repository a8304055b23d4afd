"""A training process that does not keep to the messages; its setting says how."""

import sys

from pipelines.training.messages import LONGEST_BYTES, TrainingJob

SAYS = {
    "bytes": b"\xff\xfe\x00\n",
    "a list": b"[]\n",
    "unknown": b'{"type": "greeting"}\n',
    "wrong values": b'{"type": "progress", "stage": "x", "done": "much", "total": null}\n',
    "another folder": b'{"type": "preview", "stage": "x", "step": 1, "path": "../../run.json"}\n',
    "an attempt": b'{"type": "attempt", "found": {"target": "x", "refused": true, "error": ""}}\n',
    "no end": b'"' + b"x" * (LONGEST_BYTES + (1 << 17)),
    "half of one": b'{"type": "resu',
    "nothing": b"",
}

if __name__ == "__main__":
    job = TrainingJob.model_validate_json(sys.stdin.buffer.readline())
    sys.stdout.buffer.write(SAYS[job.settings["says"]])
    sys.stdout.buffer.flush()
