"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
