"""Rules of the state machine: tasks, workflows, and the links between them."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

import dao
from dao import TaskStatus, WorkflowStatus
from dao.testing import make_task, make_workflow
from tests import strategies
from tests.property.machine import UNKNOWN, Machine, moments, numbers, objects, optional_texts, values

OPEN = {TaskStatus.PENDING, TaskStatus.RUNNING}
#: One that is paused holds its tasks back, which tests/property/test_claims_schema.py counts.
UNPAUSED = sorted(set(WorkflowStatus) - {WorkflowStatus.PAUSED})


def may_move(task: dao.Task, status: TaskStatus) -> bool:
    """Return whether a task may move to the status, by the law of `tasks_status_transition`."""
    if task.status is status or status is TaskStatus.PENDING:
        return True
    begun = task.status is TaskStatus.PENDING and task.attempt > 0
    return task.status in OPEN and not (begun and status in {TaskStatus.COMPLETED, TaskStatus.FAILED})


class TaskRules(Machine):
    """The verbs of `dao.tasks`."""

    tasks = st.builds(
        make_task,
        title=strategies.names(),
        status=st.sampled_from(TaskStatus),
        config=objects,
        metadata=values,
        created_at=moments,
        updated_at=moments,
    )

    @rule(task=tasks)
    def create_task(self, task):
        """A new task is stored as it is."""
        dao.tasks.create(self.connection, task)
        self.model.tasks[task.id] = task

    @rule(new=st.lists(tasks, max_size=3), number=numbers, at=numbers)
    def create_tasks(self, new, number, at):
        """Several at once: all of them, or none if one is there already."""
        id = self.pick("tasks", number)
        if id == UNKNOWN:
            dao.tasks.create_many(self.connection, new)
            self.model.tasks.update((task.id, task) for task in new)
        else:
            new.insert(at, self.model.tasks[id])
            with pytest.raises(dao.UniqueViolation):
                dao.tasks.create_many(self.connection, iter(new))

    @rule(
        number=numbers,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "title": strategies.names(),
                "description": optional_texts,
                "task_type": strategies.names(),
                "status": st.sampled_from(TaskStatus),
                "config": objects,
                "metadata": values,
                "workspace_path": optional_texts,
                "error": optional_texts,
                "started_at": st.none() | moments,
                "completed_at": st.none() | moments,
            },
        ),
        created_at=moments,
    )
    def update_task(self, number, changes, created_at):
        """All but the id and the time of creation is stored."""
        id = self.pick("tasks", number)
        record = self.model.tasks.get(id) or make_task(id=id)
        self.versions.append(record)
        status = changes.get("status", record.status)
        if not may_move(record, status):
            changes = {**changes, "status": record.status}  # any other is refused
        elif status is TaskStatus.RUNNING and record.status is not status:
            changes = {**changes, "attempt": record.attempt + 1}
        record = attrs.evolve(record, created_at=created_at, **changes)
        if id == UNKNOWN:
            with pytest.raises(dao.NotFound):
                dao.tasks.update(self.connection, record)
        else:
            self.change("tasks", id, **changes)
            self.returned("tasks", id, dao.tasks.update(self.connection, record))

    @precondition(lambda self: self.versions)
    @rule(number=numbers, description=optional_texts)
    def update_old_version(self, number, description):
        """A version that is not the present one is refused, whether the row went on or went away."""
        old = self.versions[number % len(self.versions)]
        table, module = ("tasks", dao.tasks) if isinstance(old, dao.Task) else ("workflows", dao.workflows)
        record = attrs.evolve(old, description=description)
        present = getattr(self.model, table).get(old.id)
        if present is not None and present.updated_at == old.updated_at:
            changes = attrs.asdict(record, recurse=False)
            del changes["created_at"], changes["updated_at"]
            self.change(table, old.id, **changes)
            self.returned(table, old.id, module.update(self.connection, record))
        else:
            with pytest.raises(dao.NotFound if present is None else dao.StaleRecord):
                module.update(self.connection, record)

    @rule(number=numbers, status=st.sampled_from(TaskStatus), error=optional_texts, now=moments)
    def set_task_status(self, number, status, error, now):
        """The times of a task keep in step with its status."""
        id = self.pick("tasks", number)
        if id == UNKNOWN:
            with pytest.raises(dao.NotFound):
                dao.tasks.set_status(self.connection, id, status, error=error, now=now)
            return
        old = self.model.tasks[id]
        repeated = old.status is status
        if not may_move(old, status):
            return  # refused; tests/contract has it, and this may be in a transaction
        if status is TaskStatus.PENDING:
            times = {"started_at": None, "completed_at": None}
        elif status is TaskStatus.RUNNING:
            times = {"started_at": old.started_at if repeated and old.started_at else now, "completed_at": None}
        else:
            times = {"completed_at": old.completed_at if repeated and old.completed_at else now}
        attempt = old.attempt + (status is TaskStatus.RUNNING and not repeated)
        self.change("tasks", id, status=status, error=error, attempt=attempt, **times)
        self.returned("tasks", id, dao.tasks.set_status(self.connection, id, status.value, error=error, now=now))

    @rule(number=numbers)
    def delete_task(self, number):
        """A task takes its links and its tool executions with it."""
        id = self.pick("tasks", number)
        assert dao.tasks.delete(self.connection, id) == (self.model.tasks.pop(id, None) is not None)
        self.model.links = {key: link for key, link in self.model.links.items() if link.task_id != id}
        self.model.executions = {key: call for key, call in self.model.executions.items() if call.task_id != id}


class WorkflowRules(Machine):
    """The verbs of `dao.workflows`."""

    @rule(
        workflow=st.builds(
            make_workflow,
            name=strategies.names(),
            status=st.sampled_from(UNPAUSED),
            config=objects,
            created_at=moments,
        )
    )
    def create_workflow(self, workflow):
        """A new workflow is stored as it is, and once only."""
        dao.workflows.create(self.connection, workflow)
        self.model.workflows[workflow.id] = workflow
        with pytest.raises(dao.UniqueViolation):
            dao.workflows.create_many(self.connection, [make_workflow(), workflow])

    @rule(
        number=numbers,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "name": strategies.names(),
                "description": optional_texts,
                "status": st.sampled_from(UNPAUSED),
                "config": objects,
                "metadata": values,
            },
        ),
    )
    def update_workflow(self, number, changes):
        """All but the id and the time of creation is stored."""
        id = self.pick("workflows", number)
        record = self.model.workflows.get(id) or make_workflow(id=id)
        self.versions.append(record)
        if id == UNKNOWN:
            with pytest.raises(dao.NotFound):
                dao.workflows.update(self.connection, record)
        else:
            self.change("workflows", id, **changes)
            self.returned("workflows", id, dao.workflows.update(self.connection, attrs.evolve(record, **changes)))

    @rule(number=numbers, status=st.sampled_from(UNPAUSED))
    def set_workflow_status(self, number, status):
        """The status changes and nothing else."""
        id = self.pick("workflows", number)
        if id == UNKNOWN:
            with pytest.raises(dao.NotFound):
                dao.workflows.set_status(self.connection, id, status)
        else:
            self.change("workflows", id, status=status)
            self.returned("workflows", id, dao.workflows.set_status(self.connection, id, status))

    @rule(number=numbers)
    def delete_workflow(self, number):
        """A workflow takes its links with it; its tasks stay."""
        id = self.pick("workflows", number)
        assert dao.workflows.delete(self.connection, id) == (self.model.workflows.pop(id, None) is not None)
        self.model.links = {key: link for key, link in self.model.links.items() if link.workflow_id != id}


class LinkRules(Machine):
    """The verbs of `dao.workflow_tasks`."""

    @initialize(size=st.integers(0, 3))
    def fill_workflow(self, size):
        """Begin with a workflow, tasks in it and tasks to add: left to chance, few runs would have them."""
        workflow, tasks = make_workflow(), [make_task() for _ in range(size + 2)]
        dao.workflows.create_many(self.connection, [workflow])
        dao.tasks.create_many(self.connection, tasks)
        self.model.workflows[workflow.id] = workflow
        self.model.tasks.update((task.id, task) for task in tasks)
        for task in tasks[:size]:
            link = dao.workflow_tasks.add(self.connection, workflow_id=workflow.id, task_id=task.id)
            self.model.links[workflow.id, task.id] = link
        assert [link.sequence for link in self.linked(workflow.id)] == list(range(size))

    def make_room(self, workflow_id, task_id, sequence):
        """Move the links on that come at or after the sequence, if another task has it."""
        others = {
            key: link
            for key, link in self.model.links.items()
            if link.workflow_id == workflow_id and link.task_id != task_id
        }
        if any(link.sequence == sequence for link in others.values()):
            for key, link in others.items():
                if link.sequence >= sequence:
                    self.change("links", key, sequence=link.sequence + 1)

    @rule(workflow=numbers, task=numbers, sequence=st.none() | numbers, config=objects)
    def add_link(self, workflow, task, sequence, config):
        """A task comes at the end of a workflow, or at its sequence: then what is there and after it moves on."""
        key = workflow_id, task_id = self.pick("workflows", workflow), self.pick("tasks", task)

        def add():
            return dao.workflow_tasks.add(
                self.connection, workflow_id=workflow_id, task_id=task_id, sequence=sequence, config=config
            )

        if UNKNOWN in key:
            with self.refused(dao.ForeignKeyViolation) as missing:
                add()
            assert missing.value.columns == ("workflow_id" if workflow_id == UNKNOWN else "task_id",)
        elif key in self.model.links:
            with self.refused(dao.UniqueViolation):
                add()
        else:
            link = add()
            if sequence is None:
                taken = [other.sequence for other in self.model.links.values() if other.workflow_id == workflow_id]
                sequence = max(taken, default=-1) + 1
            assert (link.workflow_id, link.task_id, link.sequence, link.config) == (*key, sequence, config)
            self.make_room(workflow_id, task_id, sequence)
            self.model.links[key] = link

    @rule(number=numbers, sequence=numbers)
    def move_link(self, number, sequence):
        """A task comes to a sequence: what is there and after it moves on."""
        key = self.pick("links", number)
        workflow_id, task_id = (UNKNOWN, UNKNOWN) if key == UNKNOWN else key
        if key == UNKNOWN:
            with pytest.raises(dao.NotFound):
                dao.workflow_tasks.move(self.connection, workflow_id=workflow_id, task_id=task_id, sequence=sequence)
            return
        self.make_room(workflow_id, task_id, sequence)
        self.change("links", key, sequence=sequence)
        link = dao.workflow_tasks.move(self.connection, workflow_id=workflow_id, task_id=task_id, sequence=sequence)
        self.returned("links", key, link)

    @rule(number=numbers)
    def remove_link(self, number):
        """A link goes; its workflow and its task stay."""
        key = self.pick("links", number)
        workflow_id, task_id = (UNKNOWN, UNKNOWN) if key == UNKNOWN else key
        was_there = self.model.links.pop(key, None) is not None
        assert dao.workflow_tasks.remove(self.connection, workflow_id=workflow_id, task_id=task_id) == was_there

    @rule(number=numbers, data=st.data())
    def reorder_links(self, number, data):
        """The tasks of a workflow get the sequences 0, 1, 2 …; a list that is no permutation changes nothing."""
        workflow_id = self.pick("workflows", number)
        present = [link.task_id for link in self.linked(workflow_id)]
        order = data.draw(st.permutations(present))
        for wrong in ([*order, UNKNOWN], order[1:], [*order, *order[:1]]):
            if sorted(wrong) != sorted(present):
                with pytest.raises(ValueError, match="not a permutation"):
                    dao.workflow_tasks.reorder(self.connection, workflow_id, wrong)
        dao.workflow_tasks.reorder(self.connection, workflow_id, order)
        for place, task_id in enumerate(order):
            self.change("links", (workflow_id, task_id), sequence=place)

    def linked(self, workflow_id):
        """Return the links of a workflow in their order."""
        links = [link for link in self.model.links.values() if link.workflow_id == workflow_id]
        return sorted(links, key=lambda link: (link.sequence, link.task_id))
