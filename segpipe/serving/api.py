"""The HTTP face of a segmenter: POST /v1/segment, GET /v1/model, the page at /."""

from __future__ import annotations

import base64
import logging
import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from segpipe.errors import DataError
from segpipe.inference.files.inputs import decode_input
from segpipe.inference.files.instance_rows import instance_rows
from segpipe.inference.files.render import class_shares, mask_nifti, mask_png, overlay_png
from segpipe.serving.model_holder import LoadedModel, ModelHolder, ModelInfo
from segpipe.serving.settings import Settings
from segpipe.serving.upload import Refused, read_upload

log = logging.getLogger("segpipe.serving")

PAGE = Path(__file__).parent / "page"
_PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)

Format = Literal["mask", "overlay", "json"]


def create_app() -> FastAPI:
    """The application; `attach` gives it a model before the first request."""
    app = FastAPI(title="segpipe", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.add_api_route("/v1/segment", segment, methods=["POST"], response_class=Response, responses=_SEGMENT_DOCS)
    app.add_api_route("/v1/model", model, methods=["GET"])
    app.add_api_route("/v1/example", example, methods=["GET"], response_class=Response)
    app.add_api_route("/", page, methods=["GET"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    return app


def attach(app: FastAPI, champion: ModelHolder, settings: Settings) -> None:
    """Give the application its model and its limits."""
    app.state.champion, app.state.settings = champion, settings
    # An engine uses all processors for one image: a second one in flight only fills the gaps of decoding and encoding.
    app.state.limiter = anyio.CapacityLimiter(max(2, (os.cpu_count() or 1) // 2))


async def segment(
    request: Request,
    format: Annotated[
        Format | None, Query(description="what to answer with; by default as the Accept header says")
    ] = None,
    alpha: Annotated[float, Query(ge=0, le=1, description="opacity of the classes in an overlay")] = 0.45,
    preview: Annotated[bool, Query(description="json: add the image as a PNG that any browser shows")] = False,
) -> Response:
    """Segment the image in the form field `image`.

    mask: a PNG with the pixel values of the training masks. overlay: a PNG of the image with classes drawn over it. json: classes
    with their shares, the mask as a base64 PNG of indices into `classes` (with `overlapping`, bit k - 1 stands for class k, and no
    bit for class 0), and of a model that tells objects apart `objects`: class,
    score, box, area and COCO run lengths of each.

    A model for volumes takes .nii.gz: mask is then a .nii.gz with the affine of the input, and overlay and the PNGs of json show
    one slice, which json names.
    """
    started = time.perf_counter()
    state = request.app.state
    name, content = await read_upload(request, int(state.settings.max_upload_mb * 2**20))
    serving: LoadedModel = state.champion.current
    wanted = format or ("json" if "application/json" in request.headers.get("accept", "") else "mask")
    megapixels = state.settings.max_megapixels

    def work() -> Response:
        return _answer(serving, name, content, wanted, alpha, preview, megapixels)

    response = await anyio.to_thread.run_sync(work, limiter=state.limiter)
    response.headers["X-Model-Version"] = serving.info.version
    response.headers["X-Latency-Ms"] = f"{1000 * (time.perf_counter() - started):.1f}"
    return response


def _answer(
    serving: LoadedModel, name: str, content: bytes, wanted: Format, alpha: float, preview: bool, max_megapixels: float
) -> Response:
    """Decode, predict, encode: everything that takes processor time, in a thread of its own."""
    classes, dims = serving.segmenter.spec.classes, serving.segmenter.spec.dims
    try:
        given = decode_input(content, name, max_megapixels, dims)
        apart = wanted != "mask" and dims == 2
        prediction = serving.segmenter.predict(given.image, spacing=given.spacing, instances=apart)
    except DataError as error:
        raise Refused(422, str(error)) from error
    image = given.image
    if wanted == "mask" and dims == 3:
        return Response(mask_nifti(prediction, classes, given.geometry), media_type="application/gzip")
    if wanted == "mask":
        return Response(mask_png(prediction, classes), media_type="image/png")
    if wanted == "overlay":
        return Response(overlay_png(image, prediction, classes, alpha), media_type="image/png")
    from segpipe.data.drawing import fullest_slice, to_display
    from segpipe.data.images import encode_png

    shown, part = prediction.class_ids, {}
    if dims == 3:
        index = fullest_slice(shown)
        part = {"depth": len(shown), "slice": index}
        image, shown = image[index], shown[index]
    height, width = shown.shape
    answer: dict[str, Any] = {
        "version": serving.info.version,
        "width": width,
        "height": height,
        **part,
        **({"overlapping": True} if classes.overlapping else {}),
        "classes": [share.model_dump() for share in class_shares(prediction, classes)],
        "mask": {"encoding": "png;base64", "data": base64.b64encode(encode_png(shown)).decode()},
    }
    if prediction.instances is not None:
        objects = instance_rows(prediction.instances, classes, masks=True)
        answer["objects"] = [found.model_dump() for found in objects]
    if preview:
        answer["preview"] = {"encoding": "png;base64", "data": base64.b64encode(encode_png(to_display(image))).decode()}
    return JSONResponse(answer)


async def model(request: Request) -> dict[str, Any]:
    """Where the model that answers comes from, and what it takes."""
    info: ModelInfo = request.app.state.champion.current.info
    settings: Settings = request.app.state.settings
    limits = {"max_upload_mb": settings.max_upload_mb, "max_megapixels": settings.max_megapixels}
    return info.model_dump(mode="json") | {"limits": limits}


async def example(request: Request) -> Response:
    """An image that the model was tested on, to try it with."""
    serving: LoadedModel = request.app.state.champion.current
    name, content = serving.example
    return Response(content, media_type="application/octet-stream", headers={"X-File-Name": name})


async def page() -> FileResponse:
    """The page where people drop an image."""
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


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "the server failed on this request; its log says why"}, status_code=500)


_SEGMENT_DOCS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}, "application/json": {}, "application/gzip": {}}},
    400: {"description": "a form without the field `image`, or a broken one"},
    413: {"description": "too many bytes"},
    415: {"description": "neither a form nor an image"},
    422: {"description": "an image that cannot be decoded, is too large, or has other channels than the model wants"},
    429: {"description": "too many requests at once"},
}
