"""Ends with a training's batches left open; the thread loader must not have imported TensorFlow.

python batches_left_open.py LOADER        (threads or tfdata)
"""

import sys

from hourglass_jax.data import packed, pipeline, synthetic  # noqa: F401  (packed must not import TensorFlow)

loader = sys.argv[1]
source = synthetic.SyntheticPeople(split="train", examples=8, canvas=48)
batches = pipeline.batches(source, train=True, batch_size=4, loader=loader)
next(batches)
if loader == "threads":
    assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)
print("left")
