"""Optional packages, and the extra of this package that installs each: pip install 'hourglass_jax[video]'."""

EXTRAS = {  # the module -> the extra
    "av": "video",
    "clu": "train",
    "flatbuffers": "export",
    "gcsfs": "gcs",
    "gradio": "demo",
    "h5py": "data",
    "huggingface_hub": "hub",
    "jax_cuda13_plugin": "cuda",
    "libtpu": "tpu",
    "matplotlib": "data",
    "mlflow": "mlflow",
    "onnx": "export",
    "onnxruntime": "export",
    "pycocotools": "coco",
    "s3fs": "s3",
    "safetensors": "hub",
    "sklearn": "data",
    "tensorboard": "train",
    "tensorflow": "data",
    "tensorflow_datasets": "data",
    "torch": "torch",
    "torchvision": "detect",
    "transformers": "transformers",
    "wandb": "wandb",
}
_NAMES = {
    "av": "PyAV",
    "gradio": "Gradio",
    "jax_cuda13_plugin": "jax-cuda13-plugin",
    "mlflow": "MLflow",
    "sklearn": "scikit-learn",
    "tensorboard": "TensorBoard",
    "tensorflow": "TensorFlow",
    "torch": "PyTorch",
    "wandb": "Weights & Biases",
}


class needed:
    """A context in which an optional package is imported; if that fails, the error says what to install.

    Args:
      module: the package's name in `import`, one of `EXTRAS`.
      purpose: what needs the package, for instance "a.mp4: reading it".
      error: the class of the error.
      extra: the extra to install; by default the one in `EXTRAS`.

    Raises:
      ImportError, or `error`: the package is not installed; or it is installed but does not load, which
      another
        `pip install` of the same version would not change.
    """

    def __init__(
        self, module: str, purpose: str, *, error: type[Exception] = ImportError, extra: str | None = None
    ):
        self.module, self.purpose, self.error, self.extra = module, purpose, error, extra

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, found, traceback) -> None:
        if isinstance(found, (ImportError, OSError)):  # OSError: a shared library does not load
            raise self.error(f"{self.purpose} needs {failure(found, self.module, self.extra)}.") from None


def failure(found: Exception, module: str = "", extra: str | None = None) -> str:
    """Says why a package could not be imported and what to do, without a full stop.

    Args:
      found: the error of the import.
      module: the package's name in `import`; by default the one that the error names.
      extra: the extra to install; by default the one in `EXTRAS`.
    """
    absent = (getattr(found, "name", None) or "").partition(".")[0]
    module = module or absent
    name = _NAMES.get(module, module)
    if isinstance(found, ModuleNotFoundError) and absent == module:
        extra = extra or EXTRAS.get(module)
        what = f"'hourglass_jax[{extra}]'" if extra else name
        return f"{name}, which is not installed: pip install {what}"
    reason = " ".join(str(found).split())[:200]
    return f"{name}, which is installed but does not load ({reason}); install it again"
