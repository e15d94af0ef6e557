"""The application.

Terminal 1: fastworker start fastapi_app.tasks
Terminal 2: uvicorn fastapi_app.main:app
Terminal 3: curl -X POST 'http://127.0.0.1:8000/reports?customer=Ada'
            curl 'http://127.0.0.1:8000/reports/ID/result?timeout=10'
"""

from fastapi import FastAPI

from fastworker.integrations.fastapi import FastWorkerMiddleware, task_router

from .tasks import write_report

app = FastAPI()
app.add_middleware(FastWorkerMiddleware)
app.include_router(task_router("/reports"))


@app.post("/reports", status_code=202)
async def order_report(customer: str, pages: int = 20) -> dict[str, str]:
    """Submit the task; the answer does not wait for it. A handle is its id, so it can be returned as it is."""
    return {"id": await write_report.submit(customer, pages)}
