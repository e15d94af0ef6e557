"""The whole wire format: every message, and frames to and from bytes. No I/O.

Both ends speak frames of JSON. A frame carries messages; the session (`fastworker.session`) makes their delivery
reliable and in order. `docs/protocol.md` describes the same for people.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, FailFast, FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from fastworker.lifecycle import State
from fastworker.limits import TaskLimits
from fastworker.schedule import Timing
from fastworker.search import TaskFilter
from fastworker.tasks import Definition, ErrorInfo, Options, Priority, Ties

PROTOCOL_VERSION: Final = 1
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
MAX_PAYLOAD_BYTES: Final = 7 * 1024 * 1024
"""The largest arguments or result, in bytes of JSON: escaped inside a frame it must stay below `MAX_FRAME_BYTES`."""

Role = Literal["client", "worker"]
Outcome_ = Literal["succeeded", "failed", "timeout", "crashed", "cancelled", "killed", "retry"]
RefusalCode = Literal[
    "malformed",
    "version",
    "unknown-session",
    "not-allowed",
    "unknown-task",
    "unknown-dependency",
    "duplicate",
    "too-large",
    "duplicate-worker",
    "failed",
    "schedule",
    "too-many-schedules",
]


# ---- what messages carry -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Submission:
    """One task to be queued. `again`: the id may have been submitted before, so look it up."""

    id: str
    name: str
    args: str
    options: Options | None = None
    headers: dict[str, str] | None = None
    watch: bool | None = None
    again: bool | None = None
    ties: Ties | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A task that is submitted by itself: which, and when."""

    name: str
    task: str
    timing: Timing
    args: str = "[]"
    options: Options | None = None
    key: str | None = None
    fair_key: str | None = None


@dataclass(slots=True)
class Order:
    """One attempt that a worker is to run. `(id, attempt)` is its fencing token.

    `inputs`: by task id, the JSON of the results that stand as `{"$result": id}` in the arguments; empty where that
    argument is to be left out.
    """

    id: str
    attempt: int
    name: str
    args: str
    rank: int
    timeout: FiniteFloat | None = None
    headers: dict[str, str] | None = None
    inputs: dict[str, str] | None = None
    hard_timeout: FiniteFloat | None = None


@dataclass(slots=True)
class Token:
    """The fencing token of one attempt."""

    id: str
    attempt: int


@dataclass(slots=True)
class Outcome:
    """How one attempt ended. `started` in seconds since 1970 (0: it never did), `ran` in seconds.

    `retry`: it wants to run again `after` seconds; with `hold`, no task of its lane is to start before that.
    """

    id: str
    attempt: int
    status: Outcome_
    started: FiniteFloat
    ran: FiniteFloat
    result: str | None = None
    error: ErrorInfo | None = None
    retryable: bool = True
    after: FiniteFloat | None = None
    hold: bool | None = None


@dataclass(slots=True)
class Note:
    """What a running task says of itself: progress from 0 to 1 with a word, and log lines since the last note.

    `parts` of the result, as JSON, of a task that yields them; `first` is the number of the first, counted from 0.
    `sealed_progress`: in place of `progress`, with payload encryption.
    """

    id: str
    attempt: int
    progress: tuple[FiniteFloat, str] | None = None
    log: list[str] = field(default_factory=list)
    first: int | None = None
    parts: list[str] = field(default_factory=list)
    sealed_progress: str | None = None


@dataclass(slots=True)
class Ended:
    """The end of a task, for those who wait for it. `state` is None if there is no such task."""

    id: str
    state: State | None = None
    reason: str | None = None
    result: str | None = None
    result_expired: bool | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One move of one task. `version` grows by one with each move, and never goes back at a restart."""

    version: int
    id: str
    name: str
    state: State
    attempt: int
    at: FiniteFloat


# ---- from clients and workers ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Hello:
    """The first message of each session.

    A worker says what it can run (`definitions`), how much at once (`slots`) and which attempts it holds
    (`holding`). `own`: it belongs to the control plane, so it works only where no other worker can.
    """

    role: Role
    version: int
    name: str
    host: str = ""
    pid: int = 0
    release: str = ""
    slots: int = 0
    own: bool = False
    definitions: list[Definition] = field(default_factory=list)
    holding: list[Token] = field(default_factory=list)
    kind: Literal["hello"] = field(default="hello", kw_only=True)


@dataclass(slots=True)
class Proof:
    """The answer to a `Challenge`: that the peer holds the key of this id. `proof`: see `fastworker.keys`."""

    key: str
    proof: str
    kind: Literal["proof"] = field(default="proof", kw_only=True)


@dataclass(slots=True)
class Submit:
    """Tasks to be queued, all or none. `strict`: refuse names that no worker knows."""

    request: int
    tasks: list[Submission]
    strict: bool = False
    kind: Literal["submit"] = field(default="submit", kw_only=True)


@dataclass(slots=True)
class Watch:
    """Send `Results` for these task ids as soon as they have ended. `live`: and `Notes` of what they say meanwhile."""

    items: list[str]
    live: bool = False
    kind: Literal["watch"] = field(default="watch", kw_only=True)


@dataclass(slots=True)
class Cancel:
    """Cancel a task, whatever it is doing; or all of the workflow that it belongs to."""

    request: int
    task: str
    workflow: bool | None = None
    by: str | None = None
    kind: Literal["cancel"] = field(default="cancel", kw_only=True)


@dataclass(slots=True)
class Requeue:
    """Run a task again that has ended; with `args`, on other arguments than before."""

    request: int
    task: str
    args: str | None = None
    by: str | None = None
    kind: Literal["requeue"] = field(default="requeue", kw_only=True)


@dataclass(slots=True)
class Query:
    """A question. Which fields matter depends on `what`. `redact`: without secrets, for other people's eyes."""

    request: int
    what: Literal[
        "info",
        "why",
        "list",
        "stats",
        "workers",
        "queues",
        "definitions",
        "workflow",
        "limits",
        "search",
        "facets",
        "failures",
        "activity",
        "audit",
        "bulk",
        "schedules",
    ]
    task: str | None = None
    state: State | None = None
    name: str | None = None
    queue: str | None = None
    limit: int = 50
    before: int | None = None
    filter: TaskFilter | None = None
    after: str | None = None
    redact: bool | None = None
    kind: Literal["query"] = field(default="query", kw_only=True)


@dataclass(slots=True)
class Control:
    """An order to the queue. What `name` names depends on the action.

    `pause` or `resume` a queue, a task name or a worker; `limit` a task name (without `limits`: as its definition
    says); `reprioritise` a task; `retry`, `cancel`, `delete` or `reprioritise` all tasks that fit `filter`, in the
    background; `stop` such a job; `note` an action in the audit; `follow` all changes, from `after` on where that is
    still known. `by`: who wants it, for the audit.
    """

    request: int
    action: Literal[
        "pause",
        "resume",
        "limit",
        "reprioritise",
        "retry",
        "cancel",
        "delete",
        "stop",
        "note",
        "follow",
        "unfollow",
    ]
    queue: str | None = None
    name: str | None = None
    worker: str | None = None
    limits: TaskLimits | None = None
    task: str | None = None
    priority: Priority | None = None
    after: int | None = None
    filter: TaskFilter | None = None
    by: str | None = None
    kind: Literal["control"] = field(default="control", kw_only=True)


@dataclass(slots=True)
class Schedules:
    """An order to one schedule. `add` puts it in the place of one of the same name; `run` makes the task `task` now."""

    request: int
    action: Literal["add", "pause", "resume", "run", "remove"]
    name: str
    schedule: Schedule | None = None
    task: str | None = None
    kind: Literal["schedules"] = field(default="schedules", kw_only=True)


@dataclass(slots=True)
class Credit:
    """How many tasks the worker will run at once from now on; 0 while it drains."""

    slots: int
    kind: Literal["credit"] = field(default="credit", kw_only=True)


@dataclass(slots=True)
class Outcomes:
    """Ended attempts. The worker keeps them until `Recorded(number)`."""

    number: int
    items: list[Outcome]
    kind: Literal["outcomes"] = field(default="outcomes", kw_only=True)


@dataclass(slots=True)
class Heartbeat:
    """The worker lives. Carries what its running tasks say, and how many bytes of memory it holds."""

    notes: list[Note] = field(default_factory=list)
    memory: int | None = None
    kind: Literal["heartbeat"] = field(default="heartbeat", kw_only=True)


@dataclass(slots=True)
class Handback:
    """Attempts that the worker gives back. `started`: they ran for a while and were broken off."""

    items: list[Token]
    started: bool = False
    kind: Literal["handback"] = field(default="handback", kw_only=True)


@dataclass(slots=True)
class Asked:
    """These attempts run in threads: they were asked to stop, and may go on."""

    items: list[Token]
    kind: Literal["asked"] = field(default="asked", kw_only=True)


@dataclass(slots=True)
class Goodbye:
    """The peer leaves for good: don't wait for it to come back."""

    kind: Literal["goodbye"] = field(default="goodbye", kw_only=True)


# ---- from the control plane --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Challenge:
    """What a control plane says first to a connection that needs a key: prove that you hold it, by these bytes."""

    nonce: str
    kind: Literal["challenge"] = field(default="challenge", kw_only=True)


@dataclass(slots=True)
class Welcome:
    """The answer to `Hello`. `drop` names attempts that the worker holds in vain.

    `insecure`: the control plane listens without encryption too.
    """

    instance: str
    release: str
    drop: list[Token] = field(default_factory=list)
    insecure: bool | None = None
    kind: Literal["welcome"] = field(default="welcome", kw_only=True)


@dataclass(slots=True)
class Accepted:
    """The tasks of these submit requests are in the store."""

    items: list[int]
    kind: Literal["accepted"] = field(default="accepted", kw_only=True)


@dataclass(slots=True)
class Duplicates:
    """Of a submit request: the tasks that were not taken in, each with the one that stands for it."""

    request: int
    instead: dict[str, str]
    kind: Literal["duplicates"] = field(default="duplicates", kw_only=True)


@dataclass(slots=True)
class Recorded:
    """All outcomes up to this number are in the store; the worker may forget them."""

    number: int
    kind: Literal["recorded"] = field(default="recorded", kw_only=True)


@dataclass(slots=True)
class Run:
    """Attempts for the worker to run."""

    items: list[Order]
    kind: Literal["run"] = field(default="run", kw_only=True)


@dataclass(slots=True)
class Stop:
    """Attempts that the worker is to give up."""

    items: list[Token]
    kind: Literal["stop"] = field(default="stop", kw_only=True)


@dataclass(slots=True)
class Results:
    """Ends of tasks that the client watches."""

    items: list[Ended]
    kind: Literal["results"] = field(default="results", kw_only=True)


@dataclass(slots=True)
class Notes:
    """What running tasks say that the client watches live. A reader that is slow misses some."""

    items: list[Note]
    kind: Literal["notes"] = field(default="notes", kw_only=True)


@dataclass(slots=True)
class Answer:
    """The answer to one request; what `data` is depends on the request."""

    request: int
    data: Any = None
    kind: Literal["answer"] = field(default="answer", kw_only=True)


@dataclass(slots=True)
class Changes:
    """Moves of tasks, for a peer that follows."""

    items: list[Change]
    kind: Literal["changes"] = field(default="changes", kw_only=True)


@dataclass(slots=True)
class Refused:
    """No, and why. Without a `request` it is about the frame or the session."""

    code: RefusalCode
    message: str
    request: int | None = None
    kind: Literal["refused"] = field(default="refused", kw_only=True)


FromPeer = (
    Hello
    | Proof
    | Submit
    | Watch
    | Cancel
    | Requeue
    | Query
    | Control
    | Schedules
    | Credit
    | Outcomes
    | Heartbeat
    | Handback
    | Asked
    | Goodbye
)
FromControlPlane = (
    Challenge | Welcome | Accepted | Duplicates | Recorded | Run | Stop | Results | Notes | Answer | Changes | Refused
)
Message = FromPeer | FromControlPlane
Batch = Watch | Accepted | Run | Stop | Handback | Asked | Results | Notes | Changes
"""Messages that are nothing but a list of items, so that two in a row can be one."""


# ---- frames ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Frame:
    """What travels: the messages of one session, numbered.

    Attributes:
        session: made by the peer, the same in both directions.
        seq: 1, 2, 3 … in each direction; 0 if nothing in it needs an acknowledgement.
        ack: the highest seq received in order.
        items: the messages.
    """

    session: str
    seq: int
    ack: int
    items: Annotated[list[Annotated[Message, Discriminator("kind")]], FailFast()]


_FRAME: TypeAdapter[Frame] = TypeAdapter(Frame)
LONGEST_COMPLAINT: Final = 200
"""Characters: names and keys from the frame may stand in a complaint, and a stranger chose them."""


class MalformedFrame(ValueError):
    """Bytes that are not a frame of this protocol."""


def encode(frame: Frame) -> bytes:
    """The frame as JSON. Where a text holds half a character (a lone surrogate), a question mark goes out."""
    try:
        return _FRAME.dump_json(frame, exclude_none=True)
    except PydanticSerializationError:
        plain = _FRAME.dump_python(frame, mode="json", exclude_none=True)
        return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")


def decode(body: bytes) -> Frame:
    """The frame in these bytes.

    Raises:
        MalformedFrame: says in a few words what is wrong with them.
    """
    try:
        return _FRAME.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedFrame(f"{where[:LONGEST_COMPLAINT] or 'frame'}: {first['msg'][:LONGEST_COMPLAINT]}") from None
