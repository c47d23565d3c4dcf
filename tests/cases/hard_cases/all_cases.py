"""Every hard case."""

from __future__ import annotations

from tests.cases.hard_cases import boundaries, calls, layers

CASES = (*calls.CASES, *boundaries.CASES, *layers.CASES)
