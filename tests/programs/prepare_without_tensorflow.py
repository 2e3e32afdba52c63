"""Prepares LSP extended and reads it in batches: TensorFlow must not be imported.

python prepare_without_tensorflow.py DATA_DIR MANUAL_DIR
"""

import sys

from hourglass_jax.data import packed, pipeline, preparation

data_dir, manual_dir = sys.argv[1:]
builder = preparation.builder("lspet", data_dir=data_dir, canvas=48)
preparation.prepare(builder, manual_dir=manual_dir)
source = packed.TfdsSource(builder, "train")
assert len(list(pipeline.batches(source, train=False, batch_size=6, loader="threads"))) == 3
assert "tensorflow" not in sys.modules
