"""The HTTP API of a model: POST /v1/segment, GET /v1/model, GET /v1/example, and the page at /."""

from __future__ import annotations

import base64
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict

from segpipe.errors import DataError, MissingError
from segpipe.inference.files.inputs import decode_input
from segpipe.inference.files.instance_rows import instance_rows
from segpipe.inference.files.render import class_shares, displayed_channels, mask_nifti, mask_png, overlay_png
from segpipe.serving.model_holder import LoadedModel, ModelHolder, ModelInfo, PendingSwap
from segpipe.serving.settings import Settings
from segpipe.serving.upload import Refused, read_upload

if TYPE_CHECKING:
    import numpy as np

    from segpipe.samples import Prediction

log = logging.getLogger("segpipe.serving")

PAGE = Path(__file__).parent / "page"
_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_MAX_NOTES = 1000
"""Characters of the header `X-Notes`."""

Format = Literal["mask", "overlay", "json"]


class Limits(BaseModel):
    """The largest image that the server accepts."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    max_upload_mb: float
    """Size of the file in MiB."""
    max_megapixels: float
    """Size of the decoded image in millions of pixels (voxels for a volume)."""


class ModelAnswer(ModelInfo):
    """The live model: its release, its scores, and the images that it takes."""

    limits: Limits
    example: bool
    """Whether `GET /v1/example` returns a test image."""
    pending: PendingSwap | None
    """The release that is to be live and cannot be loaded; null if there is none."""


def create_app() -> FastAPI:
    """Create the application. `attach` must give it a model before the first request."""
    app = FastAPI(title="segpipe", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.add_api_route("/v1/segment", segment, methods=["POST"], response_class=Response, responses=_SEGMENT_DOCS)
    app.add_api_route("/v1/model", model, methods=["GET"], response_model=ModelAnswer)
    app.add_api_route("/v1/example", example, methods=["GET"], response_class=Response)
    app.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


def attach(app: FastAPI, holder: ModelHolder, settings: Settings) -> None:
    """Give the application its model and its limits."""
    app.state.holder, app.state.settings = holder, settings
    # An engine uses all processors for one image. More requests at once only fill the gaps that decoding and encoding leave.
    app.state.limiter = anyio.CapacityLimiter(max(2, (os.cpu_count() or 1) // 2))


async def segment(
    request: Request,
    format: Annotated[
        Format | None, Query(description="Kind of answer; by default json if the Accept header asks for it, else mask.")
    ] = None,
    alpha: Annotated[float, Query(ge=0, le=1, description="Opacity of the classes in an overlay.")] = 0.45,
    preview: Annotated[bool, Query(description="json: add the image as a PNG that every browser can show.")] = False,
    channel: Annotated[
        int | None,
        Query(ge=0, description="Channel to draw in overlays and previews; by default the first three, or the first."),
    ] = None,
) -> Response:
    """Segment the image in the form field `image`, or in the body of the request.

    - mask: a PNG with the pixel values of the training masks.
    - overlay: a PNG of the image with the classes drawn over it.
    - json: the classes with their shares, and the mask as a base64 PNG of indices into `classes`. With `overlapping`, bit k - 1
      of a pixel stands for class k, and class 0 has no bit. If the model separates instances, `objects` has the class, score,
      box, area and COCO run-length encoding of each instance.

    A model for volumes takes .nii.gz files. The mask is then a .nii.gz file with the affine of the input. The overlay and the
    PNGs in json show one slice, and json has its index.

    An image is converted to the number type, channels and order of voxels of the training images where that is exact; the header
    `X-Notes` says so. Any other image is answered with status 422.
    """
    start = time.perf_counter()
    state = request.app.state
    name, content = await read_upload(request, int(state.settings.max_upload_mb * 2**20))
    live: LoadedModel = state.holder.current
    kind = format or ("json" if "application/json" in request.headers.get("accept", "") else "mask")
    megapixels = state.settings.max_megapixels

    def work() -> Response:
        return _answer(live, name, content, kind, alpha, preview, channel, megapixels)

    response = await anyio.to_thread.run_sync(work, limiter=state.limiter)
    response.headers["X-Model-Version"] = live.info.version
    response.headers["X-Latency-Ms"] = f"{1000 * (time.perf_counter() - start):.1f}"
    return response


def _with_notes(response: Response, notes: list[str]) -> Response:
    """Add the conversions of the input as a header. Notes may contain names from the file, and headers hold printable ASCII only."""
    if notes:
        response.headers["X-Notes"] = "".join(c if " " <= c <= "~" else "?" for c in "; ".join(notes))[:_MAX_NOTES]
    return response


def _answer(
    live: LoadedModel,
    name: str,
    content: bytes,
    kind: Format,
    alpha: float,
    preview: bool,
    channel: int | None,
    max_megapixels: float,
) -> Response:
    """Decode, predict and encode. All work that takes processor time happens here, in a worker thread."""
    classes, dims = live.segmenter.spec.classes, live.segmenter.spec.dims
    try:
        decoded = decode_input(content, name, max_megapixels, live.segmenter.spec)
        instances = kind != "mask" and dims == 2
        drawn = displayed_channels(decoded.image, channel)
        prediction = live.segmenter.predict(decoded.image, spacing=decoded.spacing, instances=instances)
    except (DataError, MissingError) as error:  # the package that reads this format may be missing
        raise Refused(422, str(error)) from error
    response: Response
    if kind == "mask" and dims == 3:
        response = Response(mask_nifti(prediction, classes, decoded.geometry), media_type="application/gzip")
    elif kind == "mask":
        response = Response(mask_png(prediction, classes), media_type="image/png")
    elif kind == "overlay":
        response = Response(overlay_png(drawn, prediction, classes, alpha), media_type="image/png")
    else:
        response = JSONResponse(_json_answer(live, drawn, prediction, preview) | {"channels": decoded.image.shape[-1]})
    return _with_notes(response, decoded.notes)


def _json_answer(live: LoadedModel, image: np.ndarray, prediction: Prediction, preview: bool) -> dict[str, Any]:
    from segpipe.data.drawing import fullest_slice, to_display
    from segpipe.data.images import encode_png

    classes, mask, position = live.segmenter.spec.classes, prediction.class_ids, {}
    if mask.ndim == 3:
        index = fullest_slice(mask)
        position = {"depth": len(mask), "slice": index}
        image, mask = image[index], mask[index]
    height, width = mask.shape
    answer: dict[str, Any] = {
        "version": live.info.version,
        "width": width,
        "height": height,
        **position,
        **({"overlapping": True} if classes.overlapping else {}),
        "classes": [share.model_dump() for share in class_shares(prediction, classes)],
        "mask": {"encoding": "png;base64", "data": base64.b64encode(encode_png(mask)).decode()},
    }
    if prediction.instances is not None:
        rows = instance_rows(prediction.instances, classes, masks=True)
        answer["objects"] = [row.model_dump() for row in rows]
    if preview:
        answer["preview"] = {"encoding": "png;base64", "data": base64.b64encode(encode_png(to_display(image))).decode()}
    return answer


async def model(request: Request) -> ModelAnswer:
    """Describe the live model: its release, its scores, and the images that it takes."""
    info: ModelInfo = request.app.state.holder.current.info
    settings: Settings = request.app.state.settings
    limits = Limits(max_upload_mb=settings.max_upload_mb, max_megapixels=settings.max_megapixels)
    pending = request.app.state.holder.pending
    return ModelAnswer(limits=limits, example=settings.example, pending=pending, **info.values_of(ModelInfo))


async def example(request: Request) -> Response:
    """Return a test image, to try the model with."""
    settings: Settings = request.app.state.settings
    if not settings.example:
        raise Refused(404, "this server shows no test image (`serve.example` in params.yaml)")
    live: LoadedModel = request.app.state.holder.current
    name, content = live.example
    return Response(content, media_type="application/octet-stream", headers={"X-File-Name": name})


async def page() -> FileResponse:
    """Return the page on which people drop an image."""
    return FileResponse(
        PAGE / "index.html", headers={"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"}
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused), "registered for this class"
    return JSONResponse({"error": error.reason}, status_code=error.status)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for this class"
    first = error.errors()[0]
    return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, status_code=422)


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "the server failed on this request; its log has the reason"}, status_code=500)


_SEGMENT_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}, "application/json": {}, "application/gzip": {}}},
    400: {"description": "The form has no field `image`, or it is not a valid form."},
    413: {"description": "The upload has too many bytes."},
    415: {"description": "The body is neither a form nor an image."},
    422: {
        "description": "The image cannot be decoded, is too large, or differs from the training images in channels, "
        "number type, range of values or orientation, and no exact conversion is known."
    },
    429: {"description": "There are too many requests at once."},
}
