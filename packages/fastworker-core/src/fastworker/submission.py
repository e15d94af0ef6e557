"""From a call to the submission of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from fastworker.options import SubmitOptions, make_options
from fastworker.protocol import Submission
from fastworker.sealing import sealer
from fastworker.tasks import Options, idempotent_id, new_task_id
from fastworker.ties import NO_RULES, TieRules
from fastworker.upstream import encode_call_by_name


def submission_by_name(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], **said: Unpack[SubmitOptions]
) -> Submission:
    """A task of which only the name is known here.

    Raises:
        NotSerializable: a value has no JSON form.
        ConfigurationError: names the option and what it may be.
    """
    options, rules = make_options(name, **said) if said else (None, NO_RULES)
    return make_submission(name, encode_call_by_name(name, args, kwargs), args, kwargs, options, rules)


def make_submission(
    name: str,
    call: tuple[str, tuple[str, ...]],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Options | None,
    rules: TieRules,
) -> Submission:
    """A task as it is sent.

    Args:
        call: the arguments as JSON, and the tasks whose results are among them.
        args, kwargs: the arguments, for functions that make a key of them.
    """
    payload, needs = call
    sealing = sealer()
    ties = rules.ties(name, payload if sealing is None else sealing.blind(payload), args, kwargs, needs)
    again = rules.idempotency_key is not None
    task_id = new_task_id() if rules.idempotency_key is None else idempotent_id(name, rules.idempotency_key)
    if sealing is not None:
        payload = sealing.seal_arguments(task_id, name, payload)
    return Submission(task_id, name, payload, options, again=again, ties=ties)
