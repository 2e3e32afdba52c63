"""Contact sheets of an evaluation: annotation, prediction, heatmaps and attention of the first people."""

import cv2
import numpy as np

from hourglass_jax.evaluation.results import Predictions
from hourglass_jax.media import draw
from hourglass_jax.network import Network

_TILE = 192  # px, least size of a drawn crop
_ATTENDED = 4  # examples whose attention is drawn; eight stacks have 40 maps per example


def predictions_sheet(predictions: Predictions, network: Network) -> np.ndarray:
    """(h, w, 3) uint8: annotated | predicted | all heatmaps, for each kept example."""
    skeleton, tiles = network.skeleton, []
    zoom = -(-_TILE // network.size)  # small inputs are enlarged, so that the lines stay thin
    for kept in predictions.pictures:
        image = cv2.resize(kept["crop"], None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        everything = np.ones(len(skeleton), bool)
        tiles.append(draw.skeleton(image, zoom * kept["truth"], kept["labelled"], skeleton))
        tiles.append(draw.skeleton(image, zoom * kept["joints"], everything, skeleton))
        tiles.append(draw.heatmap(image, kept["heatmaps"].max(axis=-1)))
    return draw.sheet(tiles, columns=6)


def stacks_sheet(predictions: Predictions) -> np.ndarray | None:
    """A row for each of the first few examples: the crop, and the heatmaps of each stack (MSSH, Figure 3).

    Returns:
      (h, w, 3) uint8, the largest value of all joints at each cell; None without examples, or for one stack.
    """
    kept = [one for one in predictions.pictures[:_ATTENDED] if len(one["stacks"]) > 1]
    if not kept:
        return None
    tiles = []
    for one in kept:
        image = cv2.resize(one["crop"], (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)
        tiles.append(draw.titled(image, ""))
        for number, maps in enumerate(one["stacks"], 1):
            title = f"stack {number}, {maps.shape[0]} cells"
            tiles.append(draw.titled(draw.heatmap(image, maps), title))
    return draw.sheet(tiles, columns=1 + len(kept[0]["stacks"]))


def attention_sheet(predictions: Predictions) -> np.ndarray | None:
    """(h, w, 3) uint8: attention maps of the first few kept examples; None for a network without any."""
    kept = [one for one in predictions.pictures[:_ATTENDED] if one["attention"]]
    if not kept:
        return None
    return np.concatenate([draw.attention_sheet(one["crop"], one["attention"]) for one in kept])
