"""The live page: what the detector hears and says, in a browser; and the analysis of an uploaded recording.

`build_app` makes the ASGI application. Nothing that is uploaded is kept, nothing is loaded from elsewhere.
"""

from __future__ import annotations

__all__ = ["Page", "build_app"]


def __getattr__(name: str):
    # starlette is imported when a page is first asked for
    if name in __all__:
        from streaming.web import app

        return getattr(app, name)
    raise AttributeError(f"module 'streaming.web' has no attribute {name!r}")
