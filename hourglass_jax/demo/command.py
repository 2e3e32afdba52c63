"""Opens the page: hourglass demo"""

import argparse
import ipaddress
import os
import tempfile
import threading

from hourglass_jax import console, devices
from hourglass_jax.demo import page
from hourglass_jax.demo.page import HOST, MEGABYTES, PORT
from hourglass_jax.demo.service import FRAMES, Service


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="hourglass demo",
        description="Opens a local page: drop a picture or a video on it, or use the camera, to see and "
        "download the joints. The page needs Gradio (pip install 'hourglass_jax[demo]') but no network.",
        epilog="hourglass demo --weights=runs/mine --detector=yolox_s.onnx lists your own network first; "
        "hourglass demo --host=0.0.0.0 opens the page to the local network, without passwords: visitors "
        "may then choose what the lists offer, but no other path.",
    )
    add = parser.add_argument
    add(
        "--weights", action="append", default=[], metavar="PATH",
        help="a workdir, a checkpoint, a file of weights or a name, listed first; may be repeated",
    )  # fmt: skip
    add(
        "--detector", action="append", default=[], metavar="NAME",
        help="a detector of people to list, such as FILE.onnx; may be repeated",
    )  # fmt: skip
    add("--host", default=HOST, help="the address to listen at (default: %(default)s, this machine only)")
    add("--port", type=int, default=PORT, help="the port to listen at (default: %(default)s)")
    add(
        "--megabytes", type=float, default=MEGABYTES, metavar="MB",
        help="largest size of an uploaded file (default: %(default)s)",
    )  # fmt: skip
    add(
        "--frames", type=int, default=FRAMES, metavar="N",
        help="read at most N frames of a video (default: %(default)s)",
    )  # fmt: skip
    add("--device", choices=("cpu", "gpu", "tpu"), help="where to compute (default: the best available)")
    add("--browser", action="store_true", help="also open the page in the browser")
    args = parser.parse_args(arguments)
    return console.run(_main, args, interrupted="The page is closed.")


def _main(args) -> None:
    devices.keep_programs()
    with tempfile.TemporaryDirectory(prefix="hourglass_demo_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "uploads")
        service = Service(
            os.path.join(folder, "outcomes"),
            offered=tuple(args.weights),
            detectors=tuple(args.detector),
            open_paths=_is_this_machine(args.host),
            frames=args.frames,
            device=args.device,
        )
        blocks, address = page.serve(
            service, host=args.host, port=args.port, megabytes=args.megabytes, browser=args.browser
        )
        try:
            print(f"{address} is open until Ctrl-C.", flush=True)
            threading.Event().wait()
        finally:
            blocks.close(verbose=False)
