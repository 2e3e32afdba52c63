"""Recognises files of tools that cannot be read, and says how to convert them; without TensorFlow."""

import itertools
import json
from pathlib import Path

SMALL = 2**16  # bytes that are enough to recognise a file
_COCO = "expected COCO keypoints, {images: [...], annotations: [...], categories: [...]}"
_SLEAP = "a project of SLEAP; convert it with load_file() and save_coco() of sleap-io to COCO keypoints"


def looks(path, dataset: str) -> str:
    """The end of a message about a file that is not of the format `dataset`: what it looks like, or ""."""
    found = hint(path)
    return "" if not found or f"--dataset={dataset}" in found else f"; it looks like {found}"


def hint(path) -> str:
    """The tool that probably wrote this file, in words, and what to do; "" if it is unknown."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            begin = file.read(SMALL)
    except OSError:
        return ""
    if begin.startswith(b"\x89HDF") and path.suffix.lower() in (".slp", ".h5"):
        return _SLEAP if path.suffix.lower() == ".slp" else ""
    text = begin.decode("utf-8-sig", errors="replace").lstrip()
    if text.startswith("<"):
        return "XML, such as CVAT's own; export the task as COCO Keypoints 1.0"
    if text.startswith("scorer,"):
        return "a table of DeepLabCut's; use --dataset=dlc"
    if text.startswith("filename,file_size,file_attributes"):
        return _of_regions("a table of VIA's")
    if path.suffix.lower() in (".yaml", ".yml"):
        return "YOLO pose's data.yaml; use --dataset=yolo" if "kpt_shape" in text else ""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return of_json(content)


def of_json(content) -> str:
    """As `hint`, for the content of a json file."""
    if isinstance(content, dict):
        if "shapes" in content and "imagePath" in content:
            return "labelme's file of one picture; use --dataset=labelme with the folder of all of them"
        some = content.get("_via_img_metadata", content)
        rows = list(itertools.islice(some.values(), 3)) if isinstance(some, dict) else []
        if "_via_img_metadata" in content or any(isinstance(row, dict) and "regions" in row for row in rows):
            return _of_regions("a project of VIA")
        return "COCO's format; use --dataset=coco" if {"images", "annotations"} <= content.keys() else ""
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict):
        return ""
    if "data" in first and ("annotations" in first or "completions" in first):
        return "Label Studio's own json; export the project as COCO with keypoints and boxes"
    if {"joints", "joints_vis"} <= first.keys():
        return "MPII's people in HRNet's and mmpose's json; --dataset=mpii reads MPII's own .mat or valid.h5"
    if "keypoints" in first and "image_id" in first:
        return f"COCO results, which are predictions; {_COCO}"
    return ""


def _of_regions(what: str) -> str:
    return f"{what}, which has no joint sets; convert it to COCO keypoints"
