"""How a network is evaluated: the views it sees, how they are averaged, and how heatmaps become joints."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Options of `inference.Estimator`, and the crop they are applied to.

    Attributes:
      flip: average with the mirrored image.
      scales: of a pyramid; at 1.2 the person is 1.2 times larger than in the nominal crop.
      decode: see `heatmaps.decode`.
      crop: where the people's places and sizes come from: "joints", "image" or "annotated" (see
        `people_builder.CropConfig`), several joined by "+"; "" where unknown.
    """

    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    decode: str = "quarter"
    crop: str = ""

    @classmethod
    def from_config(cls, options, crop: str = "") -> "Protocol":
        """Of a config's section `evaluate`."""
        return cls(flip=options.flip, scales=tuple(options.scales), decode=options.decode, crop=crop)

    def to_dict(self) -> dict:
        """A plain dictionary, stored beside every score."""
        return dataclasses.asdict(self)

    def estimator_options(self) -> dict:
        """Keyword arguments of `inference.Estimator`."""
        return {"flip": self.flip, "scales": self.scales, "decode": self.decode}
