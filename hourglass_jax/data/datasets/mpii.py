"""MPII Human Pose (Andriluka et al., CVPR 2014) as a TFDS dataset."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from hourglass_jax.data import people_builder
from hourglass_jax.data.datasets import mpii_annotations
from hourglass_jax.pose import skeletons

MATLAB = "mpii_human_pose_v1_u12_1.mat"


class Mpii(people_builder.PeopleBuilder, skip_registration=True):
    """MPII Human Pose: 25,204 people in everyday activities with 16 joints, and 11,731 for testing.

    The people for training and validation are those of Tompson et al. (CVPR 2015); `catalogue` calls both
    together train_all. The test people have a place and a size, but no public joints; they need the
    benchmark's own file. The head size is 0.6 of the head box's diagonal or, without a head box, 0.75 of the
    distance from upper neck to head top.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Download mpii_human_pose_v1.tar.gz (images) and mpii_human_pose_v1_u12_2.zip (annotations) by Andriluka et
al.: http://human-pose.mpi-inf.mpg.de, for research, to be cited. Unpack both in MANUAL_DIR/mpii, so that
MANUAL_DIR/mpii/images exists and the .mat file is in MANUAL_DIR/mpii or in its own folder there. Instead of
the .mat file, you can use mpii_annotations.json (or .json.gz) of the PyTorch ports. It has no test people,
no activities and no head boxes.
"""
    BUILDER_CONFIGS = [people_builder.CropConfig(box=box) for box in ("annotated", "joints", "image")]
    homepage = "http://human-pose.mpi-inf.mpg.de"
    license = "Annotations: Simplified BSD, for research. The pictures' rights are those of the videos."
    citation = """\
@inproceedings{andriluka2014mpii,
  title={2D Human Pose Estimation: New Benchmark and State of the Art Analysis},
  author={Andriluka, Mykhaylo and Pishchulin, Leonid and Gehler, Peter and Schiele, Bernt},
  booktitle={Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year={2014}
}"""
    skeleton = skeletons.MPII
    folder = "mpii"
    layouts = (
        (MATLAB,),
        (f"mpii_human_pose_v1_u12_2/{MATLAB}",),
        ("mpii_annotations.json.gz",),
        ("mpii_annotations.json",),
    )
    extras = {
        # Positions in MPII's own list, from 0: the benchmark's server needs predictions in this order.
        **{"image_index": np.int32, "person_index": np.int32},
        **{"category": tfds.features.Text(), "activity": tfds.features.Text()},
        "others": tfds.features.Tensor(shape=(None, 16, 3), dtype=np.float32),  # x, y, visible
    }

    def people(self, annotations):
        everybody = {(a.image, a.person): a for a in mpii_annotations.read(annotations)}
        places = {
            name: [(int(i), int(j)) for i, j in rows] for name, rows in mpii_annotations.split().items()
        }
        splits = {}
        for name, wanted in places.items():
            if lacking := [place for place in wanted if place not in everybody]:
                image, person = lacking[0]
                raise ValueError(
                    f"{annotations}: lacks {len(lacking):,} of the {len(wanted):,} people of {name} ("
                    f"annolist({image + 1}).annorect({person + 1}) first); download it again"
                )
            splits[name] = [everybody[place] for place in wanted]
        for a in (a for a in everybody.values() if not a.training):
            if np.isfinite([a.scale, *a.center]).all():
                splits.setdefault("test", []).append(a)
            else:
                self.remark(f"not in test: {a.picture}: {a.id}: no centre or no scale")
        folders = [folder / "images" for folder in annotations.parents[:2]]
        images = next((folder for folder in folders if folder.is_dir()), folders[0])
        return {name: [_person(a, images) for a in found] for name, found in splits.items()}


def _person(a: mpii_annotations.Annotation, images: Path) -> people_builder.Person:
    """As in the released hourglass code: the crop is a quarter larger than the person, and slightly lower."""
    return people_builder.Person(
        id=a.id,
        picture=images / a.picture,
        joints=a.joints.astype(np.float32),
        visible=a.visible,
        center=a.center + (0, 15 * a.scale),
        scale=1.25 * a.scale,
        head_size=a.head_size,
        extras={
            **{"image_index": a.image, "person_index": a.person, "others": a.others},
            **{"category": a.category, "activity": a.activity},
        },
    )
