"""The page of the papers' elements: it is complete, and its configs, commands and files exist."""

import pathlib
import re

import pytest

from hourglass_jax import config_base

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "papers.md").read_text()
# Figures, tables and numbered equations of each paper.
ELEMENTS = {
    "Newell": (11, 1, 0),
    "Chu": (11, 2, 14),
    "Selvam": (9, 2, 8),
    "MSSH": (10, 3, 7),
    "Tang": (8, 7, 1),
}


@pytest.mark.parametrize("paper", ELEMENTS)
def test_every_figure_table_and_equation_has_its_row(paper):
    section = re.split(r"^## ", TEXT, flags=re.M)
    (section,) = [text for text in section if text.startswith(paper)]
    rows = re.findall(r"^\| ((?:Figure|Table|Equation) \d+) \|", section, flags=re.M)
    counts = zip(("Figure", "Table", "Equation"), ELEMENTS[paper], strict=True)
    assert rows == [f"{kind} {i}" for kind, count in counts for i in range(1, count + 1)]
    for row in section.splitlines():
        if row.startswith("| ") and not row.startswith("| element"):
            assert re.search(r"exact|decided|missing|not trained|not possible", row.split("|")[3]), row


def test_configs_and_files_of_the_page_exist():
    configs = re.findall(r"`((?:newell|chu|selvam|mssh|tang):[^`]+)`", TEXT)
    for name, _, arguments in (config.partition(":") for config in configs):
        config_base.named(name).get_config(arguments)  # refuses unknown arguments
    files = re.findall(r"`(hourglass_jax/[^`]+)`", TEXT)
    assert len(configs) > 40 and len(files) > 30
    assert all((ROOT / file).is_file() for file in files)
