"""Tests of flows/promote.py and flows/verify.py on a real release, with a Prefect server."""

from __future__ import annotations

from pathlib import Path

import pytest

from segpipe.errors import MissingError
from segpipe.release import promotion
from tests.worlds.released_workspace import bundle, bundles, make, no_git_user, root, template  # noqa: F401  fixtures

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def test_promote_and_verify_in_prefect_do_what_the_commands_do(
    server: str,
    root: Path,  # noqa: F811
    bundles: list[Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    import httpx

    from segpipe.workspace.flow_loader import load_flow

    (root / "flows").symlink_to(ROOT / "flows")
    promote = load_flow(root, "promote").promote
    assert (make(root), make(root, bundles[1])) == ("v0.1.0", "v0.2.0")
    assert promote("v0.1.0", str(root)) == ""
    assert promote("v0.2.0", str(root)) == "v0.1.0"
    assert (promotion.live(root), promotion.live(root, "staging")) == ("v0.2.0", None)
    assert promote("v0.1.0", str(root), "staging") == ""
    assert promotion.live(root, "staging") == "v0.1.0"
    with pytest.raises(MissingError, match=r"v9\.9\.9"):
        promote("v9.9.9", str(root))
    assert promotion.live(root) == "v0.2.0"

    verify = load_flow(root, "verify").verify
    intact = verify("v0.1.0", str(root), return_state=True)
    assert intact.is_completed() and intact.message == "v0.1.0 is what was released"
    cache = root / ".dvc" / "cache"
    cache.rename(tmp_path / "away")
    broken = verify("v0.1.0", str(root), return_state=True)
    assert broken.is_failed() and "bundle" in broken.message
    artifacts = httpx.post(f"{server}/artifacts/filter", json={}, trust_env=False).json()
    assert {a["description"] for a in artifacts} >= {"Checks of v0.1.0"}
