"""What connected workers can run, and how long it usually takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastworker.tasks import DEFAULTS, UNSAID, Definition, Options
from fastworker_server.redaction import NO_PARAMETERS, Parameters, parameters_of

_NEW_SHARE = 0.2


class Catalog:
    """Task definitions by name. A name stays known after its last worker has left, so that its options still count."""

    def __init__(self) -> None:
        self.revision = 0
        self._definitions: dict[str, Definition] = {}
        self._parameters: dict[str, Parameters] = {}
        self._resolved: dict[tuple[str, Options | None], Options] = {}
        self._run_times: dict[str, float] = {}

    def learn(self, definitions: Iterable[Definition]) -> None:
        """Take in what a worker says it can run; the newest word on a name counts."""
        for definition in definitions:
            self._definitions[definition.name] = definition
            self._parameters[definition.name] = parameters_of(definition)
        self._resolved.clear()
        self.revision += 1

    def parameters(self, name: str) -> Parameters:
        """The parameters of a name, as far as any worker has told it."""
        return self._parameters.get(name, NO_PARAMETERS)

    def with_secrets(self) -> dict[str, Parameters]:
        """The names that take secrets. The store keeps them, so that none is shown after a restart."""
        return {name: parameters for name, parameters in self._parameters.items() if parameters.secret}

    def restore_secrets(self, kept: Mapping[str, Any]) -> None:
        """What the store kept of them."""
        self._parameters.update((name, Parameters(**parameters)) for name, parameters in kept.items())

    def get(self, name: str) -> Definition | None:
        """The definition of a name, if any worker ever told it."""
        return self._definitions.get(name)

    def all(self) -> Sequence[Definition]:
        """All definitions, by name."""
        return [self._definitions[name] for name in sorted(self._definitions)]

    def options(self, name: str, said: Options | None) -> Options:
        """The options of one task: said at its submission, else at its definition, else `DEFAULTS`.

        Of a name that no worker has told yet, only what was said; `is_complete` tells the two apart.
        """
        key = (name, said)
        options = self._resolved.get(key)
        if options is None:
            options = said or UNSAID
            if name in self._definitions:
                options = options.over(self._definitions[name].options.over(DEFAULTS))
            if len(self._resolved) > 10_000:
                self._resolved.clear()
            self._resolved[key] = options
        return options

    @staticmethod
    def is_complete(options: Options) -> bool:
        """Whether the definition's word is in them: then nothing is left unsaid that has a default."""
        return options.acks is not None

    def estimate(self, name: str) -> float | None:
        """Seconds that a task of this name usually runs; None before the first has ended."""
        return self._run_times.get(name)

    def observe(self, name: str, ran: float) -> None:
        """A task of this name ran for `ran` seconds."""
        before = self._run_times.get(name)
        self._run_times[name] = ran if before is None else before + _NEW_SHARE * (ran - before)
