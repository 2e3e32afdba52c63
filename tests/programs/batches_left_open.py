"""Ends with a training's batches left open; the thread loader must not have imported TensorFlow.

python batches_left_open.py LOADER        (threads or tfdata)
"""

import sys

from data import test_pipeline

from hourglass_jax.data import packed, pipeline  # noqa: F401  (packed must not import TensorFlow either)

loader = sys.argv[1]
batches = pipeline.batches(test_pipeline.ListSource(8), train=True, batch_size=4, loader=loader)
next(batches)
if loader == "threads":
    assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)
print("left")
