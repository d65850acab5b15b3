"""Libraries of networks are imported without torch's compiler, and work as usual."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT = """
import sys
from segpipe.ops.deferred_compiler import import_without_compiler
import_without_compiler("timm", "torchvision", "segmentation_models_pytorch")
COMPILER = {"torch._dynamo", "torch._inductor", "sympy", "triton"}
"""


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", IMPORT + code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_compiler_is_not_imported() -> None:
    code = "print(sorted(COMPILER & set(sys.modules)), 'timm' in sys.modules)"
    assert run(code) == "[] True"


@pytest.mark.slow
def test_the_libraries_work_and_can_be_compiled_later() -> None:
    code = """
import torch, timm, torchvision
assert "torch._dynamo.utils" not in sys.modules, "the stand-in is gone"
roi_align = sys.modules["torchvision.ops.roi_align"]
assert roi_align.is_compile_supported("cpu") is True
from torch._dynamo.utils import is_compile_supported
assert is_compile_supported is not roi_align.is_compile_supported
boxes = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2)
assert boxes.shape == (1, 1, 2, 2)
network = timm.create_model("resnet10t", num_classes=2).eval()
image = torch.rand(1, 3, 64, 64)
with torch.no_grad():
    torch.testing.assert_close(torch.compile(network, backend="eager")(image), network(image))

from timm.models.naflexvit import NaFlexRopeIterator
print(torch.compiler.disable.__module__)
"""
    assert run(code) == "torch.compiler"


def test_a_library_that_needs_the_compiler_is_imported_with_it(tmp_path: object) -> None:
    code = f"""
import pathlib
folder = pathlib.Path({str(tmp_path)!r})
(folder / "needs_compiler.py").write_text("from torch._dynamo.utils import counters")
sys.path.insert(0, str(folder))
import_without_compiler("needs_compiler")
print("torch._dynamo" in sys.modules, sys.modules["needs_compiler"].counters is sys.modules["torch._dynamo.utils"].counters)
"""
    assert run(code) == "True True"
