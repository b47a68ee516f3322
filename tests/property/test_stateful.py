"""Every verb of the six modules in any order, in transactions and out of them, against plain dicts."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.rules_of_calls import ConfigurationRules, ExecutionRules, SessionRules
from tests.property.rules_of_work import LinkRules, TaskRules, WorkflowRules


class Verbs(TaskRules, WorkflowRules, LinkRules, ExecutionRules, SessionRules, ConfigurationRules):
    """All verbs over one database."""


@pytest.mark.both_engines
def test_all_verbs_in_any_order_agree_with_plain_dicts(engine, fresh):
    """No sequence of verbs, transactions, rollbacks and reopenings makes the database differ from the model."""
    # with so many rules it takes more runs than the profile says for each to meet each; a server takes its time
    runs = settings(max_examples=(3 if engine == "sqlite" else 1) * settings.default.max_examples)
    run_state_machine_as_test(lambda: Verbs(fresh), settings=runs)
