"""Hypothesis profiles: no deadline anywhere (machines are noisy), derandomized in CI; 60 examples where a test names
no number, so that all tests take less than eight minutes on two cores."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("local", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
