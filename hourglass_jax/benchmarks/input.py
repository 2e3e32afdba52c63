"""The input: samples per second and core on the host, and the cost of augmentation on the device.

Times are processor time, summed over all threads, so that other work on the machine has little effect. The
pictures are drawn frames, or those of a folder, each with a person in the middle.
"""

import contextlib
import io
import json
import pathlib
import tempfile

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hourglass_jax import config_base
from hourglass_jax.benchmarks.common import Step, interleaved
from hourglass_jax.data import packed, pipeline, synthetic
from hourglass_jax.media import pictures
from hourglass_jax.models.outputs import Outputs
from hourglass_jax.pose import crop, skeletons

QUALITY = 90  # of drawn frames; canvases have the quality of `CropConfig`
MARGIN = 1.5


def add(command) -> None:
    parser = command("input", help="decoding, batching and preparation, and augmentation on the device")
    parser.add_argument("--pictures", help="folder of .jpg frames (default: frames are drawn)")
    sizes = {"count": 20, "frame": 1280, "batch_size": 16, "batches": 40}
    network = {"size": 256, "stacks": 2, "width": 256, "depth": 4, "step_batch_size": 8}
    for name, value in (sizes | network).items():
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    parser.set_defaults(run=run)


def run(args) -> dict:
    """A row for each way from stored pictures to samples, and the share of a step outside the network."""
    from hourglass_jax.data import people_builder  # imports TFDS, which the other benchmarks do not need

    rng, seen = np.random.default_rng(0), args.batches * args.batch_size
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        frames = _frames(args, pathlib.Path(folder))
        crops = _stored(frames, pathlib.Path(folder), args.size * 3 // 2)
        config = people_builder.CropConfig(box="annotated", canvas=args.size * 3 // 2, margin=MARGIN)
        stored = [example["image"] for example in crops["packed"]]
        runs = {
            **{
                f"crops, source={name}": (lambda source=source: _feed(source, args), seen)
                for name, source in crops.items()
            },
            "crops, JPEG alone": (lambda: list(map(pipeline.decode, stored)), len(stored)),
            "frames, JPEG alone": (lambda: [pipeline.decode(frame[0]) for frame in frames], len(frames)),
            "frames, prepared": (lambda: [prepared(frame, config) for frame in frames], len(frames)),
            "frames, at every step": (
                lambda: [at_every_step(*frame, size=args.size, rng=rng) for frame in frames],
                len(frames),
            ),
        }
        calls = {name: call for name, (call, _) in runs.items()}
        seconds = interleaved(calls, args.rounds, clock="process_time")
    peer = len(frames) / seconds["frames, at every step"][1]
    rows = []
    for name, (_, count) in runs.items():
        low, median, high = (count / value for value in reversed(seconds[name]))
        rows.append(
            {
                "from": name,
                "images/s and core": round(median, 1),
                "quartiles": f"{low:.1f} to {high:.1f}",
                "times frames at every step": round(median / peer, 2),
            }
        )
    share, text = _share_of_step(args)
    kind = "pictures of a folder" if args.pictures else "drawn pictures"
    title = f"{len(frames)} {kind} to samples of {args.size} px, one thread; {text}"
    return {"title": title, "rows": rows, "share of the step": share}


@contextlib.contextmanager
def _one_thread():
    """Keeps OpenCV on one thread, because the time of waiting threads would be counted."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _frames(args, folder) -> list[tuple[bytes, np.ndarray, float]]:
    """(JPEG, centre, side of the nominal crop) of each frame; the side is the frame's height."""
    if args.pictures:
        paths = sorted(pathlib.Path(args.pictures).glob("*.jpg"))[: args.count]
        encoded = [path.read_bytes() for path in paths]
        if not encoded:
            raise FileNotFoundError(f"--pictures={args.pictures}: found no .jpg file.")
    else:
        people = synthetic.SyntheticPeople(split="frames", examples=args.count, canvas=args.frame)
        margin = args.frame * 7 // 32  # above and below, which gives 16:9
        pictures = [cv2.cvtColor(p["image"][margin : args.frame - margin], cv2.COLOR_RGB2BGR) for p in people]
        encoded = [
            cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes() for p in pictures
        ]
    sizes = [np.array(_decoded(one).shape[1::-1]) for one in encoded]
    return [(one, size / 2, float(size[1])) for one, size in zip(encoded, sizes, strict=True)]


def _decoded(encoded: bytes, reduction: int = 1) -> np.ndarray:
    image = pipeline.decode(encoded, reduction)
    if image is None:
        raise ValueError("--pictures: a file is not a readable JPEG.")
    return image


def _stored(frames, folder, canvas: int) -> dict:
    """The frames' people in COCO's format, prepared: {name of a source: training source}."""
    joints = skeletons.MPII.joints
    category = {"id": 1, "name": "person", "keypoints": list(joints)}
    content = {"categories": [category], "images": [], "annotations": []}
    for i, (encoded, center, side) in enumerate(frames):
        (folder / f"{i}.jpg").write_bytes(encoded)
        side /= 1.25  # the box is smaller than the crop
        content["images"].append({"id": i, "file_name": f"{i}.jpg"})
        box, places = [*(center - side / 2), side, side], [[*center, 2]] * len(joints)
        about = {"id": i, "image_id": i, "category_id": 1}
        content["annotations"].append(about | {"bbox": box, "keypoints": np.ravel(places).tolist()})
    path = folder / "people.json"
    path.write_text(json.dumps(content))
    config = {"annotations": str(path), "canvas": canvas, "margin": MARGIN}
    from hourglass_jax.data import preparation  # imports TFDS

    builder = preparation.builder("coco", data_dir=folder / "prepared", **config)
    preparation.prepare(builder)
    source = packed.TfdsSource(builder, "train")
    packed.write(source, folder / "people.npz")
    return {"tfds": source, "packed": packed.PackedSource(folder / "people.npz")}


def _feed(source, args) -> None:
    """Reads batches of a source, as in training."""
    options = {"batch_size": args.batch_size, "steps": args.batches, "threads": 1}
    batches = pipeline.batches(source, train=True, loader=source.loader, **options)
    with contextlib.closing(batches):
        for _ in batches:
            pass


def prepared(frame, config) -> dict:
    """Prepares a frame once: decode, cut, encode."""
    from hourglass_jax.data import people_builder  # imports TFDS

    encoded, center, side = frame
    nowhere = np.zeros((16, 2), np.float32)
    scale = side / crop.REFERENCE
    person = people_builder.Person("", pathlib.Path(), nowhere, np.zeros(16, np.uint8), center, scale)
    with Image.open(io.BytesIO(encoded)) as header:
        size = header.size
    factor = people_builder.reduction([person], config, *size)
    picture = pictures.Picture(_decoded(encoded, factor), size, reduction=factor)
    return people_builder.make_example(person, picture, config)


def at_every_step(encoded, center, side, *, size: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """A sample of a loader without stored crops, made on the host at every step.

    As the public loaders of the hourglass: decode the whole frame with Pillow, cut the person out with black
    outside the frame, shrink, warp, change colours in half of the cases, draw 16 targets.

    Returns:
      (size, size, 3) float32 in [0, 1], and targets (16, size / 4, size / 4) float32.
    """
    picture = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    side, corner = int(side), np.rint(center - side / 2).astype(int)
    whole = np.zeros((side, side, 3))  # float64, NumPy's default
    low, high = np.maximum(corner, 0), np.minimum(corner + side, picture.shape[1::-1])
    (x0, y0), (x1, y1) = low - corner, high - corner
    whole[y0:y1, x0:x1] = picture[low[1] : high[1], low[0] : high[0]]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-30, 30), rng.uniform(0.75, 1.25))
    image = cv2.warpAffine(cv2.resize(whole, (size, size)), turn, (size, size)).astype(np.float32) / 255
    if rng.random() < 0.5:
        image = _recoloured(image[:, ::-1], rng)
    return image, _painted(rng.uniform(0, size // 4, (16, 2)), size // 4)


def _recoloured(image, rng):
    """Another hue, saturation, brightness and contrast."""
    image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    image[..., 0] = np.mod(image[..., 0] + 72 * rng.uniform(-1, 1), 360)
    image[..., 1] = np.clip(image[..., 1] * rng.uniform(0.5, 1.5), 0, 1)
    image = cv2.cvtColor(image, cv2.COLOR_HSV2RGB) + np.float32(rng.uniform(-0.3, 0.3))
    mean = image.mean(axis=2, keepdims=True)
    return np.clip((image - mean) * np.float32(rng.uniform(0.5, 1.5)) + mean, 0, 1)


def _painted(joints, cells: int) -> np.ndarray:
    """Gaussians of deviation 1 in a window of 9 cells around each joint's cell."""
    maps = np.zeros((len(joints), cells + 8, cells + 8), np.float32)
    line = np.exp(-((np.arange(9) - 4.0) ** 2) / 2)
    for one, (x, y) in zip(maps, joints.astype(int), strict=True):
        one[y : y + 9, x : x + 9] = line[:, None] * line
    return maps[:, 4:-4, 4:-4]


class Empty(nn.Module):
    """Replaces a network: its heatmaps depend on every pixel of the image, and on nothing else."""

    joints: int
    stacks: int

    @nn.compact
    def __call__(self, image, train=False):
        seen = self.param("weight", nn.initializers.ones, ()) * image.sum(axis=(1, 2, 3))
        b, cells = len(image), image.shape[1] // 4
        maps = jnp.broadcast_to(seen[:, None, None, None], (b, cells, cells, self.joints))
        return Outputs(heatmaps=(maps,) * self.stacks)


def _share_of_step(args) -> tuple[float, str]:
    """The share of augmentation, targets and loss in the processor time of a train step, and a sentence."""
    config = config_base.named("newell").get_config(
        f"stacks={args.stacks},width={args.width},size={args.size},dataset=synthetic"
    )
    config.model.depth, config.train.batch_size = args.depth, args.step_batch_size
    config.data.examples = (args.step_batch_size, 1)
    steps = {"whole": Step(config), "empty": Step(config, Empty(joints=16, stacks=args.stacks))}
    seconds = interleaved(steps, args.rounds, clock="process_time")
    whole, empty = (seconds[name][1] for name in ("whole", "empty"))
    return empty / whole, (
        f"augmentation, targets and loss take {1000 * empty:.0f} of the {1000 * whole:.0f} ms of processor "
        f"time of a step of {args.step_batch_size}, {args.stacks} stacks ({100 * empty / whole:.1f} %)"
    )
