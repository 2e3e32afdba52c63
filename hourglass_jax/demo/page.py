"""The page itself, made with Gradio (`pip install 'hourglass_jax[demo]'`); it needs no network."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from hourglass_jax import console, extras
from hourglass_jax.demo.service import EVERY, HEAD, LOOKS, WHOLE, Choice, Outcome, Service, drawn

HOST, PORT = "127.0.0.1", 7860
MEGABYTES = 200  # largest upload
_WAITING = 32  # visitors in the queue
_CAMERA = 300  # s, after which the visitor has to start the camera again
_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)  # bad input; others are bugs
_STYLE = """
footer { display: none !important; }
#note textarea { border: none; background: none; padding: 0; font-size: 1.05em; resize: none; }
#note textarea { box-shadow: none; }
#joints img { max-height: 70vh; object-fit: contain; }
"""


def serve(
    service: Service,
    *,
    host: str = HOST,
    port: int = PORT,
    megabytes: float = MEGABYTES,
    browser: bool = False,
):
    """Starts the page's server on a thread.

    Args:
      service: does the work.
      host, port: the address to listen at.
      megabytes: largest size of an uploaded file.
      browser: also open the page in the browser.

    Returns:
      the `gradio.Blocks`, whose `close` stops the server, and the page's address.

    Raises:
      ImportError: Gradio is not installed; OSError: the port is taken.
    """
    blocks = page(service)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        max_file_size=int(megabytes * 2**20),
        inbrowser=browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,  # True would start a second server, of Node.js
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        css=_STYLE,
    )
    return blocks, address


def page(service: Service):
    """The page of a service, as `gradio.Blocks`.

    Raises:
      ImportError: Gradio is not installed.
    """
    # Gradio reads these when it is imported: it then sends nothing to its makers' servers.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with extras.needed("gradio", "The page"):
        import gradio as gr
    title = "Joints in pictures, in videos and before a camera"
    with gr.Blocks(title="hourglass_jax", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"## {title}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                picture, video, camera, buttons = _sources(gr)
                options, maps = _options(gr, service)
            with gr.Column(scale=3, min_width=320):
                shown = _results(gr)
        hidden: dict[str, Any] = {"api_visibility": "private"}
        # The network processes one picture or video at a time.
        once = hidden | {"concurrency_id": "network", "concurrency_limit": 1}
        find = _finder(gr, service)
        running = [
            gr.on([button.click, source.upload], find, [source, *maps, *options], shown, **once)
            for button, source in ((buttons[0], picture), (buttons[1], video))
        ]
        buttons[2].click(lambda: "Stopped.", None, shown[0], cancels=running, **hidden)
        state = gr.State(None)
        camera.stream(
            _watcher(gr, service), [camera, state, *options], [shown[1], state, shown[0]],
            stream_every=EVERY, time_limit=_CAMERA, show_progress="hidden", **hidden,
        )  # fmt: skip
    return blocks.queue(max_size=_WAITING)


def _sources(gr) -> tuple:
    """Components of the picture, the video and the camera, and the buttons find, find and stop."""

    with gr.Tab("Picture"):
        picture = gr.Image(
            label="Picture", sources=["upload", "webcam", "clipboard"], height=260, elem_id="picture",
            buttons=[],
        )  # fmt: skip
        # Pass the uploaded file on as it is: Gradio's own reader would decode it without our limits.
        picture.preprocess = lambda payload: payload.path if payload else None
        of_picture = gr.Button("Find joints", variant="primary", elem_id="find")
    with gr.Tab("Video"):
        video = gr.Video(label="Video", sources=["upload", "webcam"], height=320, elem_id="video", buttons=[])
        with gr.Row():
            of_video = gr.Button("Find joints", variant="primary", elem_id="find_video")
            stop = gr.Button("Stop")
    with gr.Tab("Camera"):
        camera = gr.Image(label="Camera", sources=["webcam"], streaming=True, type="numpy", height=260)
    return picture, video, camera, (of_picture, of_video, stop)


def _options(gr, service: Service) -> tuple[list, list]:
    """Components of a `Choice`, and of the maps to draw."""
    own = {"allow_custom_value": service.open_paths}
    with gr.Group():
        names = gr.Dropdown(
            list(service.weights), value=service.weights[0], label="Weights", elem_id="weights",
            info="a name of the list, or a path" if service.open_paths else None, **own,
        )  # fmt: skip
        detector = gr.Dropdown(
            list(service.detectors), value=WHOLE, label="Detector of people", elem_id="detector",
            info="a name of the list, or FILE.onnx" if service.open_paths else None, **own,
        )  # fmt: skip
        with gr.Row():
            look = gr.Dropdown(list(LOOKS), value=next(iter(LOOKS)), label="Second look")
            threshold = gr.Textbox(
                label="Least score", placeholder="the weights' own", max_lines=1, elem_id="threshold"
            )
        smooth = gr.Checkbox(False, label="Smooth joints of videos and the camera")
        heatmaps = gr.Checkbox(False, label="Show heatmaps", elem_id="show_heatmaps")
        attention = gr.Checkbox(False, label="Show attention")
    return [names, detector, look, threshold, smooth], [heatmaps, attention]


def _results(gr) -> list:
    """Components of the note, the drawn picture, the drawn video, people, json, heatmaps and attention."""
    note = gr.Textbox(
        "Drop a picture or a video, or use the camera.", show_label=False, interactive=False, elem_id="note",
        lines=1, max_lines=4, container=False,
    )  # fmt: skip
    picture = gr.Image(
        label="Joints", interactive=False, format="png", elem_id="joints", buttons=["download", "fullscreen"]
    )
    video = gr.Video(label="Joints", interactive=False, visible=False, elem_id="played")
    people = gr.Dataframe(
        headers=list(HEAD), interactive=False, visible=False, elem_id="people", buttons=[], label="People"
    )
    json = gr.DownloadButton("Download predictions.json", visible=False, elem_id="json", size="sm")
    maps = [
        gr.Image(
            label=title, interactive=False, visible=False, format="jpeg", elem_id=title.lower(),
            buttons=["download", "fullscreen"],
        )
        for title in ("Heatmaps", "Attention")
    ]  # fmt: skip
    return [note, picture, video, people, json, *maps]


def _choice(names, detector, look, threshold, smooth) -> Choice:
    try:
        least = float(threshold) if threshold and threshold.strip() else None
    except ValueError:
        raise ValueError(f"least score {threshold[:20]!r}: give a number from 0 to 1.") from None
    return Choice(names or "", detector or "", LOOKS[look], least, smooth)


def _finder(gr, service: Service):
    """A function from a file and the options to updates of `_results`, during and after the work."""

    def updates(line: str, outcome: Outcome | None = None) -> list:
        picture = video = people = json = heatmaps = attention = None
        if outcome:
            video = str(outcome.overlay) if outcome.overlay.suffix == ".mp4" else None
            picture = None if video else str(outcome.overlay)
            people, json = outcome.people or None, str(outcome.json)
            heatmaps, attention = outcome.heatmaps, outcome.attention
        first = gr.update(value=picture, visible=video is None)
        rest = (video, people, json, heatmaps, attention)
        return [line, first, *(gr.update(value=value, visible=value is not None) for value in rest)]

    def find(path, heatmaps, attention, *options) -> Iterator[list]:
        if not path:
            yield updates("Choose a file first.")
            return
        try:
            for step in service.look(path, _choice(*options), heatmaps=heatmaps, attention=attention):
                if isinstance(step, Outcome):
                    yield updates(step.note, step)
                else:
                    yield [step] + [gr.skip()] * 6
        except _ERRORS as error:
            # The visitor knows the file's name, but not the folder of uploads.
            line = console.message(error).replace(str(path), pathlib.Path(path).name)
            yield updates(f"Error: {line}")

    return find


def _watcher(gr, service: Service):
    """A function from the camera's picture, a visitor's state and the options to the updates of the page."""

    def watch(image, state, *options) -> tuple:
        if image is None:
            return gr.skip(), state, gr.skip()
        try:
            choice = _choice(*options)
            if not state or state[0] != choice:
                state = choice, service.live(choice)
            result = state[1](image)
        except _ERRORS as error:
            return gr.skip(), None, f"Error: {console.message(error)}"
        return gr.update(value=drawn(result), visible=True), state, f"{len(result)} in sight."

    return watch
