"""Prints the SHA-256 of three training batches that THREADS threads load.

python batches_digest.py THREADS
"""

import hashlib
import sys

from hourglass_jax.data import pipeline, synthetic

source = synthetic.SyntheticPeople(split="train", examples=20, canvas=48)
options = {"train": True, "batch_size": 8, "seed": 3, "steps": 3, "loader": "threads"}
digest = hashlib.sha256()
for batch in pipeline.batches(source, threads=int(sys.argv[1]), **options):
    for name in sorted(batch):
        digest.update(name.encode() + batch[name].tobytes())
print(digest.hexdigest())
