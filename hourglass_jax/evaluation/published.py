"""The scores that the papers report for their own networks, in per cent."""

import dataclasses

import numpy as np

_PARTS = "Head Sho Elb Wri Hip Knee Ank Mean"
_LIMBS = "Torso U.Leg L.Leg U.Arm Forearm Head Mean"

# Selvam and Mishra name these nine groups and do not define them: MPII's categories and activities are mixed.
SELVAM = "Selvam's groups"
SELVAM_GROUPS = (
    *("Standing", "Walking", "Dancing", "Skiing", "Exercising", "Bicycling"),
    *("Mountain biking", "Volleyball", "Basketball"),
)
OCCLUDED, HARD = "occluded joints", "ten hard joints, mean of parts"


@dataclasses.dataclass(frozen=True)
class Published:
    """A table of the papers.

    Attributes:
      metric: as in `Scores.metric`, with the table's restriction, such as "PCKh@0.5, occluded joints".
      data: the data, in the papers' words.
      columns: the titles of the columns.
      rows: by paper and table, a number or "-" for each column.
      prose: the numbers are from the papers' running text.
    """

    metric: str
    data: str
    columns: tuple[str, ...]
    rows: dict[str, str]
    prose: bool = False

    def table(self) -> dict[str, dict[str, float]]:
        """{row: {column: per cent}}, without the cells that the paper leaves out."""
        found = {}
        for name, text in self.rows.items():
            cells = zip(self.columns, text.split(), strict=True)
            found[name] = {column: float(rate) for column, rate in cells if rate != "-"}
        return found


# MSSH and Chu et al. print the row of Newell et al., who show a figure for the test set.
PUBLISHED = (
    Published(
        "PCKh@0.5",
        "MPII test",
        tuple(_PARTS.split()),
        {
            "Newell et al. 2016": "98.2 96.3 91.2 87.1 90.1 87.4 83.6 90.9",
            "Chu et al. 2017": "98.5 96.3 91.9 88.1 90.6 88.0 85.0 91.5",
            "MSSH 2019": "98.0 96.4 91.8 87.5 90.4 87.8 84.2 91.2",
            "Tang and Wu 2019": "98.7 97.1 93.1 89.4 91.9 90.1 86.7 92.7",
        },
    ),
    Published(
        "PCKh@0.5",
        "MPII validation",
        tuple(_PARTS.split()),
        {
            # In the predictions that the authors released the final wrist is 83.4; the other values agree.
            "Newell et al. 2016, Table 1, first of two hourglasses": "96.7 92.9 85.0 79.8 83.7 78.6 74.3 -",
            "Newell et al. 2016, Table 1, final": "97.7 94.6 88.5 88.3 87.5 83.0 79.0 -",
            "Tang and Wu 2019, Table 2": "97.5 96.5 91.7 87.7 91.1 87.7 85.2 91.8",
        },
    ),
    Published(
        "PCKh@0.5",
        "MPII validation, MSSH's ablations (5.2)",
        ("Mean",),
        {
            "MSSH 2019, stacked hourglass": "88.78",
            "MSSH 2019, several scales with adaptive weights": "89.25",
            "MSSH 2019, inception-resnet-A": "89.91",
            "MSSH 2019, inception-resnet-B": "82.95",
            "MSSH 2019, residual units": "89.19",
            "MSSH 2019, lateral connections": "88.66",
            "MSSH 2019, fusion by concatenation": "89.36",
        },
        prose=True,
    ),
    Published(
        f"PCKh@0.5, {OCCLUDED}",
        "MPII validation",
        tuple(_PARTS.split()),
        {
            "Tang and Wu 2019, Table 3": "- 92.0 76.2 64.6 86.1 70.3 63.2 78.2",
            # Table 7's mean is the plain mean of its five parts.
            "Tang and Wu 2019, Table 7, deep baseline": "- - 75.05 62.10 83.43 69.30 61.57 70.29",
            "Tang and Wu 2019, Table 7": "- - 75.14 64.12 85.28 69.92 63.48 71.59",
        },
    ),
    Published(
        f"PCKh@0.5, {HARD}",
        "MPII validation",
        ("occluded", "visible", "all"),
        {
            "Tang and Wu 2019, Table 6, deep baseline": "70.29 93.22 87.74",
            "Tang and Wu 2019, Table 6": "71.59 93.31 88.14",
        },
    ),
    Published(
        f"PCKh@0.5, {HARD}",
        "MPII validation, Tang's ablations (4.3)",
        ("all",),
        {
            "Tang and Wu 2019, three stacks": "87.30",
            "Tang and Wu 2019, three stacks, specific features fused": "87.21",
            "Tang and Wu 2019, eight stacks, specific features fused": "87.68",
        },
        prose=True,
    ),
    Published(
        "PCK@0.2",
        "LSP test",
        tuple(_PARTS.split()),
        {
            "Chu et al. 2017": "98.1 93.7 89.3 86.9 93.4 94.0 92.5 92.6",
            "MSSH 2019": "96.9 92.5 87.7 85.2 92.7 93.3 91.7 91.4",
            "Tang and Wu 2019": "98.6 95.4 93.3 89.8 94.3 95.7 94.4 94.5",
        },
    ),
    Published(
        "PCK@0.2",
        "LSP test with corrected annotations",
        tuple(_PARTS.split()),
        {"Tang and Wu 2019, Table 5": "98.7 96.4 94.3 90.6 95.2 97.2 95.7 95.4"},
    ),
    Published(
        "PCP@0.5", "LSP test", tuple(_LIMBS.split()), {"MSSH 2019": "97.9 94.3 91.4 86.6 78.5 95.7 89.5"}
    ),
    Published(
        "PCK@0.2",
        "FLIC test",
        ("Shoulder", "Elbow", "Wrist"),
        {"Newell et al. 2016, one hourglass, observer-centric": "99.4 98.2 95.2"},
        prose=True,
    ),
    Published(
        "average accuracy",
        "MPII",
        ("Mean",),
        {
            "Selvam and Mishra 2019, baseline (Fig. 3)": "83.2",
            "Selvam and Mishra 2019, global attention (Fig. 4)": "86.7",
            "Selvam and Mishra 2019, heatmap attention (Fig. 5)": "78.6",
            "Selvam and Mishra 2019, multi-resolution attention (Fig. 6)": "84.1",
        },
        prose=True,
    ),
    Published(
        f"average accuracy, {SELVAM}",
        "MPII, by activity",
        SELVAM_GROUPS,
        {
            "Selvam and Mishra 2019, baseline": "81.93 93.62 76.67 84.29 82.82 83.12 80.00 60.2 78.42",
            "global attention": "83.86 92.98 76.67 81.43 87.00 82.69 82.38 62.46 80.18",
            "heatmap attention": "81.93 89.36 76.67 80.00 79.90 79.89 73.31 60.82 78.42",
            "multi-resolution attention": "85.44 89.36 76.67 84.29 87.00 83.12 80.00 67.38 81.93",
        },
    ),
)


def groups(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The groups of people with tables of their own, {title: (n,) str}.

    Args:
      columns: (n,) str; MPII's "category" and "activity" are used, others are ignored.
    """
    found = {name: columns[name] for name in ("category", "activity") if name in columns}
    if len(found) == 2:
        pairs = zip(found["category"], found["activity"], strict=True)
        found[SELVAM] = np.array([selvam_group(str(category), str(activity)) for category, activity in pairs])
    return found


def selvam_group(category: str, activity: str) -> str:
    """The group of Selvam's Table 2 for MPII's category and activity, "" for none.

    If the table's word occurs in MPII's activities, the activity decides, else MPII's category. Mountain
    biking does not also count as bicycling.
    """
    category, activity = category.lower(), activity.lower()
    if "mountain" in activity and "bicycl" in activity:
        return "Mountain biking"
    for word, group in (("volleyball", "Volleyball"), ("basketball", "Basketball"), ("skiing", "Skiing")):
        if word in activity:
            return group
    if activity.startswith("standing"):
        return "Standing"
    by_category = {
        "walking": "Walking",
        "dancing": "Dancing",
        "conditioning exercise": "Exercising",
        "bicycling": "Bicycling",
    }
    return by_category.get(category, "")
