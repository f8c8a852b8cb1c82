"""The content security policy of the site's pages, from small pages; tests/browser visits the whole site under it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the book's build needs the extra book")
ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("content_policy", ROOT / "book" / "_ext" / "content_policy.py")
assert SPEC is not None
assert SPEC.loader is not None
content_policy = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(content_policy)

# printf 'alert(1)' | openssl dgst -sha256 -binary | base64
ALERT = "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"


def directives(page: str) -> dict[str, set[str]]:
    parts = [part.split() for part in content_policy.policy(page).split(";")]
    return {name: set(sources) for name, *sources in parts}


def test_only_the_scripts_in_the_page_may_run() -> None:
    found = directives("<html><head><script>alert(1)</script><script src=x.js></script></head></html>")
    assert found["script-src"] == {"'self'", "file:", ALERT}
    assert ALERT not in directives("<html><head><script>alert(2)</script></head></html>")["script-src"]
    data = '<script type="application/vnd.jupyter.widget-state+json">alert(1)</script>'
    assert directives(data)["script-src"] == {"'self'", "file:"}
    for kind in ("module", "text/javascript"):
        assert ALERT in directives(f'<script type="{kind}">alert(1)</script>')["script-src"]


def test_a_button_runs_its_own_code_alone() -> None:
    found = directives("""<button class="a" onclick='alert(1)' title="b">c</button>""")["script-src"]
    assert {ALERT, "'unsafe-hashes'"} < found
    assert "'unsafe-inline'" not in found


def test_what_few_pages_need_the_others_do_not_have() -> None:
    prose = directives("<html><head><style>a {}</style></head><p>A page.</p></html>")
    assert prose["default-src"] == {"'none'"}
    assert prose["worker-src"] == {"'none'"}
    assert not {"'unsafe-inline'", "'unsafe-eval'"} & (prose["style-src"] | prose["script-src"])
    assert len(prose["style-src"]) == 3
    controls = directives('<script src="_static/widgets/embed-amd.js"></script>')
    assert "'unsafe-eval'" in controls["script-src"]
    assert "'unsafe-inline'" in controls["style-src"]
    for script in ("page", "small"):
        live = directives(f'<script type="module" src="live/{script}.js"></script>')
        assert live["worker-src"] == {"'self'"}
    assert "'unsafe-eval'" not in live["script-src"]


def test_the_policy_stands_ahead_of_what_it_governs() -> None:
    page = '<!DOCTYPE html>\n<html lang="en"><head data-a="b"><script>alert(1)</script></head></html>'
    start, _, rest = content_policy.with_policy(page).partition("<meta http-equiv")
    assert start == '<!DOCTYPE html>\n<html lang="en"><head data-a="b">\n'
    assert rest.endswith("<script>alert(1)</script></head></html>")
    assert content_policy.with_policy("<meta http-equiv=refresh>").startswith("\n<meta http-equiv=")
