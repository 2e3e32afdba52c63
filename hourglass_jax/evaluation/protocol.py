"""How a network is evaluated: its views of a person, how they are averaged, and how heatmaps are decoded."""

import dataclasses

CHU, PYRANET = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2), (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)  # crop sizes / nominal

# The papers' protocols: (whether to use the flipped image, the factors of the crop's size). A factor below 1
# is a smaller crop, which enlarges the person (test/main.lua of Chu's release, evalPyra.lua of PyraNet, which
# Tang cites for the pyramid). MSSH does not mention the flipped image; it builds on Newell's code. Selvam and
# Mishra regress coordinates from one view.
PROTOCOLS: dict[str, tuple[bool, tuple[float, ...]]] = {
    "newell": (True, (1.0,)),
    "chu": (True, CHU),
    "tang": (True, PYRANET),
    "mssh": (True, (1.0,)),
    "selvam": (False, (1.0,)),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Options of `inference.Estimator`, and the crop to which they are applied.

    Attributes:
      flip: average with the flipped image.
      scales: scales of a pyramid; at 1.2 the person is 1.2 times larger than in the nominal crop.
      decode: see `heatmaps.decode`.
      released: average a pyramid as in Chu's released code, see `inference.Estimator`.
      name: the paper, a key of `PROTOCOLS`; "": options of your own.
      crop: the source of the people's places and sizes: "joints", "image" or "annotated" (see
        `people_builder.CropConfig`), several joined by "+"; "" if unknown.
    """

    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    decode: str = "quarter"
    released: bool = False
    name: str = ""
    crop: str = ""

    @classmethod
    def named(cls, name: str, *, decode: str = "quarter", crop: str = "") -> "Protocol":
        """A paper's protocol.

        Raises:
          ValueError: an unknown name.
        """
        if name not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise ValueError(f"evaluate.protocol={name!r} is unknown; choose {known}, or leave it empty.")
        flip, factors = PROTOCOLS[name]
        return cls(flip, tuple(1 / factor for factor in factors), decode, True, name, crop)

    @classmethod
    def from_config(cls, options, crop: str = "") -> "Protocol":
        """The protocol of a config's section `evaluate`; a named one replaces its `flip` and `scales`."""
        if name := options.get("protocol", ""):
            return cls.named(name, decode=options.decode, crop=crop)
        return cls(flip=options.flip, scales=tuple(options.scales), decode=options.decode, crop=crop)

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:.3g}" for scale in self.scales)
        parts = [f"crop: {self.crop}"] if self.crop else []
        parts += [f"protocol: {self.name}"] if self.name else []
        parts += ["flip" if self.flip else "no flip", f"scales {scales}", self.decode]
        return ", ".join(parts)

    def to_dict(self) -> dict:
        """A plain dictionary, stored with every score."""
        return dataclasses.asdict(self)

    def estimator_options(self) -> dict:
        """Keyword arguments of `inference.Estimator`."""
        return {name: getattr(self, name) for name in ("flip", "scales", "decode", "released")}
