"""Structured values as one text of metadata."""

from __future__ import annotations

import json
from typing import Any


def as_text(value: Any) -> str:
    """JSON without spaces, the same text for the same value: a deep model has much of it."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
