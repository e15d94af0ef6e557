"""The application.

Terminal 1: fastworker start fastapi_app.tasks
Terminal 2: uvicorn fastapi_app.main:app
Terminal 3: curl -X POST 'http://127.0.0.1:8000/reports?customer=Ada'
            curl http://127.0.0.1:8000/reports/ID
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

from fastworker import Client, State, TaskNotFound

from .tasks import write_report

client = Client()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Keep one connection to the control plane while the application runs."""
    async with client:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/reports", status_code=202)
async def order_report(customer: str, pages: int = 20) -> dict[str, str]:
    """Submit the task; the answer does not wait for it. A handle is its id, so it can be returned as it is."""
    return {"id": await write_report.submit(customer, pages)}


@app.get("/reports/{task_id}")
async def read_report(task_id: str) -> dict[str, Any]:
    """How far the task is, and its result once it has one."""
    try:
        info = await client.info(task_id)
    except TaskNotFound:
        raise HTTPException(404, "there is no such report") from None
    answer: dict[str, Any] = {"state": info.state, "progress": info.progress}
    if info.state is State.SUCCEEDED:
        answer["report"] = await client.result(task_id)
    if info.error is not None:
        answer["error"] = info.error.message
    return answer


@app.delete("/reports/{task_id}")
async def cancel_report(task_id: str) -> dict[str, str]:
    """Cancel the task, whether it waits or runs."""
    return {"answer": await client.cancel(task_id)}
