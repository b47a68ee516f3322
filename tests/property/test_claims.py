"""The life of tasks in any order, against a model: claims, leases, retries, what holds them back, and their history."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.rules_of_claims import Life


@pytest.mark.both_engines
def test_life_of_tasks_in_any_order_agrees_with_a_model(engine, fresh):
    """No order of what producers, workers and people do makes a task other than the model says.

    `waiting_for` and `paused_by` are right at every step, no transition is against the rules, and the events give the
    table back as it was at each moment at which it was copied.
    """
    run_state_machine_as_test(lambda: Life(fresh), settings=settings(stateful_step_count=50))
